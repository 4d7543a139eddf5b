// Package connect serves the subresources that are streams: what goes through the server to a kubelet, a pod or a
// service.
//
// The flow: find the pod, its node and where that node's kubelet listens; check what the query asks; hand the
// connection over. An upgraded connection (SPDY, WebSocket) is joined byte for byte. A Streams is shared by all
// requests; each stream has its own goroutine, that of its request.
package connect

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	streamproxy "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// Config is how kubelets are reached.
type Config struct {
	ClientCert, ClientKey string // files; the certificate by which the server proves itself to kubelets
	CAFile                string // of kubelets' serving certificates; "" = not verified
	// AddressTypes are which of a node's addresses to use, best first.
	AddressTypes []string
	// Timeout bounds connecting to a kubelet; 0 = 10 s.
	Timeout time.Duration
	// Dial, if set, is how nodes, pods and services are reached.
	Dial utilnet.DialFunc
	// WriteError answers an error as an API status.
	WriteError func(w http.ResponseWriter, r *http.Request, err error)
}

// Streams serves streams.
type Streams struct {
	c          Config
	kubelet    *http.Transport
	unverified *http.Transport // as kubelet, for who asks for logs whosever they are
	workloads  *http.Transport // to pods and services, whose certificates nobody vouches for
	node       *http.Transport // as kubelet, for what is proxied to an address a node gave itself
}

// New reads the certificates.
func New(c Config) (*Streams, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.CAFile == ""} //nolint:gosec // without a CA there is nothing to verify by; the flag says so
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading --kubelet-certificate-authority: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--kubelet-certificate-authority %s holds no certificate", c.CAFile)
		}
	}
	if c.ClientCert != "" {
		if _, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey); err != nil {
			return nil, fmt.Errorf("reading --kubelet-client-certificate and --kubelet-client-key: %w", err)
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey)
			return &cert, err
		}
	}
	trusting := t.Clone()
	trusting.InsecureSkipVerify = true
	s := &Streams{c: c, kubelet: transport(t, c.Timeout), unverified: transport(trusting, c.Timeout), workloads: transport(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, 0), node: transport(t, c.Timeout)} //nolint:gosec // as upstream: pods serve what they like
	for _, t := range []*http.Transport{s.workloads, s.node} {
		t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: outside}).DialContext
		if c.Dial != nil {
			t.DialContext = c.dialOutside
		}
	}
	if c.Dial != nil {
		s.kubelet.DialContext, s.unverified.DialContext = c.Dial, c.Dial
	}
	return s, nil
}

// outside refuses to dial this machine and what only it can reach. It sees the address that is dialed, whatever its name
// meant when it was looked at.
func outside(_, address string, _ syscall.RawConn) error {
	if a, err := netip.ParseAddrPort(address); err != nil || !proxyable(a.Addr()) {
		return errAddress
	}
	return nil
}

// dialOutside is Dial with the same refusal. What a name means to the proxy is not known here: it is refused if it means to
// this server what must not be reached.
func (c *Config) dialOutside(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(a netip.Addr) bool { return !proxyable(a) }) {
		return nil, errAddress
	}
	return c.Dial(ctx, network, address)
}

func proxyable(a netip.Addr) bool {
	a = a.Unmap()
	return !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsLinkLocalMulticast() && !a.IsInterfaceLocalMulticast() && !a.IsUnspecified()
}

var errAddress = errors.New("address not allowed")

func transport(t *tls.Config, patience time.Duration) *http.Transport {
	patience = cmp.Or(patience, 10*time.Second)
	return &http.Transport{
		TLSClientConfig: t, MaxIdleConnsPerHost: 25, IdleConnTimeout: time.Minute,
		DialContext: (&net.Dialer{Timeout: patience, KeepAlive: 30 * time.Second}).DialContext, TLSHandshakeTimeout: patience,
	}
}

var (
	podsGR  = schema.GroupResource{Resource: "pods"}
	nodesGR = schema.GroupResource{Resource: "nodes"}
)

// host answers a node and where its kubelet listens.
func (s *Streams) host(c *kind.ConnectRequest, node string) (string, *corev1.Node, error) {
	obj, err := c.Op.Env.GetFresh(c.Op.Ctx, nodesGR, "", node)
	if err != nil {
		return "", nil, err
	}
	n := obj.(*corev1.Node)
	port := int(n.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if port == 0 {
		port = 10250
	}
	for _, t := range s.c.AddressTypes {
		for _, a := range n.Status.Addresses {
			if string(a.Type) == t && a.Address != "" {
				return net.JoinHostPort(a.Address, strconv.Itoa(port)), n, nil
			}
		}
	}
	return "", nil, apierrors.NewInternalError(fmt.Errorf("no preferred addresses found for node %q; known addresses: %v", node, n.Status.Addresses))
}

// target answers the URL of a pod, or of a container of it, at its kubelet, and its node; nil for the log of a pod that has
// no node yet.
func (s *Streams) target(c *kind.ConnectRequest, folder string, withContainer bool) (*url.URL, *corev1.Node, error) {
	obj, err := c.Op.Env.GetFresh(c.Op.Ctx, podsGR, c.Op.Namespace, c.Op.Name)
	if err != nil {
		return nil, nil, err
	}
	p := obj.(*corev1.Pod)
	q := c.HTTP.URL.Query()
	parts := []string{"/" + folder, p.Namespace, p.Name}
	if withContainer {
		container, err := containerOf(p, q.Get("container"))
		if err != nil {
			return nil, nil, err
		}
		parts = append(parts, container)
	}
	if p.Spec.NodeName == "" {
		if folder == "containerLogs" {
			return nil, nil, nil // nothing was said yet
		}
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", p.Name))
	}
	host, node, err := s.host(c, p.Spec.NodeName)
	if err != nil {
		return nil, nil, err
	}
	return &url.URL{Scheme: "https", Host: host, Path: path.Join(parts...)}, node, nil
}

// containerOf picks the container a request means.
func containerOf(p *corev1.Pod, asked string) (string, error) {
	var names, inits, ephemeral []string
	for _, c := range p.Spec.Containers {
		names = append(names, c.Name)
	}
	for _, c := range p.Spec.InitContainers {
		inits = append(inits, c.Name)
	}
	for _, c := range p.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, c.Name)
	}
	switch {
	case asked == "" && len(names) == 1 && len(inits) == 0 && len(ephemeral) == 0:
		return names[0], nil
	case asked == "" && len(names) == 1 && len(ephemeral) == 0:
		return "", choose(p, names, inits)
	case asked == "":
		return "", choose(p, names, inits)
	case slices.Contains(slices.Concat(names, inits, ephemeral), asked):
		return asked, nil
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", asked, p.Name))
}

func choose(p *corev1.Pod, names, inits []string) error {
	text := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", p.Name, strings.Join(names, " "))
	if len(inits) > 0 {
		text += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(inits, " "))
	}
	return apierrors.NewBadRequest(text)
}

// Exec serves pods/exec.
func (s *Streams) Exec(c *kind.ConnectRequest) { s.stream(c, "exec", true) }

// Attach serves pods/attach.
func (s *Streams) Attach(c *kind.ConnectRequest) { s.stream(c, "attach", true) }

// PortForward serves pods/portforward.
func (s *Streams) PortForward(c *kind.ConnectRequest) { s.stream(c, "portForward", false) }

// stream joins the client with a stream of the kubelet.
func (s *Streams) stream(c *kind.ConnectRequest, folder string, withContainer bool) {
	u, node, err := s.target(c, folder, withContainer)
	if err != nil {
		s.c.WriteError(c.Writer, c.HTTP, err)
		return
	}
	q := c.HTTP.URL.Query()
	out := url.Values{}
	// The kubelet knows these by names of its own.
	for from, to := range map[string]string{"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"} {
		if request.Yes(q, from) {
			out.Set(to, "1")
		}
	}
	for _, cmd := range q["command"] {
		out.Add("command", cmd)
	}
	if folder == "portForward" {
		out = url.Values{"port": q["ports"]}
		if len(q["ports"]) == 0 {
			out.Del("port")
		}
	}
	u.RawQuery = out.Encode()
	h := proxy.NewUpgradeAwareHandler(u, s.kubelet, false, true, responder{s, c})
	h.UseRequestLocation, h.UseLocationHost = false, true
	s.translated(h, u, node, folder == "portForward", c.HTTP).ServeHTTP(lingering{c.Writer}, c.HTTP)
}

// speaksNew is the feature that a node declares whose kubelet takes the newest WebSocket protocols itself.
const speaksNew = "ExtendWebSocketsToKubelet"

// translated answers what serves a stream. Kubelets hand streams on to their runtime as they come, and runtimes know SPDY
// and the first four WebSocket protocols: one that is offered v5.channel.k8s.io alone refuses with a 403. So the newest
// protocols are ended here, and the kubelet is spoken SPDY to.
func (s *Streams) translated(through http.Handler, u *url.URL, node *corev1.Node, ports bool, r *http.Request) http.Handler {
	q := u.Query()
	tty := q.Get("tty") == "1"
	switch {
	case slices.Contains(node.Status.DeclaredFeatures, speaksNew):
	case ports && wsstream.IsWebSocketRequestWithTunnelingProtocol(r):
		return streamproxy.NewTunnelingHandler(through)
	case !ports && wsstream.IsWebSocketRequestWithStreamCloseProtocol(r):
		return streamproxy.NewStreamTranslatorHandler(u, s.kubelet, 0, streamproxy.Options{
			Stdin: q.Get("input") == "1", Stdout: q.Get("output") == "1", Stderr: q.Get("error") == "1" && !tty, Tty: tty,
		})
	}
	return through
}

// responder answers when the other side cannot be reached.
type responder struct {
	s *Streams
	c *kind.ConnectRequest
}

// Error answers an error.
func (r responder) Error(w http.ResponseWriter, req *http.Request, err error) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		err = apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach service: %v", err))
	}
	r.s.c.WriteError(w, req, err)
}
