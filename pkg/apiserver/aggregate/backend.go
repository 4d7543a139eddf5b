package aggregate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/proxy"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/discovery"
	"github.com/sextant-k8s/sextant/pkg/apiserver/openapi"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
	"github.com/sextant-k8s/sextant/pkg/apiserver/webhook"
)

// backend is one server that serves one group and version.
type backend struct {
	room      *Room
	service   *apiregistrationv1.APIService
	transport *http.Transport
	stop      context.CancelFunc
	again     chan struct{} // asks for a check at once

	mu        sync.Mutex
	available bool
	resources *metav1.APIResourceList // as last told; nil before the first time
	documents openapi.Foreign
}

func newBackend(r *Room, s *apiregistrationv1.APIService) *backend {
	b := &backend{room: r, service: s, again: make(chan struct{}, 1)}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.Spec.Service.Name + "." + s.Spec.Service.Namespace + ".svc", InsecureSkipVerify: s.Spec.InsecureSkipTLSVerify} //nolint:gosec // who made the APIService asks for it
	if len(s.Spec.CABundle) > 0 {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(s.Spec.CABundle)
	}
	if r.c.Identity != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return r.c.Identity() }
	}
	b.transport = &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			address, err := webhook.Resolve(ctx, r.c.Env, s.Spec.Service.Namespace, s.Spec.Service.Name, b.port())
			if err != nil {
				return nil, err
			}
			if r.c.Dial != nil {
				return r.c.Dial(ctx, network, address)
			}
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		},
	}
	return b
}

func (b *backend) port() int32 {
	if p := b.service.Spec.Service.Port; p != nil {
		return *p
	}
	return 443
}

func (b *backend) url(path string) *url.URL {
	s := b.service.Spec.Service
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(s.Name+"."+s.Namespace+".svc", fmt.Sprint(b.port())), Path: path}
}

// get asks the backend something as the server itself.
func (b *backend) get(ctx context.Context, path, accept string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url(path).String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("X-Remote-User", "system:kube-aggregator")
	req.Header.Set("X-Remote-Group", "system:masters")
	resp, err := b.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, 32<<20))
	if err == nil && (resp.StatusCode < 200 || resp.StatusCode >= 300) {
		err = fmt.Errorf("bad status from %v: %d", req.URL, resp.StatusCode)
	}
	return body, err
}

// serve passes a request on.
func (b *backend) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	available := b.available
	b.mu.Unlock()
	u := request.UserOf(r.Context())
	switch {
	case !available:
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	case u == nil:
		http.Error(w, "missing user", http.StatusInternalServerError)
		return
	}
	r = r.Clone(r.Context())
	endHere(r.Header)
	for h := range r.Header {
		if len(h) >= 9 && http.CanonicalHeaderKey(h)[:9] == "X-Remote-" {
			r.Header.Del(h) // nobody names himself
		}
	}
	r.Header.Set("X-Remote-User", u.GetName())
	if u.GetUID() != "" {
		r.Header.Set("X-Remote-Uid", u.GetUID())
	}
	for _, g := range u.GetGroups() {
		r.Header.Add("X-Remote-Group", g)
	}
	for k, values := range u.GetExtra() {
		for _, v := range values {
			r.Header.Add("X-Remote-Extra-"+url.PathEscape(k), v)
		}
	}
	to := b.url(r.URL.Path)
	to.RawQuery = r.URL.RawQuery
	h := proxy.NewUpgradeAwareHandler(to, b.transport, false, false, responder{b, w})
	h.UseLocationHost = true
	h.RejectForwardingRedirects = true // a redirect would take the user's name elsewhere
	h.FlushInterval = -1               // a watch event waits for nobody
	h.ServeHTTP(w, r)
}

// endHere takes off what a client says is for this connection alone. The proxy would do so too late: a client that named the headers
// which say who asks would pass as nobody, or without what limits it.
func endHere(h http.Header) {
	upgrades := false
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); strings.EqualFold(name, "Upgrade") {
				upgrades = true
			} else {
				h.Del(name)
			}
		}
	}
	h.Del("Connection")
	if upgrades {
		h.Set("Connection", "Upgrade")
	}
}

// responder answers a request that could not be passed on, and has the backend looked at.
type responder struct {
	b *backend
	w http.ResponseWriter
}

// Error answers that the backend cannot be reached.
func (r responder) Error(_ http.ResponseWriter, req *http.Request, err error) {
	if req.Context().Err() == nil {
		slog.Info("an aggregated server cannot be reached", "apiservice", r.b.service.Name, "err", err)
		r.b.check()
	}
	http.Error(r.w, "error trying to reach service: "+err.Error(), http.StatusServiceUnavailable)
}

func (b *backend) check() {
	select {
	case b.again <- struct{}{}:
	default:
	}
}

// discovered is what the backend last said that it serves.
func (b *backend) discovered() (discovery.Foreign, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.service.Spec
	f := discovery.Foreign{Resources: b.resources, Fresh: b.available, GroupPriority: s.GroupPriorityMinimum, VersionPriority: s.VersionPriority}
	f.GV.Group, f.GV.Version = s.Group, s.Version
	return f, b.resources != nil
}

// described is how the backend describes itself in OpenAPI.
func (b *backend) described() (openapi.Foreign, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.documents, b.documents.Key != ""
}
