package suite

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// step is one recorded request and upstream's answer.
type step struct {
	Group    string            `json:"group"`
	Verb     string            `json:"verb"`
	Path     string            `json:"path"`
	Body     json.RawMessage   `json:"body"`
	Headers  map[string]string `json:"headers"`
	Wait     float64           `json:"wait"`
	Save     map[string]string `json:"save"`
	Code     int               `json:"code"`
	Type     string            `json:"type"`
	Answer   any               `json:"answer"`
	Warnings []string          `json:"warnings"`
}

// least is how many steps of each group are answered as upstream does, word for word. It only ever rises; what is
// missing is named in docs/status.md.
var least = map[string]int{
	"crud": 36, "strict": 18, "list": 46, "watch": 18, "patch": 16, "apply": 20, "subresources": 19, "roots": 19, "authz": 13, "namespaces": 8, "security": 5, "crd": 26, "policies": 8,
}

// TestProtocol replays recorded request sequences and compares the answers.
func TestProtocol(t *testing.T) {
	t.Parallel()
	s := start(t)
	groups := map[string][]step{}
	var names []string
	lines := bufio.NewScanner(bytes.NewReader(recorded(t, "protocol.jsonl.gz")))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var st step
		if err := json.Unmarshal(lines.Bytes(), &st); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(names, st.Group) {
			names = append(names, st.Group)
		}
		groups[st.Group] = append(groups[st.Group], st)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good, bad := replay(t, s, "proto-"+name, groups[name])
			t.Logf("%d of %d as recorded", good, good+len(bad))
			if good < least[name] || os.Getenv("SHOW") != "" {
				for _, b := range bad {
					t.Log(b)
				}
			}
			if good < least[name] {
				t.Errorf("%d steps of group %s are answered as recorded, %d were", good, name, least[name])
			}
		})
	}
}

// replay runs one group in its own namespace; bad tells what differed.
func replay(t *testing.T, s *client, ns string, steps []step) (good int, bad []string) {
	s.must(t, "POST", "/api/v1/namespaces", fmt.Sprintf(`{"metadata":{"name":%q}}`, ns))
	s.must(t, "POST", "/api/v1/namespaces/"+ns+"/serviceaccounts", `{"metadata":{"name":"default"}}`)
	saved := map[string]string{}
	fill := func(text string) string {
		text = strings.ReplaceAll(text, "NSX", ns)
		for k, v := range saved {
			text = strings.ReplaceAll(text, "${"+k+"}", v)
		}
		return text
	}
	for n, st := range steps {
		time.Sleep(time.Duration(st.Wait * float64(time.Second)))
		body := string(st.Body)
		var text string
		if json.Unmarshal(st.Body, &text) == nil && len(st.Body) > 0 {
			body = text // a body that is not JSON was recorded as a string
		}
		headers := map[string]string{}
		for k, v := range st.Headers {
			headers[k] = fill(v)
		}
		code, h, b := s.try(t, st.Verb, fill(st.Path), fill(body), headers)
		var answer any
		if strings.Contains(st.Path, "watch=1") {
			events := []any{}
			for dec := json.NewDecoder(bytes.NewReader(b)); ; {
				var e any
				if dec.Decode(&e) != nil {
					break
				}
				events = append(events, e)
			}
			answer = events
		} else if json.Unmarshal(b, &answer) != nil {
			answer = string(b)
		}
		for k, pointer := range st.Save {
			if v, ok := at(answer, pointer).(string); ok {
				saved[k] = v
			}
		}
		var warnings []string
		for _, w := range h.Values("Warning") {
			if _, text, ok := strings.Cut(w, ` - "`); ok {
				warnings = append(warnings, strings.TrimSuffix(text, `"`))
			}
		}
		got, want := level(answer, ns), level(st.Answer, ns)
		mime, _, _ := strings.Cut(h.Get("Content-Type"), ";")
		wantMime, _, _ := strings.Cut(st.Type, ";")
		if code == st.Code && mime == wantMime && reflect.DeepEqual(got, want) && len(warnings) == len(st.Warnings) {
			good++
			continue
		}
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		bad = append(bad, fmt.Sprintf("#%d %s %s %s\n   got  %d %s %s %q\n   want %d %s %s %q", n, st.Verb, st.Path, st.Body, code, mime, g, warnings, st.Code, wantMime, w, st.Warnings))
	}
	return good, bad
}

// at follows a JSON pointer.
func at(v any, pointer string) any {
	for _, p := range strings.Split(strings.Trim(pointer, "/"), "/") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			var n int
			if _, err := fmt.Sscan(p, &n); err != nil || n >= len(x) {
				return nil
			}
			v = x[n]
		}
	}
	return v
}

var (
	timePattern = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	uidPattern  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	ipPattern   = regexp.MustCompile(`10\.96\.\d+\.\d+`)
	namePattern = regexp.MustCompile(`(kube-api-access-|g-|gen-)[bcdfghjklmnpqrstvwxz2456789]{5}\b`)
	rvPattern   = regexp.MustCompile(`(current: |version: RV \(|resource version: |resourceVersion: "?|record \(|"resourceVersion":\\?")\d+`)
)

// level makes what differs by chance the same on both sides.
func level(v any, ns string) any {
	switch x := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range x {
			switch k {
			case "resourceVersion":
				out[k] = "RV"
			case "uid":
				out[k] = "UID"
			case "continue", "token":
				out[k] = "TOKEN"
			case "nodePort":
				out[k] = 30000.0
			default:
				out[k] = level(e, ns)
			}
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = level(e, ns)
		}
		return out
	case string:
		x = strings.ReplaceAll(x, ns, "NSX")
		x = timePattern.ReplaceAllString(x, "TIME")
		x = uidPattern.ReplaceAllString(x, "UID")
		x = ipPattern.ReplaceAllString(x, "10.96.X.X")
		x = rvPattern.ReplaceAllString(x, "${1}RV")
		return namePattern.ReplaceAllString(x, "${1}XXXXX")
	}
	return v
}
