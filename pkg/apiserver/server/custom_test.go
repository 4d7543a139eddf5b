package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

var definitionsGVR = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

func (s *testServer) config() *rest.Config {
	return &rest.Config{Host: s.URL, BearerToken: rig.AdminToken, QPS: -1, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func (s *testServer) dynamic(t *testing.T) dynamic.Interface {
	t.Helper()
	c, err := dynamic.NewForConfig(s.config())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(text), u); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return u
}

// define creates a definition of the kind Cron in group, cluster wide, and waits until it is established. versions is JSON.
func define(t *testing.T, c dynamic.Interface, group, more, versions string) {
	t.Helper()
	_, err := c.Resource(definitionsGVR).Create(t.Context(), object(t, fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
		"metadata":{"name":"crons.%[1]s"},"spec":{"group":%[1]q,"scope":"Cluster","names":{"plural":"crons","singular":"cron","kind":"Cron","shortNames":["cr"],"categories":["all"]},%[2]s"versions":%[3]s}}`,
		group, more, versions)), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the definition is established", func() bool { return condition(t, c, "crons."+group, "Established") == "True" })
}

func condition(t *testing.T, c dynamic.Interface, name, typ string) string {
	t.Helper()
	u, err := c.Resource(definitionsGVR).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	list, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, e := range list {
		if m := e.(map[string]any); m["type"] == typ {
			return m["status"].(string)
		}
	}
	return ""
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}

const looseVersion = `[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{
	"a":{"type":"string"%s},"b":{"type":"string"%s},"n":{"type":"integer"}}}}}}}]`

func spec(u *unstructured.Unstructured, field string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", field)
	return v
}

// TestCustomResource takes a definition from its creation to its end, as clients see it.
func TestCustomResource(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.dynamic(t)
	crons := schema.GroupVersionResource{Group: "one.example.com", Version: "v1", Resource: "crons"}

	begun := time.Now()
	define(t, c, "one.example.com", "", fmt.Sprintf(looseVersion, "", ""))
	first, err := c.Resource(crons).Create(t.Context(), object(t, `{"apiVersion":"one.example.com/v1","kind":"Cron","metadata":{"name":"first","labels":{"x":"y"}},"spec":{"n":1,"gone":2}}`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("a new definition was served after %v", took)
	}
	if spec(first, "gone") != nil || first.GetGeneration() != 1 {
		t.Errorf("unknown fields stay, or the generation is not 1: %v", first.Object)
	}

	t.Run("watch", func(t *testing.T) {
		w, err := c.Resource(crons).Watch(t.Context(), metav1.ListOptions{ResourceVersion: first.GetResourceVersion(), LabelSelector: "x=y"})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		if _, err := c.Resource(crons).Patch(t.Context(), "first", types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/n","value":7}]`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if e := <-w.ResultChan(); e.Type != watch.Modified || spec(e.Object.(*unstructured.Unstructured), "n") != int64(7) {
			t.Errorf("the change was told as %v", e)
		}
		if _, err := c.Resource(crons).Patch(t.Context(), "first", types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"z"}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if e := <-w.ResultChan(); e.Type != watch.Deleted {
			t.Errorf("leaving the selection was told as %v", e.Type)
		}
	})

	t.Run("defaults of what is stored", func(t *testing.T) {
		change := func(a, b string) {
			u, err := c.Resource(definitionsGVR).Get(t.Context(), "crons.one.example.com", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var versions []any
			if err := json.Unmarshal(fmt.Appendf(nil, looseVersion, a, b), &versions); err != nil {
				t.Fatal(err)
			}
			_ = unstructured.SetNestedSlice(u.Object, versions, "spec", "versions")
			if _, err := c.Resource(definitionsGVR).Update(t.Context(), u, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		has := func(name, field string, want any) func() bool {
			return func() bool {
				u, err := c.Resource(crons).Get(t.Context(), name, metav1.GetOptions{})
				return err == nil && spec(u, field) == want
			}
		}
		change(`,"default":"A"`, "")
		within(t, 5*time.Second, "first has a default", has("first", "a", "A"))
		if _, err := c.Resource(crons).Create(t.Context(), object(t, `{"apiVersion":"one.example.com/v1","kind":"Cron","metadata":{"name":"second"},"spec":{}}`), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		change("", `,"default":"B"`)
		within(t, 5*time.Second, "first has the other default", has("first", "b", "B"))
		if !has("first", "a", nil)() || !has("second", "a", "A")() || !has("second", "b", "B")() {
			t.Error("a default that was stored went, or one that was not stayed")
		}
	})

	t.Run("discovery", func(t *testing.T) {
		d := discovery.NewDiscoveryClientForConfigOrDie(s.config())
		for name, get := range map[string]func() ([]*metav1.APIGroup, []*metav1.APIResourceList, error){"aggregated": d.ServerGroupsAndResources, "plain": d.WithLegacy().(*discovery.DiscoveryClient).ServerGroupsAndResources} {
			_, lists, err := get()
			if err != nil {
				t.Fatal(err)
			}
			found := slices.ContainsFunc(lists, func(l *metav1.APIResourceList) bool {
				return l.GroupVersion == "one.example.com/v1" && len(l.APIResources) == 1 && l.APIResources[0].ShortNames[0] == "cr"
			})
			if !found {
				t.Errorf("%s discovery does not tell of crons", name)
			}
		}
		text := string(s.Must(t, "GET", "/openapi/v3/apis/one.example.com/v1", ""))
		if !strings.Contains(text, `"com.example.one.v1.Cron":{`) || !strings.Contains(text, `"/apis/one.example.com/v1/crons/{name}"`) {
			t.Error("OpenAPI v3 does not describe crons")
		}
		if text := string(s.Must(t, "GET", "/openapi/v2", "")); !strings.Contains(text, `"com.example.one.v1.CronList":{`) {
			t.Error("OpenAPI v2 does not describe crons")
		}
	})

	t.Run("metadata in protobuf", func(t *testing.T) {
		l, err := metadata.NewForConfigOrDie(s.config()).Resource(crons).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(l.Items) != 2 || l.Items[0].Name != "first" {
			t.Errorf("%v %v", l, err)
		}
	})

	t.Run("pages", func(t *testing.T) {
		l, err := c.Resource(crons).List(t.Context(), metav1.ListOptions{Limit: 1})
		if err != nil || len(l.Items) != 1 || l.GetContinue() == "" {
			t.Fatalf("%v %v", l, err)
		}
		l, err = c.Resource(crons).List(t.Context(), metav1.ListOptions{Limit: 1, Continue: l.GetContinue()})
		if err != nil || len(l.Items) != 1 || l.Items[0].GetName() != "second" || l.GetContinue() != "" {
			t.Errorf("%v %v", l, err)
		}
	})

	t.Run("end", func(t *testing.T) {
		if _, err := c.Resource(crons).Patch(t.Context(), "first", types.MergePatchType, []byte(`{"metadata":{"finalizers":["example.com/hold"]}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := c.Resource(definitionsGVR).Delete(t.Context(), "crons.one.example.com", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "second is gone", func() bool {
			_, err := c.Resource(crons).Get(t.Context(), "second", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
		_, err := c.Resource(crons).Create(t.Context(), object(t, `{"apiVersion":"one.example.com/v1","kind":"Cron","metadata":{"name":"late"}}`), metav1.CreateOptions{})
		if !apierrors.IsMethodNotSupported(err) {
			t.Errorf("an object may be made while its definition ends: %v", err)
		}
		within(t, 5*time.Second, "discovery shows what is left to do", func() bool {
			_, _, b := s.Try(t, "GET", "/apis/one.example.com/v1", "", nil)
			return strings.Contains(string(b), `"verbs":["delete","deletecollection","get","list","watch"]`) && !strings.Contains(string(b), `"create"`)
		})
		if _, err := c.Resource(crons).Patch(t.Context(), "first", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		within(t, 10*time.Second, "the definition is gone", func() bool {
			_, err := c.Resource(definitionsGVR).Get(t.Context(), "crons.one.example.com", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
		within(t, 5*time.Second, "crons are served no more", func() bool {
			code, _, _ := s.Try(t, "GET", "/apis/one.example.com/v1/crons", "", nil)
			found, _, _ := s.Try(t, "GET", "/apis/one.example.com/v1", "", nil)
			return code == http.StatusNotFound && found == http.StatusNotFound
		})
		// The same definition again finds nothing of the old one.
		define(t, c, "one.example.com", "", fmt.Sprintf(looseVersion, "", ""))
		if l, err := c.Resource(crons).List(t.Context(), metav1.ListOptions{}); err != nil || len(l.Items) != 0 {
			t.Errorf("%v %v", l, err)
		}
	})
}

// TestCustomResourceVersions serves objects in a version they were not stored in: by a change of name, and by a webhook.
func TestCustomResourceVersions(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.dynamic(t)
	const two = `[{"name":"v1","served":true,"storage":%[1]t,"schema":{"openAPIV3Schema":{"type":"object","properties":{"hostPort":{"type":"string"}}}}},
		{"name":"v2","served":true,"storage":%[2]t,"schema":{"openAPIV3Schema":{"type":"object","properties":{"host":{"type":"string"},"port":{"type":"string"},"hostPort":{"type":"string"}}}}}]`
	hook := converter(t)
	asked := fmt.Sprintf(`"conversion":{"strategy":"Webhook","webhook":{"conversionReviewVersions":["v1"],"clientConfig":{"url":%q,"caBundle":%q}}},`, hook.URL, caOf(hook))
	define(t, c, "none.example.com", "", fmt.Sprintf(two, true, false))
	define(t, c, "hook.example.com", asked, fmt.Sprintf(two, true, false))

	v := func(group, version string) dynamic.ResourceInterface {
		return c.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: "crons"})
	}
	for _, g := range []string{"none.example.com", "hook.example.com"} {
		if _, err := v(g, "v1").Create(t.Context(), object(t, fmt.Sprintf(`{"apiVersion":"%s/v1","kind":"Cron","metadata":{"name":"a"},"hostPort":"h:1"}`, g)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	u, err := v("none.example.com", "v2").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || u.GetAPIVersion() != "none.example.com/v2" || u.Object["hostPort"] != "h:1" {
		t.Errorf("%v %v", u, err)
	}
	check := func() {
		t.Helper()
		u, err := v("hook.example.com", "v2").Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil || u.Object["host"] != "h" || u.Object["port"] != "1" {
			t.Errorf("v2: %v %v", u, err)
		}
		l, err := v("hook.example.com", "v2").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(l.Items) != 1 || l.Items[0].Object["host"] != "h" {
			t.Errorf("v2 list: %v %v", l, err)
		}
		u, err = v("hook.example.com", "v1").Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil || u.Object["hostPort"] != "h:1" {
			t.Errorf("v1: %v %v", u, err)
		}
	}
	check()
	// Now v2 is stored, and what was stored before is still v1.
	def, err := c.Resource(definitionsGVR).Get(t.Context(), "crons.hook.example.com", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var versions []any
	if err := json.Unmarshal(fmt.Appendf(nil, two, false, true), &versions); err != nil {
		t.Fatal(err)
	}
	_ = unstructured.SetNestedSlice(def.Object, versions, "spec", "versions")
	if def, err = c.Resource(definitionsGVR).Update(t.Context(), def, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if stored, _, _ := unstructured.NestedStringSlice(def.Object, "status", "storedVersions"); !slices.Equal(stored, []string{"v1", "v2"}) {
		t.Errorf("stored versions are %v", stored)
	}
	check()
	if _, err := v("hook.example.com", "v1").Patch(t.Context(), "a", types.MergePatchType, []byte(`{"metadata":{"labels":{"k":"v"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	check()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	w, err := v("hook.example.com", "v1").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Added || e.Object.(*unstructured.Unstructured).Object["hostPort"] != "h:1" {
		t.Errorf("watching v1: %v", e)
	}
	hook.Close()
	if _, err := v("hook.example.com", "v1").Get(t.Context(), "a", metav1.GetOptions{}); err == nil || !strings.Contains(err.Error(), "conversion webhook for hook.example.com/v") {
		t.Errorf("without its webhook: %v", err)
	}
}

// converter is a webhook that splits hostPort of v1 into host and port of v2 and joins them again.
func converter(t *testing.T) *httptest.Server {
	h := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var review struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Request    struct {
				UID     string           `json:"uid"`
				Desired string           `json:"desiredAPIVersion"`
				Objects []map[string]any `json:"objects"`
			} `json:"request"`
		}
		if err := json.Unmarshal(b, &review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, o := range review.Request.Objects {
			o["apiVersion"] = review.Request.Desired
			if hp, ok := o["hostPort"].(string); ok && strings.HasSuffix(review.Request.Desired, "/v2") {
				o["host"], o["port"], _ = strings.Cut(hp, ":")
				delete(o, "hostPort")
			} else if strings.HasSuffix(review.Request.Desired, "/v1") {
				o["hostPort"] = fmt.Sprint(o["host"], ":", o["port"])
				delete(o, "host")
				delete(o, "port")
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": review.APIVersion, "kind": review.Kind, "response": map[string]any{
			"uid": review.Request.UID, "convertedObjects": review.Request.Objects, "result": map[string]any{"status": "Success"},
		}})
	}))
	t.Cleanup(h.Close)
	return h
}

// caOf is a test server's certificate as a CA bundle in JSON.
func caOf(h *httptest.Server) string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}))
}

// TestCustomResourcesOfTwoServers defines on one server and uses on another at once; a third, started later, knows all of it.
// What lies in etcd is as upstream writes it.
func TestCustomResourcesOfTwoServers(t *testing.T) {
	t.Parallel()
	_, at := rig.NewEtcd(t)
	on := func(c *Config) { c.EtcdServers = []string{at} }
	a, b := start(t, on), start(t, on)
	for n := range 5 {
		group := fmt.Sprintf("g%d.example.com", n)
		define(t, a.dynamic(t), group, "", `[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"n":{"type":"integer"}}}}}]`)
		b.Must(t, "POST", "/apis/"+group+"/v1/crons", fmt.Sprintf(`{"apiVersion":"%s/v1","kind":"Cron","metadata":{"name":"x"},"n":1}`, group))
		if got := string(a.Must(t, "GET", "/apis/"+group+"/v1/crons/x", "")); !strings.Contains(got, `"n":1`) {
			t.Errorf("the other server shows %s", got)
		}
	}
	c := start(t, on)
	gvr := schema.GroupVersionResource{Group: "g3.example.com", Version: "v1", Resource: "crons"}
	informers := dynamicinformer.NewDynamicSharedInformerFactory(c.dynamic(t), 0)
	informer := informers.ForResource(gvr).Informer()
	informers.Start(t.Context().Done())
	informers.WaitForCacheSync(t.Context().Done())
	if n := len(informer.GetStore().List()); n != 1 {
		t.Errorf("an informer knows %d objects", n)
	}
	a.Must(t, "DELETE", "/apis/g3.example.com/v1/crons/x", "")
	within(t, 5*time.Second, "the informer knows of the deletion", func() bool { return len(informer.GetStore().List()) == 0 })

	client, err := clientv3.New(clientv3.Config{Endpoints: []string{at}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // only read
	for key, want := range map[string]string{
		"/registry/apiextensions.k8s.io/customresourcedefinitions/crons.g1.example.com": "k8s\x00",
		"/registry/g1.example.com/crons/x":                                              `{"apiVersion":"g1.example.com/v1","kind":"Cron","metadata":{`,
	} {
		r, err := client.Get(t.Context(), key)
		if err != nil || len(r.Kvs) != 1 || !strings.HasPrefix(string(r.Kvs[0].Value), want) {
			t.Errorf("%s is %v, %v", key, r, err)
		}
	}
}

// TestDefinitionsOfUpstream serves what upstream left in etcd: definitions and APIServices as JSON, some in the version that
// the API began with, and their objects.
func TestDefinitionsOfUpstream(t *testing.T) {
	t.Parallel()
	_, at := rig.NewEtcd(t)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{at}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // nothing is pending
	for key, value := range map[string]string{
		"apiextensions.k8s.io/customresourcedefinitions/crons.up.example.com": `{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1","metadata":{"name":"crons.up.example.com","uid":"1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed","generation":1,"creationTimestamp":"2026-01-01T00:00:00Z"},
			"spec":{"group":"up.example.com","version":"v1","names":{"plural":"crons","singular":"cron","kind":"Cron","listKind":"CronList"},"scope":"Cluster","validation":{"openAPIV3Schema":{"type":"object","properties":{"n":{"type":"integer","default":4}}}},"subresources":{"status":{}},
			"versions":[{"name":"v1","served":true,"storage":true}],"conversion":{"strategy":"None"},"preserveUnknownFields":false},
			"status":{"conditions":[{"type":"NamesAccepted","status":"True"},{"type":"Established","status":"True"}],"acceptedNames":{"plural":"crons","singular":"cron","kind":"Cron","listKind":"CronList"},"storedVersions":["v1"]}}`,
		"up.example.com/crons/a": `{"apiVersion":"up.example.com/v1","kind":"Cron","metadata":{"name":"a","uid":"1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4be0","generation":1,"creationTimestamp":"2026-01-01T00:00:00Z"},"x":1}`,
		"apiregistration.k8s.io/apiservices/v1.up2.example.com": `{"kind":"APIService","apiVersion":"apiregistration.k8s.io/v1","metadata":{"name":"v1.up2.example.com","uid":"1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4be1","creationTimestamp":"2026-01-01T00:00:00Z"},
			"spec":{"service":{"namespace":"a","name":"b"},"group":"up2.example.com","version":"v1","groupPriorityMinimum":100,"versionPriority":100},"status":{}}`,
	} {
		if _, err := client.Put(t.Context(), "/registry/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, func(c *Config) { c.EtcdServers = []string{at} })
	if got := string(s.Must(t, "GET", "/apis/up.example.com/v1/crons/a", "")); !strings.Contains(got, `"n":4`) || strings.Contains(got, `"x"`) {
		t.Errorf("the object is %s", got)
	}
	s.Must(t, "POST", "/apis/up.example.com/v1/crons", `{"apiVersion":"up.example.com/v1","kind":"Cron","metadata":{"name":"b"},"n":5}`)
	if got := string(s.Must(t, "GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crons.up.example.com", "")); !strings.Contains(got, `"schema":{"openAPIV3Schema":{"type":"object"`) {
		t.Errorf("the definition is %s", got)
	}
	within(t, 5*time.Second, "the server behind is missed", func() bool {
		return strings.Contains(string(s.Must(t, "GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.up2.example.com", "")), "ServiceNotFound")
	})
}
