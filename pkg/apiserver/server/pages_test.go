package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPagesEnd reads the second page of a list again and again while etcd's history is compacted: that nothing changed in the
// list, and that somebody reads it, makes its version last no longer. The refusal says how to go on.
func TestPagesEnd(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.EtcdCompactionInterval = 500 * time.Millisecond })
	for i := range 3 {
		s.Must(t, "POST", "/api/v1/namespaces/default/podtemplates", fmt.Sprintf(`{"metadata":{"name":"t%d"},"template":{"spec":{"containers":[{"name":"c","image":"i"}]}}}`, i))
	}
	list := func(query string) (int, metav1.PartialObjectMetadataList, metav1.Status) {
		var l metav1.PartialObjectMetadataList
		var st metav1.Status
		code, _, b := s.Try(t, "GET", "/api/v1/namespaces/default/podtemplates?limit=1"+query, "", nil)
		if err := json.Unmarshal(b, &l); err != nil {
			t.Fatal(err)
		}
		if code != http.StatusOK {
			if err := json.Unmarshal(b, &st); err != nil {
				t.Fatal(err)
			}
		}
		return code, l, st
	}
	_, first, _ := list("")
	var refusal metav1.Status
	within(t, 20*time.Second, "the version is gone", func() bool {
		s.Must(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"generateName":"time-goes-on-"}}`)
		code, _, st := list("&continue=" + first.Continue)
		if code != http.StatusOK && code != http.StatusGone {
			t.Fatalf("answered %d %s", code, st.Message)
		}
		refusal = st
		return code == http.StatusGone
	})
	if refusal.Reason != metav1.StatusReasonExpired || refusal.Continue == "" {
		t.Fatalf("refused with %+v", refusal)
	}
	if code, next, st := list("&continue=" + refusal.Continue); code != http.StatusOK || len(next.Items) != 1 || next.Items[0].Name != "t1" {
		t.Fatalf("after the refusal: %d %+v %s", code, next, st.Message)
	}
	if code, _, st := list("&resourceVersionMatch=Exact&resourceVersion=" + first.ResourceVersion); code != http.StatusGone {
		t.Fatalf("the version itself is answered %d %s", code, st.Message)
	}
}
