package server

import (
	"context"
	"crypto/tls"

	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver/v1beta1"
	"k8s.io/client-go/util/cert"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// tunnel is a proxy that joins who asks with where its test says; "" is where they asked for.
type tunnel struct {
	to func(address string) string

	mu    sync.Mutex
	asked []string
}

func (p *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.RequestURI)
	p.mu.Unlock()
	at := r.RequestURI
	if to := p.to(at); to != "" {
		at = to
	}
	there, err := net.Dial("tcp", at)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	here, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
	go func() { _, _ = io.Copy(there, here); _ = there.Close() }()
	_, _ = io.Copy(here, there)
	_ = here.Close()
}

func (p *tunnel) was(asked string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.asked, asked)
}

// overUDS listens on a socket in dir and answers the socket's name.
func (p *tunnel) overUDS(t *testing.T, dir, name string) string {
	t.Helper()
	at := filepath.Join(dir, name)
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: p} //nolint:gosec // a test's
	go s.Serve(l)                 //nolint:errcheck // it ends with the test
	t.Cleanup(func() { _ = s.Close() })
	return at
}

// TestEgress starts a server that reaches nodes and pods through one proxy, webhooks through another, which wants to know who it is, and etcd
// through a third; none of the addresses exists but behind them.
func TestEgress(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "eg") // a socket's name is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	says := func(words string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, words, " ", r.URL.Path) }
	}
	pod, kubelet := httptest.NewServer(says("the pod at")), httptest.NewTLSServer(says("the kubelet at"))
	t.Cleanup(pod.Close)
	t.Cleanup(kubelet.Close)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"","allowed":false,"status":{"message":"so says the hook"}}}`)
	}))
	t.Cleanup(hook.Close)

	cluster := &tunnel{to: func(a string) string {
		return map[string]string{"10.1.2.3:80": pod.Listener.Addr().String(), "10.9.9.9:10250": kubelet.Listener.Addr().String()}[a]
	}}
	control := &tunnel{to: func(string) string { return hook.Listener.Addr().String() }}
	db := &tunnel{to: func(string) string { return "" }}
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}

	proxy := httptest.NewUnstartedServer(control)
	proxy.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"http/1.1"}}
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	file := rig.WriteFile(t, dir, "egress.yaml", fmt.Sprintf(`
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection: {proxyProtocol: HTTPConnect, transport: {uds: {udsName: %s}}}
- name: controlplane
  connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: %q, tlsConfig: {caBundle: %s, clientCert: %[3]s, clientKey: %s}}}}
- name: etcd
  connection: {proxyProtocol: HTTPConnect, transport: {uds: {udsName: %s}}}
`, cluster.overUDS(t, dir, "c"), proxy.URL, rig.WriteFile(t, dir, "tls.crt", string(certPEM)), rig.WriteFile(t, dir, "tls.key", string(keyPEM)), db.overUDS(t, dir, "e")))
	_, etcd := rig.NewEtcd(t)
	s := start(t, func(c *Config) { c.EgressFile, c.EtcdServers = file, []string{etcd} })
	if at := "CONNECT " + strings.TrimPrefix(etcd, "http://"); !db.was(at) {
		t.Errorf("etcd was not reached by %s", at)
	}
	s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"default"}}`)
	s.Must(t, "POST", "/api/v1/nodes", `{"metadata":{"name":"n"}}`)
	s.Must(t, "PUT", "/api/v1/nodes/n/status", `{"metadata":{"name":"n"},"status":{"addresses":[{"type":"InternalIP","address":"10.9.9.9"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":10250}}}}`)
	s.Must(t, "POST", "/api/v1/namespaces/default/pods", `{"metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}}`)
	s.Must(t, "PUT", "/api/v1/namespaces/default/pods/p/status", `{"metadata":{"name":"p"},"status":{"phase":"Running","podIP":"10.1.2.3","podIPs":[{"ip":"10.1.2.3"}]}}`)
	for path, want := range map[string]string{
		"/api/v1/namespaces/default/pods/http:p:80/proxy/x": "the pod at /x", "/api/v1/namespaces/default/pods/p/log": "the kubelet at /containerLogs/default/p/c",
		"/api/v1/nodes/n/proxy/y": "the kubelet at /y",
	} {
		if code, _, b := s.Try(t, "GET", path, "", nil); code != 200 || string(b) != want {
			t.Errorf("%s: %d %s", path, code, b)
		}
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})
	s.Must(t, "POST", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", fmt.Sprintf(`{"metadata":{"name":"h"},"webhooks":[{"name":"h.example.com","sideEffects":"None","admissionReviewVersions":["v1"],
		"rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["configmaps"]}],"clientConfig":{"url":"https://example.com:8443/","caBundle":%s}}]}`, jsonOf(ca)))
	within(t, 10*time.Second, "the webhook is asked", func() bool {
		code, _, b := s.Try(t, "POST", "/api/v1/namespaces/default/configmaps?dryRun=All", `{"metadata":{"generateName":"m-"}}`, nil)
		return code == 500 && strings.Contains(string(b), "expected response.uid") || code == 400 && strings.Contains(string(b), "so says the hook")
	})
	if !control.was("CONNECT example.com:8443") {
		t.Errorf("the webhook was reached by %v", control.asked)
	}
	// A node may not have this machine reached through itself.
	s.Must(t, "PUT", "/api/v1/namespaces/default/pods/p/status", `{"metadata":{"name":"p"},"status":{"phase":"Running","podIP":"127.0.0.1","podIPs":[{"ip":"127.0.0.1"}]}}`)
	if code, _, b := s.Try(t, "GET", "/api/v1/namespaces/default/pods/http:p:80/proxy/x", "", nil); code < 400 || cluster.was("CONNECT 127.0.0.1:80") {
		t.Errorf("%d %s", code, b)
	}
}

func jsonOf(b []byte) string {
	q, _ := json.Marshal(b)
	return string(q)
}

// TestEgressConfiguration reads files that are wrong: one line says what is.
func TestEgressConfiguration(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n"
	for text, want := range map[string]string{
		"kind: x": "give an EgressSelectorConfiguration",
		head + "- {name: moon, connection: {proxyProtocol: Direct}}":                                                                             `"moon"`,
		head + "- {name: etcd, connection: {proxyProtocol: Direct}}\n- {name: Etcd, connection: {proxyProtocol: Direct}}":                        "twice",
		head + "- {name: cluster, connection: {proxyProtocol: Direct, transport: {uds: {udsName: x}}}}":                                          "Direct has no transport",
		head + "- {name: cluster, connection: {proxyProtocol: GRPC, transport: {uds: {udsName: x}}}}":                                            "HTTPConnect",
		head + "- {name: cluster, connection: {proxyProtocol: Mail}}":                                                                            `"Mail"`,
		head + "- {name: cluster, connection: {proxyProtocol: HTTPConnect}}":                                                                     "needs a transport",
		head + "- {name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {uds: {}}}}":                                               "udsName",
		head + "- {name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'ftp://a'}}}}":                                 "ftp://a",
		head + "- {name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://a'}}}}":                               "tlsConfig",
		head + "- {name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'http://a', tlsConfig: {}}}}}":                 "https alone",
		head + "- {name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://a', tlsConfig: {clientCert: /no}}}}}": "/no",
		head + "- {name: cluster, typo: 1}": "typo",
	} {
		_, err := readEgress(rig.WriteFile(t, t.TempDir(), "e.yaml", text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nis answered %v, not %s", text, err, want)
		}
	}
	e, err := readEgress(rig.WriteFile(t, t.TempDir(), "e.yaml", head+"- {name: cluster, connection: {proxyProtocol: Direct}}"))
	if err != nil || e.cluster == nil || e.control != nil || e.etcd != nil {
		t.Errorf("%v %v", e, err)
	}
}

// TestEgressThroughBadProxies dials through proxies that refuse, say too much, or say nothing: who waits is told, or gives up.
func TestEgressThroughBadProxies(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		"HTTP/1.1 403 Forbidden\r\n\r\n": "403 Forbidden", "HTTP/1.1 200 OK\r\n\r\nhello": "before it was spoken to", "what?\r\n\r\n": "malformed", "": "context deadline exceeded",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			_, _ = io.WriteString(c, answer)
		}()
		dial, err := overTCP(&v1beta1.TCPTransport{URL: "http://" + l.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		_, err = dial(ctx, "tcp", "10.0.0.1:1")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("of %q comes %v, not %s", answer, err, want)
		}
		cancel()
	}
}
