package suite

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FuzzRequest sends anything to a whole server: a path, a media type and a body, so every decoder, selector, continue token,
// definition, expression and URL that a client may send. The answer comes soon; one that is a refusal is a Status that says so.
func FuzzRequest(f *testing.F) {
	const maps, crds, policies = "/api/v1/namespaces/default/configmaps", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies?dryRun=All"
	for _, s := range [][4]string{
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
	s := start(f)
	if code, _, b, err := s.do(f.Context(), "POST", maps, `{"metadata":{"name":"kept"},"data":{"a":"b"}}`, nil); err != nil || code != http.StatusCreated {
		f.Fatalf("%d %s %v", code, b, err)
	}
	f.Fuzz(func(t *testing.T, method, target, media, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || strings.HasPrefix(u.Path, "/debug") || strings.Contains(target, "proxy") || strings.Contains(target, "\x7f") {
			return
		}
		if !strings.Contains(target, "dryRun=All") && method != "GET" && !strings.Contains(target, "reviews") {
			return // what is written once would be there for the next
		}
		if !validMethod(method) || strings.ContainsAny(media, "\r\n\x00") {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		begun := time.Now()
		code, h, b, err := s.do(ctx, method, u.RequestURI(), body, map[string]string{"Content-Type": media})
		if err != nil {
			if strings.Contains(err.Error(), "invalid") || strings.Contains(err.Error(), "malformed") {
				return // it was never sent
			}
			t.Fatalf("%s %s: %v after %v", method, target, err, time.Since(begun))
		}
		if took := time.Since(begun); took > 10*time.Second && !strings.Contains(target, "watch") {
			t.Errorf("%s %s took %v", method, target, took)
		}
		if strings.Contains(string(b), "caused apiserver to panic") {
			t.Errorf("%s %s %q %q: %s", method, target, media, body, b)
		}
		if code >= 400 && strings.HasPrefix(h.Get("Content-Type"), "application/json") && method != http.MethodHead {
			var st metav1.Status
			if json.Unmarshal(b, &st) != nil || int(st.Code) != code || st.Status != metav1.StatusFailure {
				t.Errorf("%s %s: %d %s", method, target, code, b)
			}
		}
	})
}

func validMethod(m string) bool {
	switch m {
	case "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS":
		return true
	}
	return false
}
