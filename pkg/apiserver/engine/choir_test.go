package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/engine"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/core"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// hall is an engine whose etcd tells one config map's changes.
type hall struct {
	*engine.Engine
	def  *kind.Def
	told chan *mvccpb.KeyValue
	turn int64
}

func newHall(t *testing.T) *hall {
	t.Helper()
	rows := kinds.All(kinds.Deps{Health: []func(*kind.Op) error{func(*kind.Op) error { return nil }}, Ranges: core.Ranges{ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, NodePorts: core.PortRange{Low: 30000, High: 32767}}})
	h := &hall{told: make(chan *mvccpb.KeyValue)}
	h.def = rows[slices.IndexFunc(rows, func(d *kind.Def) bool { return d.Kind == "ConfigMap" })]
	c := over(t, rows, &quiet{told: h.told})
	h.Engine = engine.New(engine.Config{Cache: c, Defs: rows})
	return h
}

// change has the map say its next turn.
func (h *hall) change(t *testing.T) {
	t.Helper()
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "sung", UID: "u"}, Data: map[string]string{"turn": strconv.FormatInt(h.turn, 10)}}
	value, err := codec.StoredValue(h.def, o)
	if err != nil {
		t.Fatal(err)
	}
	h.turn++
	kv := &mvccpb.KeyValue{Key: []byte("/registry/" + h.def.KeyPrefix() + "default/sung"), Value: value, CreateRevision: quietRevision + 1, ModRevision: quietRevision + h.turn, Version: h.turn}
	select {
	case h.told <- kv:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody follows etcd")
	}
}

// watch serves one watch to w until it is over or ctx ends.
func (h *hall) watch(ctx context.Context, w http.ResponseWriter, query string) {
	r, _ := http.NewRequest(http.MethodGet, fmt.Sprintf("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=%d&%s", quietRevision, query), nil)
	ctx = request.WithInfo(ctx, request.Parse(r))
	request.SetUser(ctx, &user.DefaultInfo{Name: "u", Groups: []string{user.SystemPrivilegedGroup}})
	h.ServeHTTP(w, r.WithContext(ctx))
}

// hand is an answer whose connection is as moody as a test wants.
type hand struct {
	t      *testing.T
	line   any
	append func() (done, full bool)
	wait   func()

	busy atomic.Bool
	mu   sync.Mutex
	said bytes.Buffer
}

// alone fails the test if two tell the stream at once.
func (h *hand) alone() func() {
	if !h.busy.CompareAndSwap(false, true) {
		h.t.Error("two tell one stream at once")
	}
	return func() { h.busy.Store(false) }
}

func (h *hand) say(p []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said.Write(p)
}

func (h *hand) Header() http.Header { return http.Header{} }
func (h *hand) WriteHeader(int)     {}
func (h *hand) FlushError() error   { return nil }
func (h *hand) Line() any           { return h.line }
func (h *hand) Drain()              { h.wait() }

func (h *hand) Write(p []byte) (int, error) {
	defer h.alone()()
	h.wait()
	h.say(p)
	return len(p), nil
}

func (h *hand) Append(p []byte) (done, full bool) {
	defer h.alone()()
	if done, full = h.append(); done {
		h.say(p)
	}
	return done, full
}

// turns are those told, which must be in order from 0 on.
func (h *hand) turns() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for line := range bytes.Lines(h.said.Bytes()) {
		var e struct {
			Type   string
			Object corev1.ConfigMap
		}
		if err := json.Unmarshal(line, &e); err != nil || e.Type == "" {
			continue // not an event: it was over before it began
		}
		if e.Object.Data["turn"] != strconv.Itoa(n) {
			h.t.Fatalf("%s was told where turn %d was due", line, n)
		}
		n++
	}
	return n
}

// TestChoir lets many streams of few connections come, be told, wait for their clients, and go, all at random: nobody is told by
// two at once, or out of order, and who stays is told everything.
func TestChoir(t *testing.T) {
	t.Parallel()
	const streams, lines, changes = 40, 3, 400
	h := newHall(t)
	type singer struct {
		*hand
		stays bool
		over  chan struct{}
		stop  func()
	}
	var all []*singer
	for i := range streams {
		ctx, stop := context.WithCancel(t.Context())
		s := &singer{hand: &hand{t: t, line: i % lines}, stays: i%4 != 0, over: make(chan struct{}), stop: stop}
		s.append = func() (done, full bool) {
			switch rand.IntN(12) {
			case 0:
				return false, false
			case 1, 2:
				return false, true
			}
			return true, false
		}
		s.wait = func() {
			if rand.IntN(8) == 0 {
				time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
			}
		}
		query := ""
		if i%8 == 0 {
			query, s.stays = "timeoutSeconds=1", false
		}
		all = append(all, s)
		go func() {
			defer close(s.over)
			time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
			h.watch(ctx, s.hand, query)
		}()
		if !s.stays && query == "" {
			time.AfterFunc(time.Duration(rand.IntN(600))*time.Millisecond, stop)
		}
	}
	for range changes {
		h.change(t)
		if rand.IntN(4) == 0 {
			time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond)
		}
	}
	deadline := time.Now().Add(15 * time.Second)
	for i, s := range all {
		if !s.stays {
			select {
			case <-s.over:
			case <-time.After(time.Until(deadline)):
				t.Errorf("stream %d was over and did not end", i)
			}
			s.turns()
			continue
		}
		for s.turns() < changes {
			if time.Now().After(deadline) {
				t.Fatalf("stream %d was told %d of %d changes", i, s.turns(), changes)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for _, s := range all {
		s.stop()
		<-s.over
	}
}

// TestChoirThatIsNeverDone has more to tell than a connection takes: its watches end all the same, and not with the client.
func TestChoirThatIsNeverDone(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	var room atomic.Bool
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	over := make(chan struct{}, 3)
	for range cap(over) {
		go func() {
			h.watch(ctx, &hand{t: t, line: 1,
				append: func() (done, full bool) { done = room.Swap(false); return done, !done },
				wait:   func() { time.Sleep(10 * time.Millisecond); room.Store(true) },
			}, "timeoutSeconds=1")
			over <- struct{}{}
		}()
	}
	ended := 0
	for ended < cap(over) && ctx.Err() == nil {
		h.change(t)
		time.Sleep(time.Millisecond)
		select {
		case <-over:
			ended++
		default:
		}
	}
	if ended < cap(over) {
		t.Errorf("%d of %d watches ended", ended, cap(over))
	}
}

// TestChoirLosesItsLeader has streams of one connection leave one after the other while nothing happens: whoever leads then,
// those who stay are told what comes.
func TestChoirLosesItsLeader(t *testing.T) {
	t.Parallel()
	for i := range 6 { // the leader may be the last to go
		t.Run(strconv.Itoa(i), loseLeader)
	}
}

func loseLeader(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	type singer struct {
		*hand
		over chan struct{}
		stop func()
	}
	var all []singer
	for range 8 {
		ctx, stop := context.WithCancel(t.Context())
		s := singer{&hand{t: t, line: 1, append: func() (done, full bool) { return true, false }, wait: func() {}}, make(chan struct{}), stop}
		all = append(all, s)
		go func() { defer close(s.over); h.watch(ctx, s.hand, "") }()
	}
	for round := 1; len(all) > 0; round++ {
		h.change(t)
		for deadline := time.Now().Add(10 * time.Second); slices.ContainsFunc(all, func(s singer) bool { return s.turns() < round }); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("with %d streams left, not all were told of change %d", len(all), round)
			}
		}
		time.Sleep(10 * time.Millisecond) // they rest
		i := rand.IntN(len(all))
		all[i].stop()
		<-all[i].over
		all = slices.Delete(all, i, i+1)
	}
}
