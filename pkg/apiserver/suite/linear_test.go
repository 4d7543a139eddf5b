package suite

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// act is one thing a client did to one object, and how it ended. Every value is written once, so a value stands for the
// resourceVersion it was read with.
type act struct {
	verb     string // create, put, swap, delete, get
	key      string
	value    string // written
	expected string // by swap: the value that was read
}

// end is what a client was told. What nobody answered may have happened at any time since, or never.
type end struct {
	unknown bool
	code    int
	value   string // read
}

// register is the model of one object: absent or with a value.
type register struct {
	there bool
	value string
}

var registers = porcupine.NondeterministicModel{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		parts := map[string][]porcupine.Operation{}
		var keys []string
		for _, o := range all {
			k := o.Input.(act).key
			if parts[k] == nil {
				keys = append(keys, k)
			}
			parts[k] = append(parts[k], o)
		}
		out := make([][]porcupine.Operation, 0, len(keys))
		for _, k := range keys {
			out = append(out, parts[k])
		}
		return out
	},
	Init:  func() []any { return []any{register{}} },
	Equal: func(a, b any) bool { return a == b },
	Step: func(state, input, output any) []any {
		s, a, e := state.(register), input.(act), output.(end)
		after, ok := a.on(s)
		switch {
		case e.unknown && ok:
			return []any{s, after}
		case e.unknown:
			return []any{s}
		case a.verb == "get" && e.code == http.StatusOK:
			if s.there && s.value == e.value {
				return []any{s}
			}
			return nil
		case e.code < 300:
			if ok {
				return []any{after}
			}
			return nil
		case e.code == http.StatusNotFound:
			if !s.there {
				return []any{s}
			}
			return nil
		case e.code == http.StatusConflict && a.verb == "create":
			if s.there {
				return []any{s}
			}
			return nil
		case e.code == http.StatusConflict && a.verb == "swap":
			if s.there && s.value != a.expected {
				return []any{s}
			}
			return nil
		}
		return []any{s} // refused for another reason, without effect
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// on is the state after the act, if it can happen in s.
func (a act) on(s register) (register, bool) {
	switch a.verb {
	case "create":
		return register{true, a.value}, !s.there
	case "put":
		return register{true, a.value}, s.there
	case "swap":
		return register{true, a.value}, s.there && s.value == a.expected
	case "delete":
		return register{}, s.there
	}
	return s, true
}

// TestLinearizable lets clients of two servers on one etcd create, read, change and delete the same few objects, while etcd
// and one of the servers are killed and started again. What they were told is a history of registers; what watches told
// meanwhile is every change, once and in order; lists in pages stay of one revision.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	const clients, keys, lasts, atMost, enough = 6, 6, 9 * time.Second, time.Minute, 200
	db, dbURL := rig.NewEtcd(t)
	_, a := newServer(t, dbURL)
	pb, b := newServer(t, dbURL)
	servers := []*client{a, b}
	var first metav1.PartialObjectMetadata
	decode(t, a.Must(t, "POST", "/api/v1/namespaces", `{"metadata":{"name":"linear"}}`), &first)
	const path = "/api/v1/namespaces/linear/configmaps"
	ctx, stop := context.WithTimeout(t.Context(), atMost)
	defer stop()
	begun := time.Now()

	var wg sync.WaitGroup
	var mu sync.Mutex
	var history []porcupine.Operation
	written := map[int64]string{} // resourceVersion -> value, of acknowledged writes
	for id := range clients {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(id), 7))
			known := map[string][2]string{} // key -> value and resourceVersion
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprint("k", random.IntN(keys))
				op := act{verb: []string{"create", "put", "swap", "delete", "get", "get", "swap", "create"}[random.IntN(8)], key: key, value: fmt.Sprintf("%d-%d", id, n)}
				rv := ""
				if op.verb == "swap" {
					if known[key][1] == "" {
						op.verb = "get"
					} else {
						op.expected, rv = known[key][0], known[key][1]
					}
				}
				at := time.Since(begun).Nanoseconds()
				e, now := servers[random.IntN(2)].act(path, op, rv)
				if now.ResourceVersion != "" {
					known[key] = [2]string{now.Data["v"], now.ResourceVersion}
				}
				till := time.Since(begun).Nanoseconds()
				if e.unknown {
					if op.verb == "get" {
						continue
					}
					till = int64(atMost) * 100 // it may still happen
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: id, Input: op, Call: at, Output: e, Return: till})
				if op.verb != "get" && op.verb != "delete" && !e.unknown && e.code < 300 {
					v, _ := strconv.ParseInt(now.ResourceVersion, 10, 64)
					written[v] = op.value
				}
				mu.Unlock()
				if e.unknown {
					time.Sleep(20 * time.Millisecond) // its server or etcd is down
				}
			}
		})
	}
	watchers := []*observer{{name: "one server", servers: servers[:1]}, {name: "the other", servers: servers[1:], relists: true}, {name: "both in turn", servers: servers}}
	till := make(chan int64, len(watchers))
	var watching sync.WaitGroup
	for _, w := range watchers {
		w.last, _ = strconv.ParseInt(first.ResourceVersion, 10, 64)
		watching.Go(func() { w.run(t.Context(), path, till) })
	}
	pages := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			if readPages(ctx, t, servers, path) {
				mu.Lock()
				pages++
				mu.Unlock()
			}
			time.Sleep(10 * time.Millisecond)
		}
	})

	// Disaster strikes.
	for _, hit := range []struct {
		after time.Duration
		what  *rig.Process
		down  time.Duration
	}{{1500 * time.Millisecond, db, 300 * time.Millisecond}, {1500 * time.Millisecond, pb, 200 * time.Millisecond}, {1500 * time.Millisecond, db, 50 * time.Millisecond}, {time.Second, pb, 0}} {
		time.Sleep(hit.after)
		hit.what.Kill()
		time.Sleep(hit.down)
		hit.what.Start(t)
	}
	// A machine that is slow takes longer until something is proved.
	for done := false; !done && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		mu.Lock()
		done = time.Since(begun) > lasts && len(history) >= enough && pages > 0
		mu.Unlock()
	}
	stop()
	wg.Wait()
	b.Ready(t, 30*time.Second)
	a.Ready(t, 30*time.Second)
	end := a.Must(t, "POST", path, `{"metadata":{"name":"end"}}`)
	var last corev1.ConfigMap
	decode(t, end, &last)
	final, _ := strconv.ParseInt(last.ResourceVersion, 10, 64)
	for range watchers {
		till <- final
	}
	watching.Wait()

	t.Logf("%d acts, %d writes, %d lists in pages", len(history), len(written), pages)
	if len(history) < enough || pages == 0 {
		t.Errorf("%d acts and %d lists prove little", len(history), pages)
	}
	model := registers.ToModel()
	if result := porcupine.CheckOperationsTimeout(model, history, time.Minute); result != porcupine.Ok {
		t.Errorf("what the clients were told cannot have happened in any order: %v", result)
		slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		for _, o := range history {
			t.Logf("%.6f-%.6f client %d: %s", float64(o.Call)/1e9, float64(o.Return)/1e9, o.ClientId, registers.DescribeOperation(o.Input, o.Output))
		}
	}
	for _, w := range watchers {
		w.check(t, written, final)
	}
}

// act does one act and tells how it ended, and the object as far as it was answered.
func (c *client) act(path string, op act, rv string) (end, corev1.ConfigMap) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	o := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: op.key, ResourceVersion: rv}, Data: map[string]string{"v": op.value}}
	body, err := json.Marshal(&o)
	if err != nil {
		return end{unknown: true}, corev1.ConfigMap{}
	}
	method, at, text := "GET", path+"/"+op.key, ""
	switch op.verb {
	case "create":
		method, at, text = "POST", path, string(body)
	case "put", "swap":
		method, text = "PUT", string(body)
	case "delete":
		method = "DELETE"
	}
	code, _, answer, err := c.Do(ctx, method, at, text, nil)
	if err != nil || code >= 500 || code == http.StatusTooManyRequests || code == http.StatusUnauthorized || code == http.StatusForbidden {
		return end{unknown: true}, corev1.ConfigMap{}
	}
	var now corev1.ConfigMap
	if code < 300 && op.verb != "delete" {
		if json.Unmarshal(answer, &now) != nil {
			return end{unknown: true}, corev1.ConfigMap{}
		}
	}
	return end{code: code, value: now.Data["v"]}, now
}

// readPages lists two at a time from whichever server; it tells whether it came to the end.
func readPages(ctx context.Context, t *testing.T, servers []*client, path string) bool {
	token, rv, before := "", "", ""
	for n := 0; ; n++ {
		code, _, b, err := servers[n%2].Do(ctx, "GET", path+"?limit=2&continue="+token, "", nil)
		if err != nil || code != http.StatusOK {
			return false // a server or etcd is down, or the pages expired
		}
		var list corev1.ConfigMapList
		if json.Unmarshal(b, &list) != nil {
			return false
		}
		for _, i := range list.Items {
			if i.Name <= before {
				t.Errorf("%s comes after %s in a list", i.Name, before)
			}
			before = i.Name
		}
		if rv == "" {
			rv = list.ResourceVersion
		} else if rv != list.ResourceVersion {
			t.Errorf("a page is of revision %s, the first was of %s", list.ResourceVersion, rv)
		}
		if token = list.Continue; token == "" {
			return true
		}
	}
}

// observer is a watch that goes on where it was whenever it ends.
type observer struct {
	name    string
	servers []*client
	last    int64
	seen    []seen
	gone    []string // what kept it from going on
	// relists: a server that was started again knows nothing of before, and says so; its clients read everything again.
	relists bool
	gaps    [][2]int64 // what was passed over so
}

type seen struct {
	rv         int64
	kind, name string
	value      string
}

// run watches until the revision that till tells was seen.
func (w *observer) run(ctx context.Context, path string, till <-chan int64) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	final := int64(1 << 62)
	for n := 0; ctx.Err() == nil && w.last < final; n++ {
		select {
		case final = <-till:
			continue
		default:
		}
		one, done := context.WithTimeout(ctx, 2*time.Second)
		code, _, b, _ := w.servers[n%len(w.servers)].Do(one, "GET", fmt.Sprintf("%s?watch=1&timeoutSeconds=1&resourceVersion=%d", path, w.last), "", nil) // what came before it broke counts
		done()
		if code != http.StatusOK {
			if code == http.StatusGone {
				w.again(ctx, path, b)
			}
			time.Sleep(20 * time.Millisecond)
		}
		dec := json.NewDecoder(strings.NewReader(string(b)))
		for {
			var e metav1.WatchEvent
			if dec.Decode(&e) != nil {
				break
			}
			var o corev1.ConfigMap
			if json.Unmarshal(e.Object.Raw, &o) != nil {
				break
			}
			if e.Type == "ERROR" {
				w.again(ctx, path, e.Object.Raw)
				break
			}
			rv, _ := strconv.ParseInt(o.ResourceVersion, 10, 64)
			w.seen = append(w.seen, seen{rv, e.Type, o.Name, o.Data["v"]})
			w.last = max(w.last, rv)
		}
	}
}

// again goes on after a 410: with a list, or on another server.
func (w *observer) again(ctx context.Context, path string, why []byte) {
	if len(w.servers) > 1 {
		return
	}
	if !w.relists {
		w.gone = append(w.gone, fmt.Sprintf("at %d: %s", w.last, why))
		return
	}
	code, _, b, err := w.servers[0].Do(ctx, "GET", path, "", nil)
	var list corev1.ConfigMapList
	if err != nil || code != http.StatusOK || json.Unmarshal(b, &list) != nil {
		return
	}
	rv, _ := strconv.ParseInt(list.ResourceVersion, 10, 64)
	w.gaps = append(w.gaps, [2]int64{w.last, rv})
	w.seen = append(w.seen, seen{rv: rv, kind: "LIST"})
	for _, i := range list.Items {
		w.seen = append(w.seen, seen{rv: rv, kind: "ITEM", name: i.Name, value: i.Data["v"]})
	}
	w.last = max(w.last, rv)
}

// check compares what was seen with what was written.
func (w *observer) check(t *testing.T, written map[int64]string, final int64) {
	t.Helper()
	if len(w.gone) > 0 {
		t.Errorf("the watch of %s could not go on %d times, first %s", w.name, len(w.gone), w.gone[0])
	}
	last, there := int64(0), map[string]bool{}
	revs := map[int64]bool{}
	for _, s := range w.seen {
		switch s.kind {
		case "LIST":
			clear(there)
			last = s.rv
			continue
		case "ITEM":
			there[s.name] = true
			continue
		}
		if s.rv <= last {
			t.Errorf("the watch of %s told of %d after %d", w.name, s.rv, last)
		}
		last = s.rv
		revs[s.rv] = true
		if (s.kind == "ADDED") == there[s.name] {
			t.Errorf("the watch of %s told %s of %s at %d, which was there: %v", w.name, s.kind, s.name, s.rv, there[s.name])
		}
		there[s.name] = s.kind != "DELETED"
		if v, ok := written[s.rv]; ok && v != s.value {
			t.Errorf("the watch of %s told %s at %d, written was %s", w.name, s.value, s.rv, v)
		}
	}
	missing := 0
	for rv := range written {
		passed := slices.ContainsFunc(w.gaps, func(g [2]int64) bool { return g[0] < rv && rv <= g[1] })
		if !revs[rv] && !passed {
			missing++
		}
	}
	if len(w.gaps) > 2 {
		t.Errorf("the watch of %s, which was started again twice, had to list %d times", w.name, len(w.gaps))
	}
	if missing > 0 || last < final {
		t.Errorf("the watch of %s missed %d of %d writes, and came to %d of %d", w.name, missing, len(written), last, final)
	}
}
