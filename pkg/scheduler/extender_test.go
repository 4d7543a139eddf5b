package scheduler

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
)

// extended is a scheduler with three nodes, a pod, and an extender that answers so.
func extended(t *testing.T, change func(e *configv1.Extender), serve http.HandlerFunc) *Scheduler {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	s, client, _ := shell(t)
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		return true, a.(clienttesting.CreateAction).GetObject(), nil
	})
	config := configv1.Extender{URLPrefix: server.URL, FilterVerb: "filter", NodeCacheCapable: true, HTTPTimeout: metav1.Duration{Duration: 10 * time.Second}}
	if change != nil {
		change(&config)
	}
	var err error
	if s.extenders, err = newExtenders([]configv1.Extender{config}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		n := aNode(name, "4")
		if err := s.nodes.Add(n); err != nil {
			t.Fatal(err)
		}
		s.nodeSeen(name, n)
	}
	see(t, s, aPod("p", "1", 0))
	return s
}

func reply(t *testing.T, w http.ResponseWriter, o any) {
	if err := json.NewEncoder(w).Encode(o); err != nil {
		t.Error(err)
	}
}

func TestAnExtenderHasASay(t *testing.T) {
	s := extended(t, func(e *configv1.Extender) { e.PrioritizeVerb, e.Weight, e.NodeCacheCapable = "prioritize", 5, false }, func(w http.ResponseWriter, r *http.Request) {
		var args extenderv1.ExtenderArgs
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil || args.Pod.Name != "p" || len(args.Pod.Spec.Containers) != 1 {
			t.Errorf("asked with %v, %v", args.Pod, err)
		}
		switch r.URL.Path {
		case "/filter":
			out := extenderv1.ExtenderFilterResult{Nodes: args.Nodes, FailedNodes: extenderv1.FailedNodesMap{"a": "no"}}
			out.Nodes.Items = out.Nodes.Items[1:]
			reply(t, w, out)
		case "/prioritize":
			reply(t, w, extenderv1.HostPriorityList{{Host: "b", Score: 1}, {Host: "c", Score: 10}})
		}
	})
	s.one(context.Background())
	s.group.Wait()
	if p, node := s.table.Pod("default/p"); p == nil || node != "c" {
		t.Errorf("p stands on %q; the extender likes c best", node)
	}
}

func TestAnExtenderThatRefusesAll(t *testing.T) {
	s := extended(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		// It also names a node that it was not asked about: nothing is bound there.
		reply(t, w, extenderv1.ExtenderFilterResult{NodeNames: &[]string{"z"}, FailedNodes: extenderv1.FailedNodesMap{"a": "full", "b": "full", "c": "full"}})
	})
	s.one(context.Background())
	s.group.Wait()
	last := s.explained["default/p"]
	if p, _ := s.table.Pod("default/p"); p != nil || !strings.HasPrefix(last.Message, "0/3 nodes are available: 3 full.") {
		t.Errorf("placed %v, said %q", p, last.Message)
	}
}

func TestAnExtenderThatHangs(t *testing.T) {
	for _, ignorable := range []bool{false, true} {
		var asked atomic.Int32
		s := extended(t, func(e *configv1.Extender) { e.Ignorable, e.HTTPTimeout.Duration = ignorable, time.Second }, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // until then, a server does not see that its caller is gone
			asked.Add(1)
			<-r.Context().Done()
		})
		done := make(chan struct{})
		go func() {
			s.one(context.Background())
			close(done)
		}()
		for asked.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		s.nodeEvent(t) // the watches are not held up meanwhile
		<-done
		s.group.Wait()
		p, _ := s.table.Pod("default/p")
		if ignorable != (p != nil) {
			t.Errorf("ignorable %v: placed %v", ignorable, p != nil)
		}
		if !ignorable && s.queue.delay.Len() != 1 {
			t.Error("the pod is not in back-off")
		}
	}
}

// nodeEvent tells of a node while another goroutine may hold the lock for long.
func (s *Scheduler) nodeEvent(t *testing.T) {
	t.Helper()
	began := time.Now()
	s.locked(func(time.Time) { s.nodeSeen("d", aNode("d", "1")) })
	if took := time.Since(began); took > 800*time.Millisecond {
		t.Errorf("an event waited %v for the extender", took)
	}
}

// Of nodes is kept what the rules read; extenders are told of nodes whole.
func TestNodesAreKeptSlim(t *testing.T) {
	for _, c := range []struct {
		extenders []*extender
		address   int
	}{{nil, 0}, {[]*extender{{}}, 1}} {
		s, _, _ := shell(t)
		s.extenders = c.extenders
		n := aNode("a", "4")
		n.Spec.Taints = []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoSchedule}}
		n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "10.0.0.1"}}
		n.Status.Images = []v1.ContainerImage{{Names: []string{"x:1"}, SizeBytes: 1}}
		n.Status.DeclaredFeatures = []string{"F"}
		whole := n.DeepCopy()
		o, err := s.slim(n)
		got, ok := o.(*v1.Node)
		if err != nil || !ok || len(got.Status.Addresses) != c.address {
			t.Fatalf("%d extenders: %v, %v", len(c.extenders), o, err)
		}
		s.table.SetNode(whole)
		if s.table.SetNode(got) {
			t.Errorf("%d extenders: the rules read more than was kept: %v", len(c.extenders), got)
		}
	}
}
