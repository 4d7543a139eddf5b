package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	kwebhook "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Target is where a webhook is: a URL, or a service in the cluster.
type Target struct {
	URL                      string
	Namespace, Name, SubPath string // of the service, if URL is ""
	Port                     int32
	CABundle                 []byte
}

// String names the target as errors show it.
func (t Target) String() string {
	if t.URL != "" {
		return t.URL
	}
	return t.url().String()
}

func (t Target) url() *url.URL {
	if t.URL != "" {
		u, err := url.Parse(t.URL)
		if err != nil {
			return &url.URL{Path: t.URL}
		}
		return u
	}
	path, query, _ := strings.Cut(t.SubPath, "?")
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(t.host(), strconv.Itoa(int(t.Port))), Path: path, RawQuery: query}
}

func (t Target) host() string { return t.Name + "." + t.Namespace + ".svc" }

// Caller posts to webhooks. It keeps connections per target and is safe for concurrent use.
type Caller struct {
	Env kind.Env
	// Identity, if set, is shown to services that ask for a client certificate.
	Identity func() (*tls.Certificate, error)
	// Logins, if set, says how to log in to which service.
	Logins kwebhook.AuthenticationInfoResolver
	// DialService and DialURL, if set, are how services of the cluster and others are reached.
	DialService, DialURL utilnet.DialFunc

	mu      sync.Mutex
	clients map[string]*http.Client
}

// most bounds an answer, in bytes.
const most = 3 << 20

// Post sends JSON and answers the body of a 200.
func (c *Caller) Post(ctx context.Context, t Target, body []byte, timeout time.Duration) ([]byte, error) {
	client, err := c.client(t)
	if err != nil {
		return nil, err
	}
	u := t.url()
	q := u.Query()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
		q.Set("timeout", timeout.String())
		u.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, */*")
	req.Header.Set("User-Agent", "kube-apiserver-admission")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return nil, err
	case len(answer) > most:
		return nil, errors.New("the answer is larger than 3 MiB")
	case resp.StatusCode == http.StatusNotFound:
		return nil, errors.New("the server could not find the requested resource")
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("an error on the server (%q) has prevented the request from succeeding", clip(string(answer)))
	}
	return answer, nil
}

func clip(s string) string {
	if len(s) > 512 {
		return s[:512]
	}
	return s
}

// client answers the client for a target's name and CAs.
func (c *Caller) client(t Target) (*http.Client, error) {
	key := fmt.Sprintf("%s/%s:%d %s %x", t.Namespace, t.Name, t.Port, t.url().Host, sha256.Sum256(t.CABundle))
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.clients[key]; h != nil {
		return h, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(t.CABundle) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(t.CABundle) {
			return nil, errors.New("unable to load root certificates: unable to parse bytes as PEM block")
		}
	}
	if c.Identity != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.Identity() }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
	if t.URL == "" {
		config.ServerName = t.host()
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			address, err := Resolve(ctx, c.Env, t.Namespace, t.Name, t.Port)
			if err != nil {
				return nil, err
			}
			if c.DialService != nil {
				return c.DialService(ctx, network, address)
			}
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}
	} else if c.DialURL != nil {
		transport.DialContext = c.DialURL
	}
	if c.clients == nil || len(c.clients) >= 256 {
		c.clients = map[string]*http.Client{} // whoever is in use goes on with its own
	}
	wrapped, err := c.login(t, transport)
	if err != nil {
		return nil, err
	}
	h := &http.Client{Transport: wrapped, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.clients[key] = h
	return h, nil
}

// login makes a transport prove who asks as Logins says.
func (c *Caller) login(t Target, transport *http.Transport) (http.RoundTripper, error) {
	if c.Logins == nil {
		return transport, nil
	}
	var as *rest.Config
	var err error
	if t.URL == "" {
		as, err = c.Logins.ClientConfigForService(t.Name, t.Namespace, int(t.Port))
	} else {
		host := t.url().Host
		if t.url().Port() == "" {
			host = net.JoinHostPort(t.url().Hostname(), "443")
		}
		as, err = c.Logins.ClientConfigFor(host)
	}
	if err != nil {
		return nil, fmt.Errorf("finding out how to log in: %w", err)
	}
	config, err := rest.TLSConfigFor(as)
	if err != nil {
		return nil, fmt.Errorf("finding out how to log in: %w", err)
	}
	if config != nil && config.GetClientCertificate != nil {
		transport.TLSClientConfig.GetClientCertificate = config.GetClientCertificate
	}
	return rest.HTTPWrappersForConfig(as, transport)
}

var (
	services = schema.GroupResource{Resource: "services"}
	slicesGR = schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}
)

// Resolve answers host:port of a ready endpoint of a service's port; of its cluster IP if it has none that is known.
func Resolve(ctx context.Context, env kind.Env, namespace, name string, port int32) (string, error) {
	obj, err := env.Get(ctx, services, namespace, name)
	if err != nil {
		return "", err
	}
	s := obj.(*corev1.Service)
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return net.JoinHostPort(s.Spec.ExternalName, strconv.Itoa(int(port))), nil
	}
	at := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port })
	if at < 0 {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", port, name))
	}
	objs, err := env.List(ctx, slicesGR, namespace)
	if err != nil {
		return "", err
	}
	var found []string
	for _, o := range objs {
		if slice := o.(*discoveryv1.EndpointSlice); slice.Labels[discoveryv1.LabelServiceName] == name {
			found = append(found, ready(slice, s.Spec.Ports[at].Name)...)
		}
	}
	if len(found) > 0 {
		return found[rand.IntN(len(found))], nil
	}
	if ip := s.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone && len(s.Spec.Selector) == 0 {
		return net.JoinHostPort(ip, strconv.Itoa(int(port))), nil
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
}

func ready(slice *discoveryv1.EndpointSlice, port string) (found []string) {
	for _, p := range slice.Ports {
		if p.Port == nil || p.Name != nil && *p.Name != port || p.Name == nil && port != "" {
			continue
		}
		for _, e := range slice.Endpoints {
			if (e.Conditions.Ready == nil || *e.Conditions.Ready) && len(e.Addresses) > 0 {
				found = append(found, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return found
}
