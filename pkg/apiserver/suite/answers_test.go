package suite

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// leastAnswers is how many answers agree; it only ever rises. docs/api.md says why the others do not.
const leastAnswers = 5758

// answer is one recorded answer: to a body, or to the last one with one thing changed.
type answer struct {
	Base    int             `json:"base"`
	Path    string          `json:"path"`
	Body    json.RawMessage `json:"body"`
	Remove  *string         `json:"remove"`
	Replace *string         `json:"replace"`
	With    any             `json:"with"`
	Verb    string          `json:"verb"`
	Code    int             `json:"code"`
	Answer  json.RawMessage `json:"answer"`
}

// TestAnswers sends what was sent to upstream: objects of every kind whole, and with one thing gone or changed. An answer
// agrees if its code and reason do and, of errors, the fields and reasons of all causes, of successes every leaf.
func TestAnswers(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.Must(t, "POST", "/api/v1/namespaces", `{"metadata":{"name":"corpus"}}`)
	s.Must(t, "POST", "/api/v1/namespaces/corpus/serviceaccounts", `{"metadata":{"name":"default"}}`)
	var path, stored string
	bodies := map[int][]byte{}
	whole := map[string]string{} // the leaves of the base's answer
	asked, codes, agreed := 0, 0, 0
	worst := map[string]int{}
	lines := bufio.NewScanner(bytes.NewReader(rig.Recorded(t, "answers.jsonl.gz")))
	lines.Buffer(nil, 16<<20)
	base := 0
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		if a.Path != "" {
			if stored != "" {
				s.remove(t, stored)
				stored = ""
			}
			path, base = a.Path, a.Base
			if a.Body != nil {
				bodies[base] = a.Body
			}
			if a.Verb == http.MethodPut { // over the object as it is stored
				stored = path[:strings.Index(path, "?")]
				s.Must(t, "POST", stored[:strings.LastIndex(stored, "/")], string(bodies[base]))
			}
		}
		code, _, got := s.Try(t, a.Verb, path, string(a.changed(t, bodies[base])), nil)
		if a.Path != "" && stored != "" && code < 300 {
			// What controllers of the recorder's made of the stored object stands in its first answer.
			if s.follow(t, stored, got, a.Answer) {
				code, _, got = s.Try(t, a.Verb, path, string(bodies[base]), nil)
			}
		}
		asked++
		if code == a.Code {
			codes++
		}
		problem := a.differs(code, got, &whole)
		if problem == "" {
			agreed++
			continue
		}
		worst[a.Verb+" "+path]++
		if os.Getenv("SHOW") != "" {
			t.Logf("%s %s %s: %.1500s\n   recorded: %.1500s", a.Verb, path, a.what(), problem, a.Answer)
		}
	}
	t.Logf("%d answers: %d (%.2f %%) have the code, %d (%.2f %%) agree whole", asked, codes, percent(codes, asked), agreed, percent(agreed, asked))
	if asked < 5800 || agreed < leastAnswers {
		t.Errorf("%d of %d answers agree with what was recorded, %d did; SHOW=1 names the others: %v", agreed, asked, leastAnswers, worst)
	}
}

// follow gives a stored object the status that the recorder's controllers had given theirs, if it had one.
func (c *client) follow(t *testing.T, path string, got, recorded []byte) bool {
	t.Helper()
	var is, was map[string]any
	if json.Unmarshal(got, &is) != nil || json.Unmarshal(recorded, &was) != nil || was["status"] == nil || reflect.DeepEqual(is["status"], was["status"]) {
		return false
	}
	patch, err := json.Marshal(map[string]any{"status": was["status"]})
	patch = bytes.ReplaceAll(patch, []byte(`"TIME"`), []byte(`"2026-01-01T00:00:00Z"`))
	if err != nil {
		t.Fatal(err)
	}
	code, _, _ := c.Try(t, "PATCH", path+"/status", string(patch), map[string]string{"Content-Type": "application/merge-patch+json"})
	return code == http.StatusOK
}

func percent(part, of int) float64 { return 100 * float64(part) / float64(of) }

// remove deletes an object at once, whatever holds it.
func (c *client) remove(t *testing.T, path string) {
	t.Helper()
	c.Must(t, "DELETE", path+"?gracePeriodSeconds=0", "")
	if code, _, b := c.Try(t, "GET", path, "", nil); code != http.StatusNotFound {
		c.Try(t, "PATCH", path, `{"metadata":{"finalizers":null}}`, map[string]string{"Content-Type": "application/merge-patch+json"})
		if code, _, _ = c.Try(t, "GET", path, "", nil); code != http.StatusNotFound {
			t.Logf("%s is still there: %s", path, b)
		}
	}
}

func (a *answer) what() string {
	switch {
	case a.Remove != nil:
		return "without " + *a.Remove
	case a.Replace != nil:
		with, _ := json.Marshal(a.With)
		return fmt.Sprintf("with %s = %.60s", *a.Replace, with)
	}
	return "as it is"
}

// changed is the body with the answer's change.
func (a *answer) changed(t *testing.T, body []byte) []byte {
	if a.Remove == nil && a.Replace == nil {
		return body
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	pointer := a.Remove
	if pointer == nil {
		pointer = a.Replace
	}
	v = edit(v, strings.Split(strings.Trim(*pointer, "/"), "/"), a.With, a.Remove != nil)
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func edit(v any, at []string, with any, remove bool) any {
	key := strings.NewReplacer("~1", "/", "~0", "~").Replace(at[0])
	switch x := v.(type) {
	case map[string]any:
		switch {
		case len(at) > 1:
			x[key] = edit(x[key], at[1:], with, remove)
		case remove:
			delete(x, key)
		default:
			x[key] = with
		}
	case []any:
		n, _ := strconv.Atoi(key)
		switch {
		case len(at) > 1:
			x[n] = edit(x[n], at[1:], with, remove)
		case remove:
			return slices.Delete(x, n, n+1)
		default:
			x[n] = with
		}
	}
	return v
}

// differs tells how an answer is not the recorded one, "" if it is.
func (a *answer) differs(code int, got []byte, whole *map[string]string) string {
	if code != a.Code {
		return fmt.Sprintf("%d, want %d: %.300s", code, a.Code, got)
	}
	if code >= 300 {
		var want struct {
			Reason string
			Causes [][3]string
		}
		var is struct {
			Reason  string
			Details struct {
				Causes []struct{ Field, Reason string }
			}
		}
		_ = json.Unmarshal(a.Answer, &want)
		_ = json.Unmarshal(got, &is)
		w, g := []string{want.Reason}, []string{is.Reason}
		for _, c := range want.Causes {
			w = append(w, c[0]+" "+c[1])
		}
		for _, c := range is.Details.Causes {
			g = append(g, c.Field+" "+c.Reason)
		}
		slices.Sort(w)
		slices.Sort(g)
		if !slices.Equal(w, g) {
			return fmt.Sprintf("%q, want %q", g, w)
		}
		return ""
	}
	have := map[string]string{}
	leaves(got, have)
	if a.Remove == nil && a.Replace == nil {
		*whole = map[string]string{}
		leaves(a.Answer, *whole)
		return compare(have, maps.Clone(*whole))
	}
	var change struct {
		Set  map[string]json.RawMessage
		Gone []string
	}
	if err := json.Unmarshal(a.Answer, &change); err != nil {
		return err.Error()
	}
	want := map[string]string{}
	for k, v := range *whole {
		if !slices.Contains(change.Gone, k) {
			want[k] = v
		}
	}
	for k, v := range change.Set {
		var x any
		_ = json.Unmarshal(v, &x)
		walk(k, level(x, "corpus"), want)
	}
	return compare(have, want)
}

func compare(have, want map[string]string) string {
	var out []string
	for k, v := range want {
		if serviceCA.MatchString(k) && strings.Contains(v, "service-ca.crt") {
			delete(want, k)
		}
	}
	for k, v := range want {
		if have[k] != v {
			out = append(out, fmt.Sprintf("%s is %s, want %s", k, have[k], v))
		}
	}
	for k, v := range have {
		if _, ok := want[k]; !ok {
			out = append(out, fmt.Sprintf("%s is %s, want nothing", k, v))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// leaves are a document's values by JSON pointer, without what is random.
func leaves(doc []byte, into map[string]string) {
	var v any
	_ = json.Unmarshal(doc, &v)
	walk("", level(v, "corpus"), into)
}

// serviceCA is what the recorder's distribution adds to the volume with a pod's token.
var serviceCA = regexp.MustCompile(`/projected/sources/3/configMap/`)

func walk(at string, v any, into map[string]string) {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			switch at + "/" + k {
			case "/metadata/uid", "/metadata/creationTimestamp", "/metadata/resourceVersion", "/metadata/managedFields":
			default:
				walk(at+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(k), e, into)
			}
		}
		if len(x) == 0 && at != "/metadata" {
			into[at] = "{}"
		}
	case []any:
		for i, e := range x {
			walk(at+"/"+strconv.Itoa(i), e, into)
		}
		if len(x) == 0 {
			into[at] = "[]"
		}
	default:
		b, _ := json.Marshal(x)
		into[at] = string(b)
	}
}
