package suite

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// row is one resource in one served version, as discovery tells it, with an object to try it on.
type row struct {
	metav1.APIResource
	gv, at string // group and version; the collection's path in the row's own namespace
	ns     string
	subs   []metav1.APIResource
	sample
}

// sample is an object of a row. What was recorded of a kind is its sample; testdata/samples.json holds the others and those
// that would meddle with other rows.
type sample struct {
	// Before are objects that have to be there, by the path of their collection in the row's namespace.
	Before []struct {
		Path string
		Body json.RawMessage
	}
	Body json.RawMessage
}

// table reads every row from the server's own discovery.
func table(t *testing.T, s *client) []*row {
	t.Helper()
	samples := map[string]sample{}
	raw, err := os.ReadFile("testdata/samples.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &samples); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(rig.Recorded(t, "answers.jsonl.gz")))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		if a.Body == nil || a.Verb != http.MethodPost || a.Code != http.StatusCreated {
			continue
		}
		path, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(a.Path, "/apis/"), "/api/"), "?")
		key := strings.ReplaceAll(path, "namespaces/corpus/", "")
		if _, ok := samples[key]; !ok {
			samples[key] = sample{Body: a.Body}
		}
	}
	var groups metav1.APIGroupList
	decode(t, s.Must(t, "GET", "/apis", ""), &groups)
	roots := map[string]string{"v1": "/api/v1"}
	gvs := []string{"v1"}
	for _, g := range groups.Groups {
		for _, v := range g.Versions {
			roots[v.GroupVersion] = "/apis/" + v.GroupVersion
			gvs = append(gvs, v.GroupVersion)
		}
	}
	var rows []*row
	for _, gv := range gvs {
		var list metav1.APIResourceList
		decode(t, s.Must(t, "GET", roots[gv], ""), &list)
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") {
				continue
			}
			w := &row{APIResource: r, gv: gv, at: roots[gv] + "/" + r.Name, sample: samples[gv+"/"+r.Name]}
			w.ns = fmt.Sprintf("n%d-%s", len(rows), r.Name)
			if r.Namespaced {
				w.at = roots[gv] + "/namespaces/" + w.ns + "/" + r.Name
			}
			for _, sub := range list.APIResources {
				if strings.HasPrefix(sub.Name, r.Name+"/") {
					w.subs = append(w.subs, sub)
				}
			}
			rows = append(rows, w)
		}
	}
	return rows
}

// TestKinds takes every served resource, in every version, through all its verbs and forms. A new row of the table is tested
// as soon as discovery shows it; all it needs is a sample.
func TestKinds(t *testing.T) {
	t.Parallel()
	s := start(t)
	rows := table(t, s)
	if len(rows) < 68 {
		t.Errorf("only %d resources are served", len(rows))
	}
	for _, r := range rows {
		t.Run(r.gv+"/"+r.Name, func(t *testing.T) {
			t.Parallel()
			if r.Body == nil && slices.Contains(r.Verbs, "create") {
				t.Fatalf("there is no sample of %s: put one into testdata/samples.json under %q", r.Kind, r.gv+"/"+r.Name)
			}
			s.Must(t, "POST", "/api/v1/namespaces", fmt.Sprintf(`{"metadata":{"name":%q}}`, r.ns))
			s.Must(t, "POST", "/api/v1/namespaces/"+r.ns+"/serviceaccounts", `{"metadata":{"name":"default"}}`)
			r.Body = bytes.ReplaceAll(r.Body, []byte(`"NS"`), []byte(strconv.Quote(r.ns)))
			for _, b := range r.Before {
				s.Must(t, "POST", strings.ReplaceAll(b.Path, "NS", r.ns), string(b.Body))
			}
			switch {
			case slices.Contains(r.Verbs, "create") && slices.Contains(r.Verbs, "update"):
				(&trial{t: t, s: s, row: r}).run()
			case slices.Contains(r.Verbs, "create"):
				var is metav1.TypeMeta
				code, _, b := s.Try(t, "POST", r.at, string(r.Body), nil)
				if decode(t, b, &is); code != http.StatusCreated || is.Kind != r.Kind && is.Kind != "Status" {
					t.Errorf("%d %s", code, b)
				}
			default:
				s.Must(t, "GET", r.at, "")
			}
			s.refuse(t, r)
		})
	}
}

// refuse asks for what a row does not serve.
func (c *client) refuse(t *testing.T, r *row) {
	t.Helper()
	for verb, method := range map[string]string{"create": "POST", "deletecollection": "DELETE", "list": "GET"} {
		if slices.Contains(r.Verbs, verb) {
			continue
		}
		code, _, b := c.Try(t, method, r.at, "{}", nil)
		var st metav1.Status
		if decode(t, b, &st); code != http.StatusMethodNotAllowed || st.Reason != metav1.StatusReasonMethodNotAllowed {
			t.Errorf("%s is not served, but %s answered %d %s", verb, method, code, b)
		}
	}
	code, _, b := c.Try(t, "GET", r.at+"/x/no-such-part", "", nil)
	var st metav1.Status
	if decode(t, b, &st); code != http.StatusNotFound && code != http.StatusMethodNotAllowed || st.Status != metav1.StatusFailure {
		t.Errorf("a subresource that is not there: %d %s", code, b)
	}
}

func decode(t *testing.T, b []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%v in %.300s", err, b)
	}
}
