package server

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
)

// kubeadm is the command line that kubeadm writes into the static pod of an apiserver.
var kubeadm = strings.Fields(`--advertise-address=192.0.2.7 --allow-privileged=true --authorization-mode=Node,RBAC
	--client-ca-file=/etc/kubernetes/pki/ca.crt --enable-admission-plugins=NodeRestriction --enable-bootstrap-token-auth=true
	--etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt --etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt
	--etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key --etcd-servers=https://127.0.0.1:2379
	--kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt
	--kubelet-client-key=/etc/kubernetes/pki/apiserver-kubelet-client.key
	--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname
	--proxy-client-cert-file=/etc/kubernetes/pki/front-proxy-client.crt --proxy-client-key-file=/etc/kubernetes/pki/front-proxy-client.key
	--requestheader-allowed-names=front-proxy-client --requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt
	--requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group
	--requestheader-username-headers=X-Remote-User --requestheader-uid-headers=X-Remote-Uid --secure-port=6443
	--service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file=/etc/kubernetes/pki/sa.pub
	--service-account-signing-key-file=/etc/kubernetes/pki/sa.key --service-cluster-ip-range=10.96.0.0/12
	--tls-cert-file=/etc/kubernetes/pki/apiserver.crt --tls-private-key-file=/etc/kubernetes/pki/apiserver.key`)

// others are flags that administrators add to it.
var others = strings.Fields(`--profiling=false --bind-address=0.0.0.0 --service-node-port-range=30000-32000 --disable-admission-plugins=Priority
	--anonymous-auth=false --tls-min-version=VersionTLS13 --tls-cipher-suites=TLS_AES_128_GCM_SHA256 --feature-gates=WatchList=true
	--runtime-config=api/beta=false,resource.k8s.io/v1beta1=true --endpoint-reconciler-type=lease --goaway-chance=0.001
	--etcd-compaction-interval=5m --watch-cache --watch-cache-sizes=pods#1000 --default-watch-cache-size=100 --enable-garbage-collector
	--kubelet-timeout=5s --kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt --event-ttl=1h --max-requests-inflight=800
	--max-mutating-requests-inflight=400 --storage-backend=etcd3 --logging-format=json --v=2 --shutdown-delay-duration=5s
	--service-account-lookup=true --service-account-extend-token-expiration --contention-profiling=true --livez-grace-period=20s`)

func TestUpstreamCommandLines(t *testing.T) {
	c := &Config{}
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	c.AddFlags(f)
	if err := f.Parse(slices.Concat(kubeadm, others)); err != nil {
		t.Fatal(err)
	}
	if c.ProxyClientCert == "" || c.ProxyClientKey == "" || !c.AllowPrivileged || c.Profiling || c.GoawayChance != 0.001 || c.AnonymousAuth {
		t.Errorf("what the flags say was not taken over: %+v", c)
	}
	for _, bad := range []string{"--no-such-flag", "--storage-media-type=application/json", "--storage-backend=etcd2"} {
		f := pflag.NewFlagSet("test", pflag.ContinueOnError)
		(&Config{}).AddFlags(f)
		if f.Parse([]string{bad}) == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// TestSignerFlags holds that keys come from files or from a signer, not from both.
func TestSignerFlags(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const issuer, endpoint = " --service-account-issuer=https://k", " --service-account-signing-endpoint=/run/signer.sock"
	for flags, want := range map[string]string{
		issuer + endpoint: "",
		issuer + " --service-account-signing-endpoint=@signer": "",
		issuer + " --service-account-signing-key-file=" + key:  "",
		endpoint: "needs --service-account-issuer",
		issuer:   "belong together",
		issuer + endpoint + " --service-account-signing-key-file=" + key:       "excludes --service-account-signing-key-file",
		issuer + endpoint + " --service-account-key-file=" + key:               "excludes --service-account-signing-key-file",
		issuer + " --service-account-signing-endpoint=unix:///run/signer.sock": "is not a socket",
	} {
		c := &Config{}
		f := pflag.NewFlagSet("test", pflag.ContinueOnError)
		c.AddFlags(f)
		if err := f.Parse(strings.Fields(flags)); err != nil {
			t.Fatal(err)
		}
		if err := c.Check(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", flags, err, want)
		}
	}
}

// TestFlagCensus holds that every flag of upstream's is known here, and that what has no effect says so.
func TestFlagCensus(t *testing.T) {
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	(&Config{}).AddFlags(f)
	names, err := os.ReadFile("testdata/flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(names)) {
		if f.Lookup(name) == nil {
			t.Errorf("--%s is not known", name)
		}
	}
	var said bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&said, nil)))
	defer slog.SetDefault(before)
	for _, name := range unusedFlags {
		name, _ = strings.CutSuffix(name, "!")
		said.Reset()
		if _, passed := f.Lookup(name).Value.(*passedOver); !passed {
			continue // it has been put to use
		}
		if err := f.Set(name, "x"); err != nil || strings.Count(said.String(), "\n") != 1 || !strings.Contains(said.String(), "--"+name) {
			t.Errorf("--%s says %q, %v", name, said.String(), err)
		}
	}
	for name, only := range soleValues {
		if f.Set(name, only) != nil || f.Set(name, only+"x") == nil {
			t.Errorf("--%s does not take %q alone", name, only)
		}
	}
}

func TestRuntimeConfig(t *testing.T) {
	beta, ga := schema.GroupVersion{Group: "g", Version: "v1beta1"}, schema.GroupVersion{Group: "g", Version: "v1"}
	for _, tc := range []struct {
		flag string
		gv   schema.GroupVersion
		want bool
	}{
		{"", beta, true},
		{"api/beta=false", beta, false},
		{"api/beta=false", ga, true},
		{"api/beta=false g/v1beta1=true", beta, true},
		{"api/beta=false g/v1beta1/things=true", beta, true},
		{"g/v1=false", ga, false},
		{"api/all=false", ga, false},
		{"api/all=false", schema.GroupVersion{Version: "v1"}, true},
		{"api/all=false api/ga=true", ga, true},
	} {
		flag := map[string]string{}
		for _, w := range strings.Fields(tc.flag) {
			k, v, _ := strings.Cut(w, "=")
			flag[k] = v
		}
		r, err := parseRuntimeConfig(flag)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.serves(tc.gv, "things"); got != tc.want {
			t.Errorf("%q serves things of %v: %v", tc.flag, tc.gv, got)
		}
	}
	for _, bad := range []map[string]string{{"v1": "false"}, {"apps/v1": "maybe"}, {"a/b/c/d": "true"}} {
		if _, err := parseRuntimeConfig(bad); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
	r, _ := parseRuntimeConfig(map[string]string{"apps/v1": "false"})
	defs := kinds.All(kinds.Deps{})
	r.apply(defs)
	for _, d := range defs {
		if d.Group == "apps" && len(d.Versions) > 0 {
			t.Errorf("%s is still served", d.Resource)
		}
	}
}

func TestPrivilegedForbidden(t *testing.T) {
	yes := true
	d := &kind.Def{}
	for _, d = range kinds.All(kinds.Deps{}) {
		if d.Resource == "deployments" {
			break
		}
	}
	forbidPrivileged([]*kind.Def{d})
	obj := &appsv1.Deployment{}
	obj.Spec.Template.Spec.Containers = append(obj.Spec.Template.Spec.Containers, container(&yes), container(nil))
	const want = "spec.template.spec.containers[0].securityContext.privileged: Forbidden: disallowed by cluster policy"
	if got := d.Check(&kind.Op{Def: d}, obj, nil).ToAggregate().Error(); strings.Count(got, want) != 1 {
		t.Errorf("a privileged container is refused with %s", got)
	}
	if got := d.Check(&kind.Op{Def: d}, obj, obj.DeepCopy()).ToAggregate().Error(); strings.Contains(got, want) {
		t.Errorf("a deployment that has been privileged cannot be changed: %s", got)
	}
}

// TestProfiling serves profiles to whom RBAC lets, and to nobody when told not to.
func TestProfiling(t *testing.T) {
	t.Parallel()
	s := start(t)
	if code, _, b := s.Try(t, "GET", "/debug/pprof/", "", nil); code != http.StatusOK || !strings.Contains(string(b), "goroutine") {
		t.Errorf("the administrator gets %d %.80s", code, b)
	}
	if code, _, _ := s.Try(t, "GET", "/debug/pprof/heap", "", map[string]string{"Authorization": ""}); code != http.StatusForbidden {
		t.Errorf("nobody in particular gets %d", code)
	}
	off := start(t, func(c *Config) { c.Profiling = false })
	if code, _, _ := off.Try(t, "GET", "/debug/pprof/", "", nil); code != http.StatusNotFound {
		t.Errorf("a server without profiling answers %d", code)
	}
}

// TestOrigins asks as browsers do that show other sites.
func TestOrigins(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.CORSAllowedOrigins = []string{`//board\.example(:|$)`} })
	for _, c := range []struct {
		method, site string
		code         int
		allowed      bool
	}{
		{"GET", "https://board.example:8443", http.StatusOK, true}, {"GET", "https://board.example.evil", http.StatusOK, false}, {"GET", "", http.StatusOK, false},
		{"OPTIONS", "https://board.example", http.StatusNoContent, true}, {"OPTIONS", "https://evil.example", http.StatusMethodNotAllowed, false},
	} {
		code, h, _ := s.Try(t, c.method, "/api/v1/namespaces", "", map[string]string{"Origin": c.site})
		if code != c.code || (h.Get("Access-Control-Allow-Origin") == c.site && c.site != "") != c.allowed || (h.Get("Access-Control-Allow-Credentials") == "true") != c.allowed {
			t.Errorf("%+v: %d %v", c, code, h)
		}
	}
	for _, bad := range []string{"(", "board.example", "//board", "board$"} {
		if _, err := newOrigins([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestServing checks what the flags say of the way requests come in.
func TestServing(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) {
		c.TLSCurves = []int32{int32(tls.CurveP384)}
		c.TLSMinVersion, c.DisableHTTP2, c.StrictTransportSecurity = "VersionTLS13", true, []string{"max-age=31536000", "includeSubDomains"}
		c.RuntimeConfig = map[string]string{"apps/v1": "false"}
	})
	if code, h, _ := s.Try(t, "GET", "/api/v1/pods", "", nil); code != http.StatusOK || h.Get("Strict-Transport-Security") != "max-age=31536000; includeSubDomains" {
		t.Errorf("pods: %d %v", code, h)
	}
	if code, _, _ := s.Try(t, "GET", "/apis/apps/v1/deployments", "", nil); code != http.StatusNotFound {
		t.Errorf("a version that is switched off answers %d", code)
	}
	conn, err := tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("%q is spoken", p)
	}
	if _, err := tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
	if _, err := tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}); err == nil {
		t.Error("a key exchange that was not offered is taken")
	}
}
