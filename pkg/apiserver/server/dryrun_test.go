package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const podBody = `{"metadata":{"name":"%s","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}`

// space makes a namespace with the service account that pods need.
func (s *testServer) space(t *testing.T, name string) string {
	t.Helper()
	s.Must(t, "POST", "/api/v1/namespaces", fmt.Sprintf(`{"metadata":{"name":%q}}`, name))
	s.Must(t, "POST", "/api/v1/namespaces/"+name+"/serviceaccounts", `{"metadata":{"name":"default"}}`)
	return "/api/v1/namespaces/" + name
}

// stored is every key in etcd and its revision.
func (s *testServer) stored(t *testing.T) map[string]int64 {
	t.Helper()
	p, err := s.store.List(t.Context(), "", "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int64{}
	for _, kv := range p.KVs {
		if !strings.HasPrefix(kv.Key, "leases/") && !strings.HasPrefix(kv.Key, "masterleases/") {
			out[kv.Key] = kv.Rev
		}
	}
	return out
}

// TestDryRun sends every kind of write as a dry run: each is answered as if it were done, and etcd stays as it is.
func TestDryRun(t *testing.T) {
	t.Parallel()
	s := start(t)
	core := s.space(t, "dry")
	apps, policy := "/apis/apps/v1/namespaces/dry", "/apis/policy/v1/namespaces/dry"
	s.Must(t, "POST", core+"/pods", fmt.Sprintf(podBody, "p"))
	s.Must(t, "POST", core+"/pods", fmt.Sprintf(podBody, "q"))
	s.Must(t, "POST", core+"/pods/q/binding", `{"target":{"kind":"Node","name":"n"}}`)
	s.Must(t, "POST", core+"/configmaps", `{"metadata":{"name":"c","finalizers":["example.com/hold"]}}`)
	s.Must(t, "POST", core+"/services", `{"metadata":{"name":"s"},"spec":{"ports":[{"port":80}]}}`)
	s.Must(t, "POST", apps+"/deployments", `{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`)
	s.Must(t, "POST", policy+"/poddisruptionbudgets", `{"metadata":{"name":"b"},"spec":{"selector":{"matchLabels":{"a":"b"}},"maxUnavailable":1}}`)
	merge := map[string]string{"Content-Type": "application/merge-patch+json"}
	s.Try(t, "PATCH", core+"/pods/q/status", `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`, merge)
	s.Try(t, "PATCH", policy+"/poddisruptionbudgets/b/status", `{"status":{"observedGeneration":1,"disruptionsAllowed":1,"currentHealthy":2,"desiredHealthy":1,"expectedPods":2}}`, merge)
	s.await(t, "GET", "/readyz", "", 10*time.Second)
	before := s.stored(t)
	within(t, 30*time.Second, "the server has written what it writes by itself", func() bool {
		was := before
		time.Sleep(500 * time.Millisecond)
		before = s.stored(t)
		return maps.Equal(was, before)
	})
	for _, r := range []struct {
		method, path, body, as string
		code                   int
	}{
		{"POST", core + "/configmaps", `{"metadata":{"name":"new"}}`, "", 201},
		{"POST", core + "/configmaps", `{"metadata":{"generateName":"new-"}}`, "", 201},
		{"POST", core + "/configmaps", `{"metadata":{"name":"c"}}`, "", 409},
		{"POST", core + "/services", `{"metadata":{"name":"new"},"spec":{"type":"NodePort","ports":[{"port":80}]}}`, "", 201},
		{"PUT", core + "/services/s", `{"metadata":{"name":"s"},"spec":{"type":"NodePort","ports":[{"port":81}]}}`, "", 200},
		{"POST", core + "/pods", fmt.Sprintf(podBody, "new"), "", 201},
		{"PUT", core + "/configmaps/c", `{"metadata":{"name":"c"},"data":{"x":"y"}}`, "", 200},
		{"PATCH", core + "/configmaps/c", `{"data":{"x":"y"}}`, "application/merge-patch+json", 200},
		{"PATCH", core + "/configmaps/c", `[{"op":"add","path":"/data","value":{"x":"y"}}]`, "application/json-patch+json", 200},
		{"PATCH", core + "/pods/p", `{"metadata":{"labels":{"x":"y"}}}`, "application/strategic-merge-patch+json", 200},
		{"PATCH", core + "/configmaps/c?fieldManager=m", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"x":"y"}}`, "application/apply-patch+yaml", 200},
		{"PATCH", core + "/configmaps/new?fieldManager=m", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"new"}}`, "application/apply-patch+yaml", 201},
		{"PATCH", core + "/pods/q/status", `{"status":{"phase":"Failed"}}`, "application/merge-patch+json", 200},
		{"PATCH", apps + "/deployments/d/scale", `{"spec":{"replicas":7}}`, "application/merge-patch+json", 200},
		{"PUT", "/api/v1/namespaces/dry/finalize", `{"metadata":{"name":"dry"},"spec":{}}`, "", 200},
		{"POST", core + "/pods/p/binding", `{"target":{"kind":"Node","name":"n"}}`, "", 201},
		{"POST", core + "/serviceaccounts/default/token", `{"spec":{}}`, "", 201},
		{"POST", core + "/pods/q/eviction", `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"q"}}`, "", 201},
		{"DELETE", core + "/configmaps/c", "", "", 200},
		{"DELETE", core + "/pods/p", "", "", 200},
		{"DELETE", core + "/pods/q", "", "", 200},
		{"DELETE", core + "/services/s", "", "", 200},
		{"DELETE", core + "/configmaps", "", "", 200},
		{"DELETE", core + "/pods?labelSelector=a%3Db", "", "", 200},
		{"DELETE", "/api/v1/namespaces/dry", "", "", 200},
	} {
		headers := map[string]string{}
		if r.as != "" {
			headers["Content-Type"] = r.as
		}
		mark := "?"
		if strings.Contains(r.path, "?") {
			mark = "&"
		}
		if code, _, b := s.Try(t, r.method, r.path+mark+"dryRun=All", r.body, headers); code != r.code {
			t.Errorf("%s %s %s: %d %s", r.method, r.path, r.body, code, b)
		}
	}
	// The options of a body say the same.
	for path, r := range map[string][2]string{
		core + "/pods/q":          {"DELETE", `{"dryRun":["All"]}`},
		core + "/pods/q/eviction": {"POST", `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"q"},"deleteOptions":{"dryRun":["All"]}}`},
	} {
		if code, _, b := s.Try(t, r[0], path, r[1], nil); code >= 300 {
			t.Errorf("%s %s: %d %s", r[0], path, code, b)
		}
	}
	if after := s.stored(t); !maps.Equal(before, after) {
		for k, rev := range after {
			if before[k] != rev {
				t.Errorf("%s was written", k)
			}
		}
		for k := range before {
			if after[k] == 0 {
				t.Errorf("%s is gone", k)
			}
		}
	}
	if code, _, _ := s.Try(t, "POST", core+"/configmaps?dryRun=Some", `{"metadata":{"name":"x"}}`, nil); code != http.StatusUnprocessableEntity {
		t.Errorf("dryRun=Some is answered %d", code)
	}
}

// TestNames gives names to what comes without.
func TestNames(t *testing.T) {
	t.Parallel()
	s := start(t)
	core := s.space(t, "names")
	for path, body := range map[string]string{
		core + "/configmaps":  `{"metadata":{"generateName":"g-"}}`,
		core + "/secrets":     `{"metadata":{"generateName":"g-"}}`,
		core + "/services":    `{"metadata":{"generateName":"g-"},"spec":{"ports":[{"port":80}]}}`,
		core + "/pods":        `{"metadata":{"generateName":"g-"},"spec":{"containers":[{"name":"c","image":"i"}]}}`,
		core + "/events":      `{"metadata":{"generateName":"g-"},"involvedObject":{"namespace":"names"}}`,
		core + "/limitranges": `{"metadata":{"generateName":"g-"},"spec":{"limits":[]}}`,
		"/api/v1/namespaces":  `{"metadata":{"generateName":"g-"}}`,
		"/api/v1/nodes":       `{"metadata":{"generateName":"g-"}}`,
		"/apis/coordination.k8s.io/v1/namespaces/names/leases":      `{"metadata":{"generateName":"g-"}}`,
		"/apis/rbac.authorization.k8s.io/v1/clusterroles":           `{"metadata":{"generateName":"g-"}}`,
		"/apis/networking.k8s.io/v1/namespaces/names/ingresses":     `{"metadata":{"generateName":"g-"},"spec":{"defaultBackend":{"service":{"name":"s","port":{"number":80}}}}}`,
		"/apis/discovery.k8s.io/v1/namespaces/names/endpointslices": `{"metadata":{"generateName":"g-"},"addressType":"IPv4","endpoints":[]}`,
		"/apis/batch/v1/namespaces/names/jobs":                      `{"metadata":{"generateName":"g-"},"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}`,
		"/apis/storage.k8s.io/v1/storageclasses":                    `{"metadata":{"generateName":"g-"},"provisioner":"example.com/x"}`,
		"/apis/scheduling.k8s.io/v1/priorityclasses":                `{"metadata":{"generateName":"g-"},"value":1}`,
	} {
		var o metav1.PartialObjectMetadata
		if err := json.Unmarshal(s.Must(t, "POST", path, body), &o); err != nil || len(o.Name) != len("g-")+5 || o.GenerateName != "g-" {
			t.Errorf("%s: the name is %q, %v", path, o.Name, err)
			continue
		}
		s.Must(t, "GET", path+"/"+o.Name, "")
		if code, _, b := s.Try(t, "POST", path, strings.Replace(body, `{"generateName":"g-"}`, `{}`, 1), nil); code != http.StatusUnprocessableEntity && !strings.HasSuffix(path, "limitranges") {
			t.Errorf("%s without a name: %d %s", path, code, b)
		}
	}
	var l metav1.PartialObjectMetadata
	if err := json.Unmarshal(s.Must(t, "POST", core+"/limitranges", `{"spec":{"limits":[]}}`), &l); err != nil || len(l.Name) != 36 {
		t.Errorf("a nameless limit range is called %q, %v", l.Name, err)
	}
	s.Must(t, "GET", core+"/limitranges/"+l.Name, "")
}

// TestDeleteCollection deletes what is asked for and nothing else.
func TestDeleteCollection(t *testing.T) {
	t.Parallel()
	s := start(t)
	path := s.space(t, "many") + "/configmaps"
	left := func() int {
		var l metav1.PartialObjectMetadataList
		if err := json.Unmarshal(s.Must(t, "GET", path, ""), &l); err != nil {
			t.Fatal(err)
		}
		return len(l.Items)
	}
	for n := range 40 {
		s.Must(t, "POST", path, fmt.Sprintf(`{"metadata":{"name":"c-%02d","labels":{"part":"%d"}}}`, n, n%4))
	}
	s.Must(t, "DELETE", path+"?labelSelector=part%3D3", "")
	if n := left(); n != 30 {
		t.Errorf("30 should be left, %d are", n)
	}
	var page metav1.PartialObjectMetadataList
	if err := json.Unmarshal(s.Must(t, "DELETE", path+"?limit=7", ""), &page); err != nil || len(page.Items) != 7 || page.Continue == "" {
		t.Errorf("a page of 7 answers %d objects, continue %q, %v", len(page.Items), page.Continue, err)
	}
	if n := left(); n != 23 {
		t.Errorf("23 should be left, %d are", n)
	}
	s.Must(t, "DELETE", path+"?fieldSelector=metadata.name%3Dc-38", "")
	if n := left(); n != 22 {
		t.Errorf("22 should be left, %d are", n)
	}
	s.Must(t, "DELETE", path, "")
	if n := left(); n != 0 {
		t.Errorf("%d are left", n)
	}
}
