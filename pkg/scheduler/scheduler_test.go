package scheduler

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// shell is a scheduler on a fake API, with nothing running but what the test calls.
func shell(t *testing.T) (*Scheduler, *fake.Clientset, *record.FakeRecorder) {
	t.Helper()
	client, events := fake.NewClientset(), record.NewFakeRecorder(100)
	c := &Config{profiles: map[string]*rules.Profile{v1.DefaultSchedulerName: rules.DefaultProfile(v1.DefaultSchedulerName)},
		initialBackoff: time.Millisecond, maxBackoff: time.Millisecond, MaxParked: time.Minute, Seed: 1}
	s := newScheduler(c)
	s.core, s.resource, s.recorder = client.CoreV1(), client.ResourceV1(), events
	s.nodes = cache.NewStore(cache.MetaNamespaceKeyFunc)
	return s, client, events
}

func aNode(name, cpu string) *v1.Node {
	n := &v1.Node{}
	n.Name = name
	n.Status.Allocatable = v1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}
	return n
}

func aPod(name, cpu string, priority int32) *v1.Pod {
	p := &v1.Pod{}
	p.Namespace, p.Name, p.UID = "default", name, types.UID("uid-"+name)
	p.Spec.SchedulerName, p.Spec.Priority = v1.DefaultSchedulerName, &priority
	p.Spec.Containers = []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{"cpu": resource.MustParse(cpu)}}}}
	return p
}

// see has the scheduler see a pod as its watch would.
func see(t *testing.T, s *Scheduler, p *v1.Pod) {
	t.Helper()
	if err := (&podStore{s}).Add(p.DeepCopy()); err != nil {
		t.Fatal(err)
	}
}

func TestAFailedBindIsUndone(t *testing.T) {
	s, client, _ := shell(t)
	var mu sync.Mutex
	fail, bound := true, map[string]string{}
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		if fail {
			return true, nil, errors.New("no")
		}
		b := a.(clienttesting.CreateAction).GetObject().(*v1.Binding)
		bound[b.Name] = b.Target.Name
		return true, b, nil
	})
	s.nodeSeen("a", aNode("a", "1"))
	see(t, s, aPod("p", "1", 0))
	one := func() {
		t.Helper()
		for range 100 {
			if s.one(context.Background()) {
				s.group.Wait()
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatal("no pod came out of the queue")
	}
	one()
	if _, pods := s.table.Len(); pods != 0 || len(s.assumed) != 0 {
		t.Fatalf("after a failed bind %d pods stand, %d assumed; want none", pods, len(s.assumed))
	}
	mu.Lock()
	fail = false
	mu.Unlock()
	one()
	if bound["p"] != "a" || len(s.assumed) != 1 {
		t.Fatalf("bound %v, assumed %v; want p on a", bound, s.assumed)
	}
	// An old form of the pod, without its node, must not bring it back into the queue.
	see(t, s, aPod("p", "1", 0))
	if s.one(context.Background()) {
		t.Error("a pod that has its node was decided again")
	}
	there := aPod("p", "1", 0)
	there.Spec.NodeName = "a"
	see(t, s, there)
	if nodes, pods := s.table.Len(); nodes != 1 || pods != 1 || len(s.assumed) != 0 {
		t.Errorf("%d nodes, %d pods, %d assumed; want 1, 1, 0", nodes, pods, len(s.assumed))
	}
}

func TestARefusedPodIsToldWhyAndVictimsGo(t *testing.T) {
	s, client, events := shell(t)
	low := aPod("low", "1", 0)
	low.Spec.NodeName = "a"
	high := aPod("high", "1", 10)
	for _, p := range []*v1.Pod{low, high} {
		if err := client.Tracker().Add(p); err != nil {
			t.Fatal(err)
		}
	}
	s.nodeSeen("a", aNode("a", "1"))
	see(t, s, low)
	see(t, s, high)
	if !s.one(context.Background()) {
		t.Fatal("nothing was decided")
	}
	s.group.Wait()
	if got := <-events.Events; got != "Warning FailedScheduling 0/1 nodes are available: 1 Insufficient cpu." {
		t.Errorf("event %q", got)
	}
	deleted, patched := 0, 0
	for _, a := range client.Actions() {
		switch {
		case a.Matches("delete", "pods") && a.(clienttesting.DeleteAction).GetName() == "low":
			deleted++
		case a.GetVerb() == "patch" && a.GetSubresource() == "status" && a.(clienttesting.PatchAction).GetName() == "high":
			patched++
		}
	}
	if deleted != 1 || patched != 1 {
		t.Errorf("low deleted %d times, high told %d times; want once each: %v", deleted, patched, client.Actions())
	}
	// The room stays kept for high, though another asks first.
	s.podGone("default/low")
	see(t, s, aPod("sneak", "1", 0))
	for range 50 {
		s.one(context.Background())
		time.Sleep(time.Millisecond)
	}
	s.group.Wait()
	if node, ok := s.assumed["default/high"]; !ok || node == "" || len(s.assumed) != 1 {
		t.Errorf("assumed %v; want high alone", s.assumed)
	}
}

// A list after a lost watch is the whole truth: what is not in it is gone.
func TestARelist(t *testing.T) {
	s, _, _ := shell(t)
	s.nodeSeen("a", aNode("a", "4"))
	there, waits := aPod("there", "1", 0), aPod("waits", "1", 0)
	there.Spec.NodeName = "a"
	see(t, s, there)
	see(t, s, waits)
	store := &podStore{s}
	late := aPod("late", "1", 0)
	if err := store.Replace([]any{late}, "7"); err != nil {
		t.Fatal(err)
	}
	if _, pods := s.table.Len(); pods != 0 || s.queue.find("default/waits") != nil || s.queue.find("default/late") == nil || !s.podsListed.Load() {
		t.Errorf("%d pods stand, the queue knows %v", pods, s.queue.all)
	}
}
