package shutdown

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
	"github.com/sextant-k8s/sextant/pkg/kubelet/shutdown/fakelogind"
)

func podOf(name string, priority int32, grace int64) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Spec: v1.PodSpec{Priority: &priority, TerminationGracePeriodSeconds: &grace}}
}

func TestGroups(t *testing.T) {
	sec := func(n int) metav1.Duration { return metav1.Duration{Duration: time.Duration(n) * time.Second} }
	by := func(pairs ...int) (out []kubeletv1beta1.ShutdownGracePeriodByPodPriority) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, kubeletv1beta1.ShutdownGracePeriodByPodPriority{Priority: int32(pairs[i]), ShutdownGracePeriodSeconds: int64(pairs[i+1])})
		}
		return out
	}
	for _, c := range []struct {
		cfg  kubeletv1beta1.KubeletConfiguration
		want string
	}{
		{kubeletv1beta1.KubeletConfiguration{}, "[]"},
		{kubeletv1beta1.KubeletConfiguration{ShutdownGracePeriod: sec(30), ShutdownGracePeriodCriticalPods: sec(10)}, "[{0 20s} {2000000000 10s}]"},
		{kubeletv1beta1.KubeletConfiguration{ShutdownGracePeriodByPodPriority: by(100, 10, 0, 60)}, "[{0 1m0s} {100 10s}]"},
		{kubeletv1beta1.KubeletConfiguration{ShutdownGracePeriodByPodPriority: by(100, 10, 100, 60)}, "twice"},
		{kubeletv1beta1.KubeletConfiguration{ShutdownGracePeriodByPodPriority: by(0, 10), ShutdownGracePeriod: sec(30)}, "give either"},
		{kubeletv1beta1.KubeletConfiguration{ShutdownGracePeriod: sec(10), ShutdownGracePeriodCriticalPods: sec(30)}, "cannot be longer"},
		{kubeletv1beta1.KubeletConfiguration{ShutdownGracePeriod: metav1.Duration{Duration: time.Millisecond}}, "1s and more"},
		{kubeletv1beta1.KubeletConfiguration{ShutdownGracePeriodByPodPriority: by(0, -1)}, "less than none"},
	} {
		got, err := Groups(&c.cfg)
		if text := fmt.Sprint(got); text != c.want && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %v, want %s", text, err, c.want)
		}
	}
}

func TestOrder(t *testing.T) {
	done := podOf("done", 0, 30)
	done.Status.Phase = v1.PodSucceeded
	pods := []*v1.Pod{podOf("web", 0, 30), podOf("low", -5, 5), podOf("dns", critical, 30), podOf("api", critical+1000, 30), podOf("db", 100000, 3), done, podOf("db-2", 99999, 600)}
	groups := []Group{{0, 20 * time.Second}, {10000, 90 * time.Second}, {100000, 10 * time.Second}, {critical, 8 * time.Second}, {critical + 2000, time.Hour}}
	want := "within 20s end n/low in 5s, n/web in 20s; then within 1m30s end n/db-2 in 1m30s; then within 10s end n/db in 3s; then within 8s end n/api in 8s, n/dns in 8s"
	if got := decide(groups, pods).String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := decide(groups, nil).String(); got != "nothing to end" {
		t.Error(got)
	}
}

// TestPace runs the stages: the next begins when the pods of one have ended, or their time is over.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var said []string
		ends := map[string]time.Time{}
		takes := map[string]time.Duration{"quick": time.Second, "stuck": time.Hour, "dns": 2 * time.Second}
		m := New(Config{Groups: []Group{{-10, 10 * time.Second}, {0, 20 * time.Second}, {critical, 10 * time.Second}}, Log: slog.New(slog.DiscardHandler),
			Pods: func() []*v1.Pod {
				return []*v1.Pod{podOf("dns", critical, 30), podOf("stuck", 0, 30), podOf("quick", -3, 30)}
			},
			End: func(p *v1.Pod, grace time.Duration) {
				said = append(said, fmt.Sprintf("%s at %s with %s", p.Name, time.Since(begin).Round(time.Second), grace))
				ends[p.Name] = time.Now().Add(takes[p.Name])
			},
			Ended: func(p *v1.Pod) bool { return !time.Now().Before(ends[p.Name]) }})
		root, told := t.TempDir(), metrics.New("n", "v")
		m.cfg.Root, m.cfg.Metrics = root, told
		m.end(t.Context())
		said = append(said, "over at "+time.Since(begin).Round(time.Second).String())
		want := "quick at 0s with 10s; stuck at 1s with 20s; dns at 21s with 10s; over at 23s"
		if got := strings.Join(said, "; "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if took := value(t, told, "end") - value(t, told, "start"); took != 23 {
			t.Errorf("the shutdown is said to have taken %v s", took)
		}
		// The kubelet of the next boot tells of it too.
		m.cfg.Metrics = metrics.New("n", "v")
		m.recall()
		if a, b := value(t, m.cfg.Metrics, "start"), value(t, told, "start"); a != b || a != float64(begin.Unix()) {
			t.Errorf("it began at %v, then at %v", b, a)
		}
	})
}

func value(t *testing.T, m *metrics.Set, end string) float64 {
	t.Helper()
	families, err := m.Kubelet.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "kubelet_graceful_shutdown_"+end+"_time_seconds" {
			return f.Metric[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no time of the shutdown's ", end)
	return 0
}

// node is what a Manager has to do with.
type node struct {
	mu     sync.Mutex
	ended  map[string]bool
	asked  chan string
	events chan string
}

func start(t *testing.T, f *fakelogind.Bus, groups []Group) (*Manager, *node) {
	n := &node{ended: map[string]bool{}, asked: make(chan string, 9), events: make(chan string, 9)}
	m := New(Config{Groups: groups, Dial: f.Dial, Dropins: f.Dropins, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Changed: func() {},
		Pods: func() []*v1.Pod { return []*v1.Pod{podOf("web", 0, 30), podOf("dns", critical, 30)} },
		End:  func(p *v1.Pod, _ time.Duration) { n.asked <- p.Name },
		Ended: func(p *v1.Pod) bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.ended[p.Name]
		},
		Event: func(_, reason, message string) { n.events <- reason + ": " + message }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return m, n
}

func (n *node) end(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended[name] = true
}

// soon is the next word of a channel.
func soon[T any](t *testing.T, what string, c chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain for ", what)
		panic("unreachable")
	}
}

func newLogind(t *testing.T, delay time.Duration) *fakelogind.Bus {
	t.Helper()
	b, err := fakelogind.New(t.TempDir(), delay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func await(t *testing.T, b *fakelogind.Bus, locks int) {
	t.Helper()
	for range 2000 {
		if b.Locks() >= locks {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the kubelet does not ask for lock %d", locks)
}

func TestShutdown(t *testing.T) {
	f := newLogind(t, 5*time.Second)
	m, n := start(t, f, []Group{{0, 20 * time.Second}, {critical, 10 * time.Second}})
	await(t, f, 1)
	if d := f.Delay(); d != 30*time.Second {
		t.Errorf("logind waits %s", d)
	}
	f.Announce(true)
	if got := soon(t, "the first pod", n.asked); got != "web" || !m.Active() {
		t.Errorf("%s is ended first, active %v", got, m.Active())
	}
	if got := soon(t, "an event", n.events); got != "Shutdown: Shutdown manager detected shutdown event" {
		t.Error(got)
	}
	// It is called off: the lock is taken anew, and the node takes pods again.
	f.Announce(false)
	soon(t, "the old lock's release", f.Released)
	await(t, f, 2)
	if m.Active() {
		t.Error("still shutting down")
	}
	soon(t, "an event", n.events)
	f.Announce(true)
	soon(t, "the first pod", n.asked)
	n.end("web")
	if got := soon(t, "the second pod", n.asked); got != "dns" {
		t.Errorf("%s is ended second", got)
	}
	select {
	case <-f.Released:
		t.Error("the machine goes down before the last pod")
	case <-time.After(2 * glance):
	}
	n.end("dns")
	soon(t, "the lock's release", f.Released)
	if !m.Active() {
		t.Error("pods are taken by a machine that goes down")
	}
}

// TestReturns has the bus end and come back.
func TestReturns(t *testing.T) {
	f := newLogind(t, time.Hour)
	m, n := start(t, f, []Group{{0, 20 * time.Second}})
	await(t, f, 1)
	if err := f.Break(); err != nil {
		t.Fatal(err)
	}
	await(t, f, 2)
	f.Announce(true)
	soon(t, "the first pod", n.asked)
	soon(t, "the other", n.asked)
	if !m.Active() {
		t.Error("not shutting down")
	}
}

func TestImpatient(t *testing.T) {
	f := newLogind(t, time.Second)
	l, err := connect(t.Context(), f.Dial)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.patience(t.Context(), 2*time.Hour, f.Dropins); err == nil || !strings.Contains(err.Error(), "InhibitDelayMaxSec is 1h0m0s, less than the 2h0m0s") {
		t.Error(err)
	}
}
