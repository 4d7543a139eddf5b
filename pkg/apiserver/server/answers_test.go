package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

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

// TestExtensionAnswers sends what was sent to upstream about webhooks, policies, definitions and APIServices: objects with
// one thing gone or changed. Codes and the fields and reasons of all causes are the same, and every leaf that defaults fill.
func TestExtensionAnswers(t *testing.T) {
	t.Parallel()
	s := start(t)
	var path string
	var body []byte
	var whole map[string]string // the leaves of the base's answer
	lines := bufio.NewScanner(bytes.NewReader(recorded(t, "extensions.jsonl.gz")))
	lines.Buffer(nil, 16<<20)
	asked := 0
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		if a.Path != "" {
			path = a.Path
			if a.Body != nil {
				body = a.Body
			}
			if a.Verb == http.MethodPut { // over the object as it is stored
				collection := path[:strings.LastIndex(path[:strings.Index(path, "?")], "/")]
				s.must(t, "POST", collection, string(body))
			}
		}
		code, _, got := s.try(t, a.Verb, path, string(a.changed(t, body)), nil)
		asked++
		if problem := a.differs(code, got, &whole); problem != "" {
			t.Errorf("%s %s %s: %s", a.Verb, path, a.what(), problem)
		}
	}
	if asked < 700 {
		t.Errorf("only %d answers were compared", asked)
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
		var want struct{ Causes [][3]string }
		var is struct {
			Details struct {
				Causes []struct{ Field, Reason string }
			}
		}
		_ = json.Unmarshal(a.Answer, &want)
		_ = json.Unmarshal(got, &is)
		var w, g []string
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
		return compare(have, *whole)
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
		walk(k, x, want)
	}
	return compare(have, want)
}

func compare(have, want map[string]string) string {
	var out []string
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
	walk("", v, into)
}

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
		if len(x) == 0 {
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
