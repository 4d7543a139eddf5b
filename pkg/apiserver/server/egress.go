package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/apis/apiserver/v1beta1"
	"sigs.k8s.io/yaml"
)

// egress is how the server connects to others, if a file says so (--egress-selector-config-file): through a proxy, if they
// are in a network that it is not in. A nil dialer stands for connecting as usual.
type egress struct {
	// cluster is to kubelets, pods, services, and webhooks and API servers behind services; control to webhooks elsewhere.
	cluster, control, etcd utilnet.DialFunc
}

const (
	tunnelWait = 30 * time.Second // for a proxy to reach whom it was asked for
	tunnelHead = 64 << 10         // bytes of a proxy's answer
)

// readEgress reads the file; "" = none.
func readEgress(file string) (e egress, err error) {
	if file == "" {
		return e, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return e, fmt.Errorf("reading --egress-selector-config-file: %w", err)
	}
	if e, err = parseEgress(data); err != nil {
		return e, fmt.Errorf("--egress-selector-config-file %s: %w", file, err)
	}
	return e, nil
}

func parseEgress(data []byte) (e egress, err error) {
	// v1alpha1 says the same in the same words.
	var conf v1beta1.EgressSelectorConfiguration
	if err := yaml.UnmarshalStrict(data, &conf); err != nil {
		return e, err
	}
	if v := strings.TrimPrefix(conf.APIVersion, "apiserver.k8s.io/"); conf.Kind != "EgressSelectorConfiguration" || v != "v1beta1" && v != "v1alpha1" {
		return e, fmt.Errorf("it is a %s of %q: give an EgressSelectorConfiguration of apiserver.k8s.io/v1beta1", conf.Kind, conf.APIVersion)
	}
	for i := range conf.EgressSelections {
		s := &conf.EgressSelections[i]
		var dial *utilnet.DialFunc
		switch strings.ToLower(s.Name) {
		case "cluster":
			dial = &e.cluster
		case "controlplane", "master":
			dial = &e.control
		case "etcd":
			dial = &e.etcd
		default:
			return e, fmt.Errorf("egressSelections[%d].name %q: use cluster, controlplane or etcd", i, s.Name)
		}
		if *dial != nil {
			return e, fmt.Errorf("egressSelections[%d].name %q is there twice", i, s.Name)
		}
		if *dial, err = dialer(&s.Connection); err != nil {
			return e, fmt.Errorf("egressSelections[%d].connection: %w", i, err)
		}
	}
	return e, nil
}

// dialer makes what a connection says.
func dialer(c *v1beta1.Connection) (utilnet.DialFunc, error) {
	switch t := c.Transport; {
	case c.ProxyProtocol == v1beta1.ProtocolDirect && t == nil:
		return (&net.Dialer{Timeout: tunnelWait}).DialContext, nil
	case c.ProxyProtocol == v1beta1.ProtocolDirect:
		return nil, errors.New("Direct has no transport")
	case c.ProxyProtocol == v1beta1.ProtocolGRPC:
		return nil, errors.New("GRPC is not spoken: let the proxy speak HTTPConnect (konnectivity's --mode=http-connect)")
	case c.ProxyProtocol != v1beta1.ProtocolHTTPConnect:
		return nil, fmt.Errorf("proxyProtocol %q: use Direct or HTTPConnect", c.ProxyProtocol)
	case t == nil || (t.TCP == nil) == (t.UDS == nil):
		return nil, errors.New("HTTPConnect needs a transport, tcp or uds")
	case t.UDS != nil && t.UDS.UDSName == "":
		return nil, errors.New("transport.uds needs a udsName")
	case t.UDS != nil:
		return through(t.UDS.UDSName, func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", t.UDS.UDSName)
		}), nil
	default:
		return overTCP(t.TCP)
	}
}

func overTCP(t *v1beta1.TCPTransport) (utilnet.DialFunc, error) {
	u, err := url.Parse(t.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("transport.tcp.url: %w", err)
	case u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("transport.tcp.url %q: give http:// or https:// and a host", t.URL)
	case u.Scheme == "http" && t.TLSConfig != nil:
		return nil, errors.New("transport.tcp.tlsConfig goes with https alone")
	case u.Scheme == "https" && t.TLSConfig == nil:
		return nil, errors.New("transport.tcp.url is https: it needs a tlsConfig")
	}
	at := u.Host
	if u.Port() == "" {
		at = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	if u.Scheme == "http" {
		return through(at, func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", at) }), nil
	}
	pair, err := tls.LoadX509KeyPair(t.TLSConfig.ClientCert, t.TLSConfig.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("transport.tcp.tlsConfig: %w", err)
	}
	d := &tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ServerName: t.TLSConfig.TLSServerName}}
	if ca := t.TLSConfig.CABundle; ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("transport.tcp.tlsConfig.caBundle: %w", err)
		}
		d.Config.RootCAs = x509.NewCertPool()
		if !d.Config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("transport.tcp.tlsConfig.caBundle %s holds no certificate", ca)
		}
	}
	return through(at, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", at) }), nil
}

// through asks a proxy to reach an address. Whoever waits may give up, and a proxy that says nothing is given up.
func through(name string, proxy func(context.Context) (net.Conn, error)) utilnet.DialFunc {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, tunnelWait)
		defer cancel()
		c, err := proxy(ctx)
		if err != nil {
			return nil, fmt.Errorf("reaching the proxy %s: %w", name, err)
		}
		goOn := context.AfterFunc(ctx, func() { _ = c.Close() })
		err = connectTo(c, address)
		if !goOn() {
			err = ctx.Err()
		}
		if err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("reaching %s through the proxy %s: %w", address, name, err)
		}
		return c, nil
	}
}

func connectTo(c net.Conn, address string) error {
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", address, address); err != nil {
		return err
	}
	// Those who dial here speak first, so there is nothing behind the answer's head that this reader could keep.
	r := bufio.NewReader(io.LimitReader(c, tunnelHead))
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // it has none
	if resp.StatusCode != http.StatusOK {
		return errors.New("it answers " + resp.Status)
	}
	if r.Buffered() > 0 {
		return errors.New("it speaks before it was spoken to")
	}
	return nil
}
