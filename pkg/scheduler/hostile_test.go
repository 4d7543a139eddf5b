package scheduler

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
)

// work decides until nothing more is ready, for pods in back-off too.
func work(t *testing.T, s *Scheduler) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if s.one(context.Background()) {
			continue
		}
		s.group.Wait()
		s.mu.Lock()
		left := s.queue.delay.Len() + s.queue.active.Len()
		s.mu.Unlock()
		if left == 0 {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
	t.Fatal("there is no end to it")
}

// quiet is a shell whose writes are answered without being kept, for many pods.
func quiet(t *testing.T) *Scheduler {
	s, client, _ := shell(t)
	s.recorder = &record.FakeRecorder{}
	client.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if c, ok := a.(clienttesting.CreateAction); ok {
			return true, c.GetObject(), nil
		}
		return true, aPod("any", "1", 0), nil
	})
	return s
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Thousands of pods that fit nowhere cost nothing while nothing happens, and next to nothing while nodes come, go and change that do not
// help them: none is tried again.
func TestPodsThatNothingHelps(t *testing.T) {
	s := quiet(t)
	for i := range 100 {
		s.nodeSeen(fmt.Sprint("n", i), aNode(fmt.Sprint("n", i), "4"))
	}
	const pods = 5000
	for i := range pods {
		p := aPod(fmt.Sprint("p", i), "64", 0)
		p.Labels = map[string]string{"job": p.Name}
		if i%10 == 0 { // some ask for what nobody else does
			p.Spec.Containers[0].Resources.Requests["memory"] = *resource.NewQuantity(int64(i+1)<<20, resource.BinarySI)
		}
		see(t, s, p)
	}
	work(t, s)
	decided := s.decided
	if parked := s.queue.sizes()["unschedulable"]; parked != pods || decided != pods {
		t.Fatalf("%d parked after %d decisions; want %d of each", parked, decided, pods)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.synced.Store(true)
	go func() {
		s.loop(ctx)
		close(done)
	}()
	began := processorTime()
	time.Sleep(300 * time.Millisecond)
	if took := processorTime() - began; took > 100*time.Millisecond {
		t.Errorf("idle, it took %v of the processor in 300ms", took)
	}
	began = processorTime()
	const flaps = 60
	for i := range flaps {
		n := aNode("n7", "4")
		n.Spec.Unschedulable = i%2 == 0
		s.locked(func(time.Time) { s.nodeSeen("n7", n) })
		other := fmt.Sprint("small", i)
		s.locked(func(time.Time) { s.nodeSeen(other, aNode(other, "2")) })
		s.locked(func(time.Time) { s.nodeSeen(other, nil) })
	}
	took := (processorTime() - began) / (3 * flaps)
	stop()
	<-done
	s.group.Wait()
	t.Logf("%v of the processor for each event", took)
	if took > 20*time.Millisecond {
		t.Errorf("each event took %v of the processor", took)
	}
	if s.decided != decided {
		t.Errorf("%d decisions for events that help nobody", s.decided-decided)
	}
}

// While a node that many wait for flaps, they are tried again and never bound twice; once it stays, it is full, and the others wait.
func TestANodeThatFlaps(t *testing.T) {
	s := quiet(t)
	room := func(off bool) {
		n := aNode("big", "50")
		n.Spec.Unschedulable = off
		s.locked(func(time.Time) { s.nodeSeen("big", n) })
	}
	room(true)
	const pods = 5000
	for i := range pods {
		see(t, s, aPod(fmt.Sprint("p", i), "1", int32(i%3)))
	}
	for i := range 20 {
		for range 200 {
			s.one(context.Background())
		}
		room(i%2 == 0)
	}
	room(false)
	work(t, s)
	_, standing := s.table.Len()
	if parked := s.queue.sizes()["unschedulable"]; standing != 50 || parked != pods-50 {
		t.Errorf("%d stand and %d wait; want 50 and %d", standing, parked, pods-50)
	}
}

// A node that a pod was nominated to vanishes: the pod takes the next that fits, and no room is kept on the one that is gone.
func TestANominatedNodeThatVanishes(t *testing.T) {
	s := quiet(t)
	s.nodeSeen("a", aNode("a", "2"))
	low := aPod("low", "2", 0)
	low.Spec.NodeName = "a"
	see(t, s, low)
	see(t, s, aPod("high", "2", 10))
	s.one(context.Background())
	s.group.Wait()
	if last := s.explained["default/high"]; last.Nominated != "a" {
		t.Fatalf("nominated %q: %s", last.Nominated, last.Message)
	}
	s.locked(func(time.Time) { s.nodeSeen("a", nil) })
	s.podGone("default/low")
	work(t, s)
	if p, _ := s.table.Pod("default/high"); p != nil {
		t.Fatal("it stands on a node that is gone")
	}
	s.locked(func(time.Time) { s.nodeSeen("b", aNode("b", "2")) })
	work(t, s)
	if _, node := s.table.Pod("default/high"); node != "b" {
		t.Fatalf("it stands on %q; want b", node)
	}
	// Under the old name, the node is as any.
	s.locked(func(time.Time) { s.nodeSeen("a", aNode("a", "2")) })
	see(t, s, aPod("next", "2", 0))
	work(t, s)
	if _, node := s.table.Pod("default/next"); node != "a" {
		t.Errorf("the next stands on %q; want a, where no room is kept", node)
	}
}

// Pods of fifty priorities storm a full cluster: it comes to rest, the most important stand, and nobody was evicted for one less important.
func TestAStormOfPriorities(t *testing.T) {
	const nodes, each, pods = 20, 4, 300
	s, client, _ := shell(t)
	s.recorder = &record.FakeRecorder{}
	gone := make(chan string, 10000)
	priority := map[string]int32{}
	client.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		switch a := a.(type) {
		case clienttesting.DeleteAction:
			gone <- a.GetName()
		case clienttesting.CreateAction:
			return true, a.GetObject(), nil
		}
		return true, aPod("any", "1", 0), nil
	})
	for n := range nodes {
		node := fmt.Sprint("n", n)
		s.nodeSeen(node, aNode(node, fmt.Sprint(each)))
		for j := range each {
			p := aPod(fmt.Sprintf("first-%d-%d", n, j), "1", 0)
			p.Spec.NodeName, p.Status.StartTime = node, nil
			priority[p.Name] = 0
			see(t, s, p)
		}
	}
	random := rand.New(rand.NewPCG(5, 5))
	for i := range pods {
		p := aPod(fmt.Sprint("p", i), "1", random.Int32N(50))
		priority[p.Name] = *p.Spec.Priority
		see(t, s, p)
		if i%3 == 0 {
			s.one(context.Background())
		}
	}
	evictions := 0
	for idle := 0; idle < 20; {
		idle++
		for s.one(context.Background()) {
			idle = 0
		}
		s.group.Wait()
		for len(gone) > 0 {
			s.podGone("default/" + <-gone)
			evictions, idle = evictions+1, 0
		}
		if evictions > 2*(nodes*each+pods) {
			t.Fatal("they evict each other for ever")
		}
		time.Sleep(time.Millisecond) // back-offs end
	}
	ranked := slices.Sorted(maps.Values(priority))
	slices.Reverse(ranked)
	var standing []int32
	for key := range s.table.Pods() {
		standing = append(standing, priority[key[len("default/"):]])
	}
	slices.Sort(standing)
	slices.Reverse(standing)
	if !slices.Equal(standing, ranked[:nodes*each]) {
		t.Errorf("after %d evictions there stand %v; want %v", evictions, standing, ranked[:nodes*each])
	}
}

// Gangs that never fill wait for members alone: no node tries them again.
func TestGangsThatNeverFill(t *testing.T) {
	s := quiet(t)
	s.nodeSeen("a", aNode("a", "64"))
	for g := range 100 {
		group := fmt.Sprint("g", g)
		s.gangs.known["default/"+group], s.gangs.minimum["default/"+group] = true, 3
		for i := range 2 {
			p := aPod(fmt.Sprint(group, "-", i), "1", 0)
			p.Spec.SchedulingGroup = &v1.PodSchedulingGroup{PodGroupName: &group}
			see(t, s, p)
		}
	}
	work(t, s)
	decided := s.queue.sizes()
	for i := range 50 {
		n := aNode("b", "64")
		n.Spec.Unschedulable = i%2 == 0
		s.locked(func(time.Time) { s.nodeSeen("b", n) })
		if s.one(context.Background()) {
			t.Fatal("a node tries a gang that lacks members")
		}
	}
	if now := s.queue.sizes(); !maps.Equal(now, decided) || now["unschedulable"] != 200 || len(s.assumed) != 0 {
		t.Errorf("%v, then %v; %d assumed", decided, now, len(s.assumed))
	}
}
