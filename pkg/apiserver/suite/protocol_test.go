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
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
	"github.com/sextant-k8s/sextant/pkg/apiserver/server"
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

// The least part of the recorded steps, in hundredths, that have the code and that are answered word for word. What is not
// is named in docs/api.md.
const (
	leastCodes = 99
	leastSame  = 97
)

// TestProtocol replays recorded request sequences and compares the answers.
func TestProtocol(t *testing.T) {
	t.Parallel()
	at := oldEtcd(t)
	s := start(t, func(c *server.Config) { c.EtcdServers = []string{at} })
	groups := map[string][]step{}
	var names []string
	lines := bufio.NewScanner(bytes.NewReader(rig.Recorded(t, "protocol.jsonl.gz")))
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
	var mu sync.Mutex
	steps, codes, same := 0, 0, 0
	t.Cleanup(func() {
		t.Logf("%d steps: %d (%.2f %%) have the code, %d (%.2f %%) agree whole", steps, codes, percent(codes, steps), same, percent(same, steps))
		if percent(codes, steps) < leastCodes || percent(same, steps) < leastSame {
			t.Errorf("%d %% have to have the code, and %d %% to agree whole; SHOW=1 shows those that do not", leastCodes, leastSame)
		}
	})
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good, coded, bad := replay(t, s, "proto-"+name, groups[name])
			mu.Lock()
			steps, codes, same = steps+good+len(bad), codes+coded, same+good
			mu.Unlock()
			t.Logf("%d of %d as recorded", good, good+len(bad))
			if os.Getenv("SHOW") != "" {
				for _, b := range bad {
					t.Log(b)
				}
			}
		})
	}
}

// oldEtcd is an etcd as the recorder's was: its first revisions are gone, whatever the server does before it is asked for them.
func oldEtcd(t *testing.T) string {
	t.Helper()
	_, at := rig.NewEtcd(t)
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{at}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // nothing is in flight
	var last int64
	for range 5 {
		r, err := c.Put(t.Context(), "/old", "key")
		if err != nil {
			t.Fatal(err)
		}
		last = r.Header.Revision
	}
	if _, err := c.Compact(t.Context(), last, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	return at
}

// replay runs one group in its own namespace; bad tells what differed.
func replay(t *testing.T, s *client, ns string, steps []step) (good, coded int, bad []string) {
	s.Must(t, "POST", "/api/v1/namespaces", fmt.Sprintf(`{"metadata":{"name":%q}}`, ns))
	s.Must(t, "POST", "/api/v1/namespaces/"+ns+"/serviceaccounts", `{"metadata":{"name":"default"}}`)
	s.controllers(t, ns, steps)
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
		code, h, b := s.Try(t, st.Verb, fill(st.Path), fill(body), headers)
		var answer any
		if strings.Contains(st.Path, "watch=1") || strings.Contains(st.Path, "/v1/watch/") {
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
			answer = string([]rune(string(b))) // as JSON holds what is no text
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
		if code == st.Code {
			coded++
		}
		s.afterwards(t, ns, fmt.Sprintf("%s %d", st.Group, n))
		got, want := level(answer, ns), level(st.Answer, ns)
		mime, _, _ := strings.Cut(h.Get("Content-Type"), ";")
		wantMime, _, _ := strings.Cut(st.Type, ";")
		if code == st.Code && mime == wantMime && reflect.DeepEqual(got, want) && len(warnings) == len(st.Warnings) {
			good++
			continue
		}
		have, should := map[string]string{}, map[string]string{}
		walk("answer", got, have)
		walk("answer", want, should)
		bad = append(bad, fmt.Sprintf("#%d %s %s %.300s\n   %d %s %q, want %d %s %q\n   %.3000s", n, st.Verb, st.Path, st.Body, code, mime, warnings, st.Code, wantMime, st.Warnings, compare(have, should)))
	}
	return good, coded, bad
}

// controllers makes what the recorder's controllers put into every namespace: the config maps with its certificates.
func (s *client) controllers(t *testing.T, ns string, steps []step) {
	t.Helper()
	made := map[string]bool{}
	var find func(v any)
	find = func(v any) {
		switch x := v.(type) {
		case map[string]any:
			meta, _ := x["metadata"].(map[string]any)
			if name, _ := meta["name"].(string); (name == "kube-root-ca.crt" || name == "openshift-service-ca.crt") && x["data"] != nil && !made[name] {
				made[name] = true
				b, err := json.Marshal(map[string]any{"metadata": map[string]any{"name": name, "annotations": meta["annotations"]}, "data": x["data"]})
				if err != nil {
					t.Fatal(err)
				}
				s.Must(t, "POST", "/api/v1/namespaces/"+ns+"/configmaps?fieldManager=kube-controller-manager", string(b))
			}
			for _, e := range x {
				find(e)
			}
		case []any:
			for _, e := range x {
				find(e)
			}
		}
	}
	for _, st := range steps {
		find(st.Answer)
	}
}

// watchers are what the recorder's controllers and scheduler wrote after steps: who, where and what.
var watchers = map[string][3]string{
	"subresources 0": {"kube-controller-manager", "apis/apps/v1", `deployments/d {"status":{"observedGeneration":1,"terminatingReplicas":0,"conditions":[` + paused + `]}}`},
	"subresources 1": {"kube-controller-manager", "apis/apps/v1", `deployments/d {"status":{"observedGeneration":1,"terminatingReplicas":0,"replicas":0,"conditions":[` + paused + `]}}`},
	"subresources 8": {"kube-scheduler", "api/v1", `pods/p {"status":{"conditions":[{"type":"PodScheduled","observedGeneration":1,"status":"False","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"Unschedulable",` +
		`"message":"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."}]}}`},
}

const paused = `{"type":"Progressing","status":"Unknown","lastUpdateTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"DeploymentPaused","message":"Deployment is paused"},` +
	`{"type":"Available","status":"False","lastUpdateTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"MinimumReplicasUnavailable","message":"Deployment does not have minimum availability."}`

// afterwards does what the recorder's controllers and scheduler did after a step.
func (s *client) afterwards(t *testing.T, ns, step string) {
	t.Helper()
	w, ok := watchers[step]
	if !ok {
		return
	}
	at, patch, _ := strings.Cut(w[2], " ")
	path := fmt.Sprintf("/%s/namespaces/%s/%s/status?fieldManager=%s", w[1], ns, at, w[0])
	if code, _, b := s.Try(t, "PATCH", path, patch, map[string]string{"Content-Type": "application/strategic-merge-patch+json"}); code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, code, b)
	}
}

// byControllers tells what of an answer the recorder's controllers wrote to objects that our server alone leaves as they are.
func byControllers(x map[string]any) map[string]any {
	if x["kind"] != "Deployment" && x["kind"] != "Namespace" {
		return x
	}
	meta, _ := x["metadata"].(map[string]any)
	entries, _ := meta["managedFields"].([]any)
	kept := slices.DeleteFunc(slices.Clone(entries), func(e any) bool {
		m, _ := e.(map[string]any)
		return m["manager"] == "kube-controller-manager"
	})
	if meta == nil || x["kind"] != "Deployment" && len(kept) == len(entries) {
		return x
	}
	x, meta = maps.Clone(x), maps.Clone(meta)
	x["metadata"] = meta
	if entries != nil {
		meta["managedFields"] = kept
	}
	if notes, ok := meta["annotations"].(map[string]any); ok && len(notes) == 1 && notes["deployment.kubernetes.io/revision"] != nil {
		delete(meta, "annotations")
	}
	switch x["kind"] {
	case "Namespace":
		if status, ok := x["status"].(map[string]any); ok {
			x["status"] = map[string]any{"phase": status["phase"]}
		}
	case "Deployment":
		delete(x, "status")
	}
	return x
}

// entries is managedFields in an order of its own: that of who wrote in one second depends on names, else on times.
func entries(v any) any {
	list, ok := v.([]any)
	if !ok {
		return v
	}
	by := func(e any) string {
		m, _ := e.(map[string]any)
		return fmt.Sprint(m["operation"], m["manager"], m["subresource"], m["apiVersion"])
	}
	slices.SortStableFunc(list, func(a, b any) int { return strings.Compare(by(a), by(b)) })
	return list
}

// aged is the cells of a table with every age the same.
func aged(cells []any, ns string) any {
	cells = slices.Clone(cells)
	for i, c := range cells {
		if text, ok := c.(string); ok && agePattern.MatchString(text) {
			cells[i] = "AGE"
		}
	}
	return level(cells, ns)
}

// byRecorder tells what stands in a list because of where the recording was made: its distribution adds a source to the
// volume with a pod's token.
func byRecorder(e any) bool {
	x, _ := e.(map[string]any)
	m, _ := x["configMap"].(map[string]any)
	return m["name"] == "openshift-service-ca.crt"
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
	rvPattern   = regexp.MustCompile(`(current: |version: RV \(|resource version: |resourceVersion: "?|record \(|"resourceVersion\\?":\\?")\d+`)
	agePattern  = regexp.MustCompile(`^\d+s$`)
	hunkPattern = regexp.MustCompile(`@@ -\d+,\d+ \+\d+,\d+ @@`)
	hostPattern = regexp.MustCompile(`(\d+\.\d+\.\d+\.\d+):\d+(/openid|$)`)
)

// level makes what differs by chance the same on both sides.
func level(v any, ns string) any {
	switch x := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range byControllers(x) {
			switch k {
			case "resourceVersion":
				out[k] = "RV"
			case "uid":
				out[k] = "UID"
			case "continue", "token":
				out[k] = "TOKEN"
			case "nodePort":
				out[k] = 30000.0
			case "managedFields":
				out[k] = entries(level(e, ns))
			case "cells":
				list, _ := e.([]any)
				out[k] = aged(list, ns)
			default:
				out[k] = level(e, ns)
			}
		}
		if list, ok := out["causes"].([]any); ok && len(list) > 1 {
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
		if text, ok := out["message"].(string); ok && out["reason"] == "Invalid" {
			// The faults of an object against its schema come in any order.
			words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,[]", r) })
			slices.Sort(words)
			out["message"] = strings.Join(words, " ")
		}
		return out
	case []any:
		out := make([]any, 0, len(x))
		for _, e := range x {
			if !byRecorder(e) {
				out = append(out, level(e, ns))
			}
		}
		return out
	case string:
		x = strings.ReplaceAll(x, ns, "NSX")
		x = timePattern.ReplaceAllString(x, "TIME")
		x = uidPattern.ReplaceAllString(x, "UID")
		x = hunkPattern.ReplaceAllString(x, "@@")
		x = hostPattern.ReplaceAllString(x, "HOST$2")
		x = ipPattern.ReplaceAllString(x, "10.96.X.X")
		x = rvPattern.ReplaceAllString(x, "${1}RV")
		x = rvPattern.ReplaceAllString(x, "${1}RV") // there may be two beside each other
		return namePattern.ReplaceAllString(x, "${1}XXXXX")
	}
	return v
}
