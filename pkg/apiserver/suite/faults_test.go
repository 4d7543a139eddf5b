package suite

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
	"github.com/sextant-k8s/sextant/pkg/apiserver/server"
)

// as are the headers that make a request somebody else's.
func as(user string, groups ...string) map[string]string {
	h := map[string]string{"Impersonate-User": user}
	if len(groups) > 0 {
		h["Impersonate-Group"] = groups[0]
	}
	return h
}

// refused makes a request that has to be refused with one of the codes.
func (c *client) refused(t *testing.T, method, path, body string, headers map[string]string, codes ...int) string {
	t.Helper()
	code, _, b := c.Try(t, method, path, body, headers)
	for _, want := range codes {
		if code == want {
			return string(b)
		}
	}
	t.Errorf("%s %s %.300s: %d, want one of %v: %.500s", method, path, body, code, codes, b)
	return string(b)
}

func caOf(s *httptest.Server) string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func port(t *testing.T, s *httptest.Server) string {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

// TestFaults tries the faults that were published against API servers, by their CVE ids; docs/api.md lists where each is
// tried.
func TestFaults(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *server.Config) {
		c.EnableAdmission = []string{"NodeRestriction", "DenyServiceExternalIPs"}
	})
	s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"default"}}`)
	var leaked atomic.Int32
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { leaked.Add(1) }))
	defer elsewhere.Close()
	redirect := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/apis/away.example.com/v1" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"away.example.com/v1","resources":[{"name":"things","namespaced":true,"kind":"Thing","verbs":["get"]}]}`)
			return
		}
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
	}))
	defer redirect.Close()

	t.Run("CVE-2018-1002105 CVE-2020-8559 a kubelet that does not upgrade or redirects", func(t *testing.T) {
		s.Must(t, "POST", "/api/v1/nodes", fmt.Sprintf(`{"metadata":{"name":"away"},"status":{"addresses":[{"type":"InternalIP","address":"127.0.0.1"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":%s}}}}`, port(t, redirect)))
		s.Must(t, "POST", "/api/v1/namespaces/default/pods", `{"metadata":{"name":"p"},"spec":{"nodeName":"away","containers":[{"name":"c","image":"x"}]}}`)
		for _, path := range []string{"/api/v1/namespaces/default/pods/p/exec?command=ls&stdout=1", "/api/v1/namespaces/default/pods/p/attach?stdout=1", "/api/v1/namespaces/default/pods/p/portforward"} {
			// HTTP/2 has no upgrade.
			one := &rig.Client{URL: s.URL, HTTP: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
			}}}
			code, h, b := one.Try(t, "POST", path, "", map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1"})
			if code < 400 || h.Get("Location") != "" {
				t.Errorf("%s: %d %v %s", path, code, h, b)
			}
			one.HTTP.CloseIdleConnections()
		}
		s.Try(t, "GET", "/api/v1/namespaces/default/pods/p/log", "", nil)
		if leaked.Load() != 0 {
			t.Error("a kubelet's redirect was followed")
		}
	})
	t.Run("CVE-2020-8561 a webhook that redirects", func(t *testing.T) {
		s.Must(t, "POST", "/api/v1/namespaces", `{"metadata":{"name":"hooked","labels":{"hooked":"yes"}}}`)
		s.Must(t, "POST", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", fmt.Sprintf(`{"metadata":{"name":"away"},"webhooks":[{"name":"away.example.com","admissionReviewVersions":["v1"],
			"sideEffects":"None","namespaceSelector":{"matchLabels":{"hooked":"yes"}},"clientConfig":{"url":%q,"caBundle":%q},"rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["configmaps"]}]}]}`, redirect.URL, caOf(redirect)))
		time.Sleep(50 * time.Millisecond)
		s.refused(t, "POST", "/api/v1/namespaces/hooked/configmaps", `{"metadata":{"name":"a"}}`, nil, 500)
		if leaked.Load() != 0 {
			t.Error("a webhook's redirect was followed")
		}
	})
	t.Run("CVE-2022-3172 an aggregated server that redirects", func(t *testing.T) {
		s.Must(t, "POST", "/api/v1/namespaces/default/services", fmt.Sprintf(`{"metadata":{"name":"away"},"spec":{"type":"ExternalName","externalName":"localhost","ports":[{"port":%s}]}}`, port(t, redirect)))
		s.Must(t, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", fmt.Sprintf(`{"metadata":{"name":"v1.away.example.com"},"spec":{"group":"away.example.com","version":"v1","groupPriorityMinimum":1,"versionPriority":1,
			"insecureSkipTLSVerify":true,"service":{"namespace":"default","name":"away","port":%s}}}`, port(t, redirect)))
		deadline := time.Now().Add(10 * time.Second)
		for {
			code, h, b := s.Try(t, "GET", "/apis/away.example.com/v1/namespaces/default/things", "", nil)
			if code == http.StatusBadGateway && h.Get("Location") == "" {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%d %v %s", code, h, b)
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if leaked.Load() != 0 {
			t.Error("an aggregated server's redirect was followed")
		}
	})
	t.Run("CVE-2020-8562 CVE-2022-3294 proxying to addresses of the server's own", func(t *testing.T) {
		for n, ip := range []string{"127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1"} {
			s.Must(t, "POST", "/api/v1/nodes", fmt.Sprintf(`{"metadata":{"name":"n%d"},"status":{"addresses":[{"type":"InternalIP","address":%q}],"daemonEndpoints":{"kubeletEndpoint":{"Port":%s}}}}`, n, ip, port(t, elsewhere)))
			pod := fmt.Sprintf("/api/v1/namespaces/default/pods/q%d", n)
			s.Must(t, "POST", "/api/v1/namespaces/default/pods", fmt.Sprintf(`{"metadata":{"name":"q%d"},"spec":{"containers":[{"name":"c","image":"x"}]}}`, n))
			s.Try(t, "PATCH", pod+"/status", fmt.Sprintf(`{"status":{"podIP":%q,"podIPs":[{"ip":%q}]}}`, ip, ip), map[string]string{"Content-Type": mergeType})
			for _, path := range []string{pod + "/proxy/", fmt.Sprintf("/api/v1/nodes/n%d:%s/proxy/", n, port(t, elsewhere)), fmt.Sprintf("/api/v1/namespaces/default/pods/https:q%d:%s/proxy/", n, port(t, elsewhere))} {
				s.refused(t, "GET", path, "", nil, 400, 403, 502, 503)
			}
		}
		if leaked.Load() != 0 {
			t.Error("a proxied request reached loopback")
		}
	})
	t.Run("CVE-2019-11247 CVE-2022-3162 one's objects through another's path", s.paths)
	t.Run("CVE-2021-25735 CVE-2023-2727 CVE-2023-2728 CVE-2024-3177 what admission sees", s.admitted)
	t.Run("CVE-2019-11253 CVE-2019-1002100 CVE-2023-44487 bombs", s.bombs)
	t.Run("CVE-2025-5187 CVE-2025-4563 what a node may do", s.node)
	t.Run("CVE-2021-25740 CVE-2020-8554 traffic of others", s.traffic)
}

func (c *client) paths(t *testing.T) {
	crd := func(plural, kind, scope string) string {
		return fmt.Sprintf(`{"metadata":{"name":"%s.paths.example.com"},"spec":{"group":"paths.example.com","scope":%q,"names":{"plural":%q,"kind":%q,"listKind":"%sList"},
			"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`, plural, scope, plural, kind, kind)
	}
	const crds, group = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/paths.example.com/v1"
	c.Must(t, "POST", crds, crd("wides", "Wide", "Cluster"))
	c.Must(t, "POST", crds, crd("narrows", "Narrow", "Namespaced"))
	c.Must(t, "POST", group+"/wides", `{"apiVersion":"paths.example.com/v1","kind":"Wide","metadata":{"name":"one"}}`)
	c.Must(t, "POST", group+"/namespaces/default/narrows", `{"apiVersion":"paths.example.com/v1","kind":"Narrow","metadata":{"name":"two"}}`)
	for _, path := range []string{group + "/namespaces/default/wides/one", group + "/namespaces/default/wides", group + "/narrows/two", group + "/wides/two", group + "/namespaces/default/narrows/one",
		group + "/wides/..%2fnarrows%2fdefault%2ftwo", "/api/v1/namespaces/default/configmaps/..%2f..%2fsecrets%2fdefault%2fx", "/api/v1/namespaces/..%2fsecrets/configmaps/x"} {
		c.refused(t, "GET", path, "", nil, 400, 404)
	}
	for _, name := range []string{"a/b", "..", ".", "a%b", "a\\u0000b"} {
		c.refused(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"`+name+`"}}`, nil, 400, 422)
		c.refused(t, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", `{"metadata":{"name":"`+strings.ReplaceAll(name, "\\u0000", "/")+`"}}`, nil, 400, 422)
	}
}

func (c *client) admitted(t *testing.T) {
	seen := make(chan string, 1)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Request struct {
				UID       string
				OldObject struct {
					Metadata struct{ Labels map[string]string }
				}
			}
		}
		_ = json.NewDecoder(r.Body).Decode(&review) // a wrong one shows below
		seen <- review.Request.OldObject.Metadata.Labels["who"]
		_, _ = fmt.Fprintf(w, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":%q,"allowed":true}}`, review.Request.UID)
	}))
	defer hook.Close()
	c.Must(t, "POST", "/api/v1/nodes", `{"metadata":{"name":"seen","labels":{"who":"stored"}}}`)
	const hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
	c.Must(t, "POST", hooks, fmt.Sprintf(`{"metadata":{"name":"seer"},"webhooks":[{"name":"seer.example.com","admissionReviewVersions":["v1"],"sideEffects":"None",
		"clientConfig":{"url":%q,"caBundle":%q},"rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["UPDATE"],"resources":["nodes"]}]}]}`, hook.URL, caOf(hook)))
	time.Sleep(50 * time.Millisecond)
	c.Must(t, "PUT", "/api/v1/nodes/seen", `{"metadata":{"name":"seen","labels":{"who":"sent"}}}`)
	if who := <-seen; who != "stored" {
		t.Errorf("a webhook was shown %q as the old object", who)
	}
	c.Must(t, "DELETE", hooks+"/seer", "")

	c.Must(t, "POST", "/api/v1/namespaces", `{"metadata":{"name":"bound"}}`)
	c.Must(t, "POST", "/api/v1/namespaces/bound/serviceaccounts", `{"metadata":{"name":"default","annotations":{"kubernetes.io/enforce-mountable-secrets":"true"}},"secrets":[{"name":"mine"}]}`)
	const pods = "/api/v1/namespaces/bound/pods"
	for _, spec := range []string{
		`"containers":[{"name":"c","image":"x","envFrom":[{"secretRef":{"name":"theirs"}}]}]`,
		`"containers":[{"name":"c","image":"x","env":[{"name":"A","valueFrom":{"secretKeyRef":{"name":"theirs","key":"k"}}}]}]`,
		`"initContainers":[{"name":"i","image":"x","envFrom":[{"secretRef":{"name":"theirs"}}]}],"containers":[{"name":"c","image":"x"}]`,
		`"containers":[{"name":"c","image":"x"}],"volumes":[{"name":"v","secret":{"secretName":"theirs"}}]`,
	} {
		c.refused(t, "POST", pods, `{"metadata":{"name":"p"},"spec":{`+spec+`}}`, nil, 403)
	}
	c.Must(t, "POST", pods, `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"x","envFrom":[{"secretRef":{"name":"mine"}}]}]}}`)
	c.refused(t, "PATCH", pods+"/p/ephemeralcontainers", `{"spec":{"ephemeralContainers":[{"name":"e","image":"x","envFrom":[{"secretRef":{"name":"theirs"}}]}]}}`, map[string]string{"Content-Type": strategicType}, 403)
}

func (c *client) bombs(t *testing.T) {
	const path = "/api/v1/namespaces/default/configmaps"
	begun := time.Now()
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for n := 1; n < 12; n++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", n, n, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", n-1), 9), ","))
	}
	bomb.WriteString("apiVersion: v1\nkind: ConfigMap\n")
	c.refused(t, "POST", path, bomb.String(), map[string]string{"Content-Type": "application/yaml"}, 400)
	c.refused(t, "POST", path, strings.Repeat(`{"a":`, 200_000)+strings.Repeat(`}`, 200_000), nil, 400)
	c.refused(t, "POST", path, `{"metadata":`+strings.Repeat(`[`, 500_000), nil, 400)
	c.refused(t, "POST", path, `{"metadata":{"name":"big"},"data":{"a":"`+strings.Repeat("x", 4<<20)+`"}}`, nil, 413)
	c.Must(t, "POST", path, `{"metadata":{"name":"small"},"data":{"a":"b"}}`)
	patch := map[string]string{"Content-Type": jsonPatchType}
	c.refused(t, "PATCH", path+"/small", "["+strings.Repeat(`{"op":"test","path":"/data/a","value":"b"},`, 10_001)+`{"op":"test","path":"/data/a","value":"b"}]`, patch, 413)
	ops := []string{`{"op":"add","path":"/metadata/annotations","value":{"a":"` + strings.Repeat("x", 1000) + `"}}`}
	for n := range 60 {
		ops = append(ops, fmt.Sprintf(`{"op":"copy","from":"/metadata/annotations","path":"/metadata/annotations/b%d"}`, n))
	}
	c.refused(t, "PATCH", path+"/small", "["+strings.Join(ops, ",")+"]", patch, 400, 413, 422)
	c.refused(t, "PATCH", path+"/small", strings.Repeat(`{"data":`, 100_000), map[string]string{"Content-Type": mergeType}, 400)
	// All of it before it is known who asks, too.
	c.refused(t, "POST", path, bomb.String(), map[string]string{"Content-Type": "application/yaml", "Authorization": "Bearer nobody"}, 401)
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("the bombs took %v", took)
	}
	c.Must(t, "GET", path+"/small", "")
}

func (c *client) node(t *testing.T) {
	me := as("system:node:me", "system:nodes")
	merge := as("system:node:me", "system:nodes")
	merge["Content-Type"] = mergeType
	c.Must(t, "POST", "/api/v1/nodes", `{"metadata":{"name":"me","labels":{"node-restriction.kubernetes.io/tier":"gold"}},"spec":{"taints":[{"key":"t","effect":"NoSchedule"}]}}`)
	c.Must(t, "POST", "/api/v1/nodes", `{"metadata":{"name":"other"}}`)
	c.Must(t, "POST", "/api/v1/namespaces/default/pods", `{"metadata":{"name":"theirs"},"spec":{"nodeName":"other","containers":[{"name":"c","image":"x"}]}}`)
	for _, patch := range []string{
		`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"1"}]}}`, // the node dies with what it names
		`{"metadata":{"labels":{"node-restriction.kubernetes.io/tier":"platinum"}}}`, `{"metadata":{"labels":{"node-restriction.kubernetes.io/tier":null}}}`, `{"spec":{"taints":null}}`,
	} {
		c.refused(t, "PATCH", "/api/v1/nodes/me", patch, merge, 403)
	}
	c.refused(t, "PATCH", "/api/v1/nodes/other", `{"metadata":{"labels":{"a":"b"}}}`, merge, 403)
	c.refused(t, "PATCH", "/api/v1/nodes/other/status", `{"status":{"conditions":[]}}`, merge, 403)
	c.refused(t, "DELETE", "/api/v1/namespaces/default/pods/theirs", "", me, 403)
	c.refused(t, "PATCH", "/api/v1/namespaces/default/pods/theirs/status", `{"status":{"phase":"Failed"}}`, merge, 403)
	mirror := `"annotations":{"kubernetes.io/config.mirror":"x"},"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"me","uid":"1","controller":true}]`
	for _, pod := range []string{
		`{"metadata":{"name":"plain"},"spec":{"nodeName":"me","containers":[{"name":"c","image":"x"}]}}`,
		`{"metadata":{"name":"m",` + mirror + `},"spec":{"nodeName":"other","containers":[{"name":"c","image":"x"}]}}`,
		`{"metadata":{"name":"m",` + mirror + `},"spec":{"nodeName":"me","containers":[{"name":"c","image":"x","envFrom":[{"secretRef":{"name":"s"}}]}]}}`,
		`{"metadata":{"name":"m",` + mirror + `},"spec":{"nodeName":"me","serviceAccountName":"default","containers":[{"name":"c","image":"x"}]}}`,
		`{"metadata":{"name":"m",` + mirror + `},"spec":{"nodeName":"me","resourceClaims":[{"name":"r","resourceClaimName":"c"}],"containers":[{"name":"c","image":"x"}]}}`,
	} {
		c.refused(t, "POST", "/api/v1/namespaces/default/pods", pod, me, 403)
	}
	c.refused(t, "GET", "/api/v1/namespaces/default/secrets", "", me, 403)
	// A WebSocket is opened by GET, but running something is no reading.
	c.Must(t, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", `{"metadata":{"name":"reader"},"rules":[{"apiGroups":[""],"resources":["pods","pods/exec"],"verbs":["get"]}]}`)
	c.Must(t, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", `{"metadata":{"name":"reader"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"reader"},"subjects":[{"kind":"User","name":"reader","apiGroup":"rbac.authorization.k8s.io"}]}`)
	c.refused(t, "GET", "/api/v1/namespaces/default/pods/theirs/exec?command=ls&stdout=1", "", as("reader"), 403)
}

func (c *client) traffic(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"} {
		c.refused(t, "POST", "/api/v1/namespaces/default/endpoints", `{"metadata":{"name":"e"},"subsets":[{"addresses":[{"ip":"`+ip+`"}],"ports":[{"port":80}]}]}`, nil, 422)
		c.refused(t, "POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", `{"metadata":{"name":"e"},"addressType":"IPv4","endpoints":[{"addresses":["`+ip+`"]}]}`, nil, 422)
	}
	c.refused(t, "POST", "/api/v1/namespaces/default/services", `{"metadata":{"name":"x"},"spec":{"ports":[{"port":80}],"externalIPs":["203.0.113.1"]}}`, nil, 403)
	var role struct {
		Rules []struct{ Resources, Verbs []string }
	}
	decode(t, c.Must(t, "GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/edit", ""), &role)
	if len(role.Rules) == 0 {
		decode(t, c.Must(t, "GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:aggregate-to-edit", ""), &role)
	}
	for _, r := range role.Rules {
		for _, resource := range r.Resources {
			for _, verb := range r.Verbs {
				if (resource == "endpoints" || resource == "endpointslices" || resource == "services/status") && verb != "get" && verb != "list" && verb != "watch" {
					t.Errorf("who may edit may %s %s", verb, resource)
				}
			}
		}
	}
}

// TestNothingSecretInLogs runs a server that logs all it can, and looks for what must not stand there
// (CVE-2019-11250, CVE-2020-8563 to 8566).
func TestNothingSecretInLogs(t *testing.T) {
	t.Parallel()
	_, dbURL := rig.NewEtcd(t)
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // read below
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "hook-secret-word")
	}))
	defer hook.Close()
	p, s := newServer(t, dbURL, "--v=10", "--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file="+rig.WriteFile(t, dir, "sa.key", rig.NewKey(t)))
	p.Log = log
	p.Kill()
	p.Start(t)
	s.Ready(t, 30*time.Second)
	s.Must(t, "POST", "/api/v1/namespaces/default/secrets", `{"metadata":{"name":"s"},"stringData":{"a":"stored-secret-word"}}`)
	s.Must(t, "GET", "/api/v1/namespaces/default/secrets?watch=1&timeoutSeconds=1&resourceVersion=0", "")
	s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"sa"}}`)
	var token struct{ Status struct{ Token string } }
	decode(t, s.Must(t, "POST", "/api/v1/namespaces/default/serviceaccounts/sa/token", `{"spec":{}}`), &token)
	s.Must(t, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", `{"spec":{"token":"`+token.Status.Token+`"}}`)
	s.Must(t, "POST", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", fmt.Sprintf(`{"metadata":{"name":"h"},"webhooks":[{"name":"h.example.com","admissionReviewVersions":["v1"],"sideEffects":"None",
		"clientConfig":{"url":%q,"caBundle":%q},"rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["configmaps"]}]}]}`, hook.URL, caOf(hook)))
	time.Sleep(100 * time.Millisecond)
	s.refused(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"c"},"data":{"a":"b"}}`, nil, 500)
	s.refused(t, "GET", "/api/v1/namespaces", "", map[string]string{"Authorization": "Bearer wrong-secret-word"}, 401)
	p.Kill()
	b, err := os.ReadFile(log.Name())
	if err != nil || len(b) == 0 {
		t.Fatalf("the server logged %d bytes, %v", len(b), err)
	}
	for _, word := range []string{"secret-word", base64.StdEncoding.EncodeToString([]byte("stored-secret-word")), rig.AdminToken, token.Status.Token} {
		if at := strings.Index(string(b), word); at >= 0 {
			t.Errorf("%.20s... stands in the log: %.300s", word, b[max(0, at-200):])
		}
	}
}
