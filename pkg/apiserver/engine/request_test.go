package engine_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/engine"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// FuzzRequest asks the engine, with all its rows over an etcd that does nothing, for anything: a path, a media type and a body,
// so every decoder, selector, continue token, definition, expression and URL that a client may send. The answer comes soon;
// one that is a refusal is a Status that says so, and a list is of the namespace that was asked for, and of no time to come.
func FuzzRequest(f *testing.F) {
	const maps, crds, policies = "/api/v1/namespaces/default/configmaps", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies?dryRun=All"
	for _, s := range [][4]string{
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
	rows := kinds.All(kinds.Deps{})
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
	s, c := over(f, rows, keys)
	e := engine.New(engine.Config{Store: s, Cache: c, Defs: rows})
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
		if w.Code >= 400 && strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
			var st metav1.Status
			if json.Unmarshal(b, &st) != nil || int(st.Code) != w.Code || st.Status != metav1.StatusFailure {
				t.Errorf("%s %s: %d %s", method, target, w.Code, b)
			}
		}
		if w.Code >= 500 && !(waits && w.Code == http.StatusGatewayTimeout) {
			t.Errorf("%s %s %q %q is told to be the server's fault: %d %s", method, target, media, body, w.Code, b)
		}
		if w.Code == http.StatusOK && info.Verb == "list" && method == http.MethodGet {
			var l metav1.PartialObjectMetadataList
			if err := json.Unmarshal(b, &l); err != nil {
				t.Fatalf("%s %s: %v in %s", method, target, err, b)
			}
			if rev, err := strconv.ParseInt(l.ResourceVersion, 10, 64); err != nil || rev > quietRevision {
				t.Errorf("%s %s is of revision %q, which is not yet", method, target, l.ResourceVersion)
			}
			if info.Namespace == "default" && strings.Contains(string(b), `"namespace":"hidden"`) {
				t.Errorf("%s %s shows another namespace: %s", method, target, b)
			}
		}
	})
}

func validMethod(m string) bool {
	switch m {
	case "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD":
		return true
	}
	return false
}
