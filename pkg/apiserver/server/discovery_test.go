package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// served is a resource as upstream's discovery was recorded.
type served struct {
	GroupVersion string   `json:"groupVersion"`
	Resource     string   `json:"resource"`
	Kind         string   `json:"kind"`
	Scope        string   `json:"scope"`
	Singular     string   `json:"singular"`
	ShortNames   []string `json:"shortNames"`
	Categories   []string `json:"categories"`
	Verbs        []string `json:"verbs"`
	Subresources []struct {
		Name, Kind, Group, Version string
		Verbs                      []string
	} `json:"subresources"`
}

// TestDiscovery compares every served resource with the recorded ones, through both forms of discovery.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	s := start(t)
	var want []served
	if err := json.Unmarshal(rig.Recorded(t, "discovery.json.gz"), &want); err != nil {
		t.Fatal(err)
	}
	lists := map[string]*metav1.APIResourceList{}
	for _, w := range want {
		list := lists[w.GroupVersion]
		if list == nil {
			path := "/apis/" + w.GroupVersion
			if w.GroupVersion == "v1" {
				path = "/api/v1"
			}
			list = &metav1.APIResourceList{}
			if err := json.Unmarshal(s.Must(t, "GET", path, ""), list); err != nil {
				t.Fatal(err)
			}
			lists[w.GroupVersion] = list
		}
		got := find(list, w.Resource)
		if got == nil {
			t.Errorf("%s %s is not served", w.GroupVersion, w.Resource)
			continue
		}
		plain := served{
			GroupVersion: w.GroupVersion, Resource: got.Name, Kind: got.Kind, Scope: "Cluster", Singular: got.SingularName,
			ShortNames: got.ShortNames, Categories: got.Categories, Verbs: got.Verbs, Subresources: w.Subresources,
		}
		if got.Namespaced {
			plain.Scope = "Namespaced"
		}
		// An absent list and an empty one are the same.
		if len(w.ShortNames) == 0 {
			w.ShortNames = plain.ShortNames
		}
		if len(w.Categories) == 0 {
			w.Categories = plain.Categories
		}
		if !reflect.DeepEqual(plain, w) {
			t.Errorf("%s %s is served as %+v, recorded was %+v", w.GroupVersion, w.Resource, plain, w)
		}
		for _, sub := range w.Subresources {
			g := find(list, w.Resource+"/"+sub.Name)
			if g == nil || g.Kind != sub.Kind || g.Group != sub.Group || g.Version != sub.Version || !slices.Equal(g.Verbs, sub.Verbs) {
				t.Errorf("%s %s/%s is served as %+v, recorded was %+v", w.GroupVersion, w.Resource, sub.Name, g, sub)
			}
		}
	}
	for _, path := range []string{"/api", "/apis"} {
		headers := map[string]string{"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
		code, h, b := s.Try(t, "GET", path, "", headers)
		if code != http.StatusOK || h.Get("ETag") == "" || !json.Valid(b) {
			t.Errorf("aggregated %s: %d, ETag %q", path, code, h.Get("ETag"))
		}
		headers["If-None-Match"] = h.Get("ETag")
		if code, _, _ := s.Try(t, "GET", path, "", headers); code != http.StatusNotModified {
			t.Errorf("aggregated %s with its own ETag answers %d", path, code)
		}
	}
}

func find(l *metav1.APIResourceList, name string) *metav1.APIResource {
	for i := range l.APIResources {
		if l.APIResources[i].Name == name {
			return &l.APIResources[i]
		}
	}
	return nil
}

// TestColumns compares the columns of every table with the recorded ones.
func TestColumns(t *testing.T) {
	t.Parallel()
	s := start(t)
	var want []struct {
		GroupVersion string
		Resource     string
		Columns      [][]any
	}
	if err := json.Unmarshal(rig.Recorded(t, "columns.json.gz"), &want); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		path := "/apis/" + w.GroupVersion
		if w.GroupVersion == "v1" {
			path = "/api/v1"
		}
		code, _, b := s.Try(t, "GET", path+"/"+w.Resource, "", map[string]string{"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
		var table metav1.Table
		if err := json.Unmarshal(b, &table); err != nil || code != http.StatusOK {
			t.Fatalf("%s: %d %v", w.Resource, code, err)
		}
		var got, exp []string
		for _, c := range table.ColumnDefinitions {
			got = append(got, fmt.Sprint(c.Name, " ", c.Type, " ", c.Format, " ", c.Priority))
		}
		for _, c := range w.Columns {
			exp = append(exp, fmt.Sprint(c[0], " ", c[1], " ", c[2], " ", c[3]))
		}
		if !slices.Equal(got, exp) {
			t.Errorf("%s has columns %q, recorded were %q", w.Resource, got, exp)
		}
	}
}
