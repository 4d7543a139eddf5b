package engine_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/engine"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/core"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// FuzzRequest asks the engine, with all its rows over an etcd that does nothing, for anything: a path, a media type and a body,
// so every decoder, selector, continue token, definition, expression and URL that a client may send. The answer comes soon;
// one that is a refusal is a Status that says so, and a list is of the namespace that was asked for, and of no time to come.
func FuzzRequest(f *testing.F) {
	const maps, crds, policies = "/api/v1/namespaces/default/configmaps", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies?dryRun=All"
	for _, s := range [][4]string{
		{"POST", maps + "?dryRun=All", "application/json", `{"metadata":{"name":"a","resourceVersion":"7"}}`}, {"PATCH", maps + "/kept?dryRun=All", "application/json-patch+json", `[{"op":"test","path":"/data/a","value":1}]`}, {"PATCH", maps + "/kept?dryRun=All", "application/json-patch+json", `[{"op":"remove","path":"/zz"}]`},
		{"GET", maps + "?watch=1&resourceVersion=x", "", ""}, {"GET", maps + "?resourceVersion=-1", "", ""}, {"PUT", maps + "/kept?dryRun=All", "application/json", `{"metadata":{"name":"kept","resourceVersion":"x"}}`}, {"PUT", maps + "/kept?dryRun=All", "application/json", `{"metadata":{"name":"kept","uid":"v"}}`},
		{"PATCH", maps + "/kept?dryRun=All", "application/strategic-merge-patch+json", `{"metadata":{"finalizers":{"$patch":"x"}}}`}, {"PATCH", maps + "/kept?dryRun=All", "application/strategic-merge-patch+json", `[]`}, {"PATCH", maps + "/kept?dryRun=All", "application/merge-patch+json", `1`}, {"PATCH", maps + "/kept?dryRun=All", "application/apply-patch+yaml", `a: [`},
		{"PATCH", maps + "/kept?dryRun=All&fieldManager=m", "application/apply-patch+yaml", `{"apiVersion":"v1","kind":"ConfigMap","data":1}`}, {"PATCH", maps + "/kept?dryRun=All&fieldManager=m", "application/apply-patch+yaml", `{"apiVersion":"v2","kind":"ConfigMap"}`}, {"PATCH", maps + "/kept?dryRun=All&fieldManager=m&force=x", "application/apply-patch+cbor", "\xa0"},
		{"DELETE", maps + "?dryRun=All&labelSelector=((", "application/json", `{}`}, {"DELETE", maps + "?dryRun=All&limit=1", "application/json", `{"orphanDependents":true,"propagationPolicy":"x"}`}, {"HEAD", maps + "/kept", "", ""}, {"GET", "/api/v1/watch/namespaces/default/configmaps/kept?timeoutSeconds=x", "", ""}, {"GET", "/api/v1/componentstatuses", "", ""},
		{"PUT", "/api/v1/namespaces/default/finalize?dryRun=All", "application/json", `{"metadata":{"name":"default"}}`}, {"POST", "/api/v1/namespaces/default/pods/a/eviction?dryRun=All", "application/json", `{}`}, {"POST", "/api/v1/namespaces/default/pods/a/binding?dryRun=All", "application/json", `{"target":{"name":""}}`}, {"POST", "/api/v1/namespaces/default/bindings?dryRun=All", "application/json", `{}`},
		{"POST", "/api/v1/namespaces/default/services?dryRun=All", "application/json", `{"metadata":{"name":"s"},"spec":{"ports":[{"port":1}]}}`}, {"PATCH", "/api/v1/namespaces/default/pods/a/resize?dryRun=All", "application/merge-patch+json", `{}`}, {"POST", "/apis/batch/v1/namespaces/default/cronjobs?dryRun=All", "application/json", `{"metadata":{"name":"c"},"spec":{"schedule":"TZ=x * *"}}`},
		{"POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests?dryRun=All", "application/json", `{"metadata":{"name":"c"},"spec":{"request":"LS0tLS1CRUdJTg==","signerName":"a/b","usages":["x"]}}`}, {"POST", "/apis/networking.k8s.io/v1/servicecidrs?dryRun=All", "application/json", `{"metadata":{"name":"c"},"spec":{"cidrs":["x","::/0"]}}`},
		{"GET", maps + "?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MjAwMCwic3RhcnQiOiJhXHUwMDAwIn0", "", ""}, {"GET", maps + "?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NTAwLCJzdGFydCI6Ii4uL2hpZGRlbi9hXHUwMDAwIn0", "", ""}, {"GET", "/api/v1/configmaps?limit=2", "", ""},
		{"GET", maps + "?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0", "", ""}, {"GET", maps + "?labelSelector=a+in+(b,c),!d&fieldSelector=metadata.name!%3Dx", "", ""},
		{"GET", maps + "?resourceVersion=1&resourceVersionMatch=Exact", "", ""}, {"GET", maps + "?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1", "", ""},
		{"POST", maps + "?dryRun=All&fieldValidation=Strict", "application/json", `{"metadata":{"name":"a"},"data":{"a":"b"}}`}, {"POST", maps + "?dryRun=All", "application/yaml", "metadata: {name: a}\n"},
		{"POST", maps + "?dryRun=All", "application/cbor", "\xd9\xd9\xf7\xa1HmetadataˠDname"}, {"POST", maps + "?dryRun=All", "application/vnd.kubernetes.protobuf", "k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap"},
		{"PATCH", maps + "/a?fieldManager=m&dryRun=All", "application/apply-patch+yaml", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"a":"b"}}`},
		{"PATCH", maps + "/kept?dryRun=All", "application/json-patch+json", `[{"op":"copy","from":"/data","path":"/metadata/annotations"}]`}, {"PATCH", maps + "/kept?dryRun=All", "application/strategic-merge-patch+json", `{"data":{"$patch":"replace"}}`},
		{"PATCH", maps + "/kept?dryRun=All", "application/merge-patch+json", `{"metadata":{"managedFields":[{}],"finalizers":["x"]}}`}, {"DELETE", maps + "/kept?dryRun=All", "application/json", `{"propagationPolicy":"Orphan","preconditions":{"uid":""}}`},
		{"POST", crds, "application/json", `{"metadata":{"name":"as.x.io"},"spec":{"group":"x.io","scope":"Namespaced","names":{"plural":"as","kind":"A"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{
			"spec":{"type":"object","x-kubernetes-validations":[{"rule":"self.n > oldSelf.n && self.l.all(x, x.startsWith('a'))","messageExpression":"'n is ' + string(self.n)"}],"properties":{"n":{"type":"integer","default":1,"maximum":9},
			"l":{"type":"array","maxItems":5,"items":{"type":"string","pattern":"^a"},"x-kubernetes-list-type":"set"},"m":{"type":"object","additionalProperties":{"x-kubernetes-int-or-string":true}}}}}}},"additionalPrinterColumns":[{"name":"N","type":"string","jsonPath":".spec.l[?(@.a>1)]"}]}]}}`},
		{"POST", policies, "application/json", `{"metadata":{"name":"p"},"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":["*"],"apiVersions":["*"],"operations":["*"],"resources":["*"]}]},"variables":[{"name":"v","expression":"object.metadata.name"}],
			"validations":[{"expression":"variables.v.size() < 9 || authorizer.group('').resource('pods').check('get').allowed()"}],"matchConditions":[{"name":"c","expression":"request.userInfo.groups.exists(g, g == 'a')"}]}}`},
		{"POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "application/json", `{"spec":{"user":"a","resourceAttributes":{"labelSelector":{"rawSelector":"a in (b)"},"fieldSelector":{"requirements":[{"key":"a","operator":"In","values":["b"]}]}}}}`},
		{"POST", "/apis/resource.k8s.io/v1/deviceclasses?dryRun=All", "application/json", `{"metadata":{"name":"d"},"spec":{"selectors":[{"cel":{"expression":"device.attributes['x'].y.matches('a*')"}}]}}`},
		{"PUT", "/apis/apps/v1/namespaces/default/deployments/x/scale", "application/json", `{"spec":{"replicas":1}}`}, {"GET", "/openapi/v3/apis/apps/v1?hash=x", "", ""}, {"GET", "//apis/%2e%2e/v1", "", ""},
	} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	rows := kinds.All(kinds.Deps{Health: []func(*kind.Op) error{func(*kind.Op) error { return nil }}, Ranges: core.Ranges{ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, NodePorts: core.PortRange{Low: 30000, High: 32767}}})
	keys := map[string][]byte{}
	for _, d := range rows {
		if d.Kind != "ConfigMap" {
			continue
		}
		for _, at := range [][2]string{{"default", "kept"}, {"default", "more"}, {"hidden", "kept"}} {
			o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: at[0], Name: at[1], UID: "u", Labels: map[string]string{"a": "b"}}, Data: map[string]string{"a": "b"}}
			value, err := codec.StoredValue(d, kind.Object(o))
			if err != nil {
				f.Fatal(err)
			}
			keys["/registry/"+d.KeyPrefix()+at[0]+"/"+at[1]] = value
		}
	}
	c := over(f, rows, &quiet{keys: keys})
	// Some refusals are a 500 as upstream has them; those that are the server's own are told of in the log.
	complaints := &ears{}
	before := slog.Default()
	slog.SetDefault(slog.New(complaints))
	f.Cleanup(func() { slog.SetDefault(before) })
	e := engine.New(engine.Config{Cache: c, Defs: rows})
	f.Fuzz(func(t *testing.T, method, target, media, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return
		}
		r := &http.Request{Method: method, URL: u, Header: http.Header{"Content-Type": {media}, "Accept": {"application/json"}}, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)), ProtoMajor: 2}
		info := request.Parse(r)
		if !info.IsResource || !validMethod(method) || info.LongRunning() && info.Verb != "watch" || info.Sub == "token" || strings.Contains(info.GVR.Resource, "reviews") {
			return // it is another's to answer
		}
		if info.Mutating() && !slices.Equal(u.Query()["dryRun"], []string{"All"}) {
			return // this etcd takes no writes
		}
		patience := 20 * time.Second
		waits := info.Verb == "watch" || strings.Contains(u.RawQuery, "continue") || strings.Contains(u.RawQuery, "resourceVersion")
		if waits {
			patience = 50 * time.Millisecond // for changes that do not come
		}
		ctx, cancel := context.WithTimeout(request.WithInfo(t.Context(), info), patience)
		defer cancel()
		request.SetUser(ctx, &user.DefaultInfo{Name: "u", Groups: []string{user.SystemPrivilegedGroup}})
		w, begun := httptest.NewRecorder(), time.Now()
		e.ServeHTTP(w, r.WithContext(ctx))
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s %s took %v", method, target, took)
		}
		b := w.Body.Bytes()
		if method == http.MethodDelete && body != "" && strings.Contains(string(b), status.Convert(errQuiet).Message()) {
			complaints.heard() // the options of a body count in place of those in the path: it was to be done, and this etcd cannot
			return
		}
		if w.Code >= 400 && strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
			var st metav1.Status
			if json.Unmarshal(b, &st) != nil || int(st.Code) != w.Code || st.Status != metav1.StatusFailure {
				t.Errorf("%s %s: %d %s", method, target, w.Code, b)
			}
		}
		if s := complaints.heard(); s != "" || w.Code > 500 && !(waits && w.Code == http.StatusGatewayTimeout) {
			t.Errorf("%s %s %q %q is told to be the server's fault: %d %s %s", method, target, media, body, w.Code, b, s)
		}
		if w.Code == http.StatusOK && info.Verb == "list" && method == http.MethodGet {
			var l metav1.PartialObjectMetadataList
			if err := json.Unmarshal(b, &l); err != nil {
				t.Fatalf("%s %s: %v in %s", method, target, err, b)
			}
			rev, err := strconv.ParseInt(l.ResourceVersion, 10, 64)
			if l.ResourceVersion != "" && (err != nil || rev > quietRevision) { // what is not stored has none
				t.Errorf("%s %s is of revision %q, which is not yet", method, target, l.ResourceVersion)
			}
			if info.Namespace == "default" && strings.Contains(string(b), `"namespace":"hidden"`) {
				t.Errorf("%s %s shows another namespace: %s", method, target, b)
			}
		}
	})
}

// ears hear what is logged as an error.
type ears struct{ last atomic.Pointer[string] }

func (e *ears) heard() string {
	if s := e.last.Swap(nil); s != nil {
		return *s
	}
	return ""
}

func (e *ears) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }

func (e *ears) Handle(_ context.Context, r slog.Record) error {
	s := r.Message
	r.Attrs(func(a slog.Attr) bool { s += " " + a.String(); return true })
	e.last.Store(&s)
	return nil
}

func (e *ears) WithAttrs([]slog.Attr) slog.Handler { return e }

func (e *ears) WithGroup(string) slog.Handler { return e }

func validMethod(m string) bool {
	switch m {
	case "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD":
		return true
	}
	return false
}
