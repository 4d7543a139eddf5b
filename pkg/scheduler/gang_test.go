package scheduler

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

// A gang's pods are bound together, or none of them.
func TestAGang(t *testing.T) {
	s, client, _ := shell(t)
	bound := bindings(client)
	s.nodeSeen("a", aNode("a", "2"))
	join := func(i int) {
		p := aPod(fmt.Sprint("g", i), "1", 0)
		p.Spec.SchedulingGroup = &v1.PodSchedulingGroup{PodGroupName: new("train")}
		see(t, s, p)
	}
	run := func() {
		for range 50 {
			s.one(context.Background())
			s.group.Wait()
			time.Sleep(100 * time.Microsecond) // a back-off is a millisecond here
		}
	}
	join(1)
	run()
	if last := s.explained["default/g1"]; *bound != 0 || !strings.HasPrefix(last.Message, "waiting for minCount pods") {
		t.Fatalf("bound %d; %q", *bound, last.Message)
	}
	s.mu.Lock()
	s.gangs.known["default/train"], s.gangs.minimum["default/train"] = true, 3
	s.mu.Unlock()
	join(2)
	run()
	join(3)
	run()
	if last := s.explained["default/g1"]; *bound != 0 || !strings.HasPrefix(last.Message, "2 of the gang's pods fit, 3 must at once.") {
		t.Fatalf("bound %d; %q", *bound, last.Message)
	}
	if _, pods := s.table.Len(); pods != 0 || len(s.assumed) != 0 {
		t.Fatalf("%d pods of an undone gang stand, %d assumed", pods, len(s.assumed))
	}
	s.locked(func(time.Time) { s.nodeSeen("b", aNode("b", "2")) })
	run()
	if _, pods := s.table.Len(); *bound != 3 || pods != 3 {
		t.Errorf("bound %d, %d stand; want 3", *bound, pods)
	}
	// Once it stands, another member is as any pod.
	join(4)
	run()
	if *bound != 4 {
		t.Errorf("bound %d; want 4", *bound)
	}
}

// A gang with a topology constraint stands in one domain: the first that has room for all, and later members go there too.
func TestAGangInOneDomain(t *testing.T) {
	s, client, _ := shell(t)
	bound := bindings(client)
	for name, rack := range map[string]string{"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b"} {
		cpu := "1"
		if rack == "b" {
			cpu = "2"
		}
		n := aNode(name, cpu)
		n.Labels = map[string]string{"rack": rack}
		s.nodeSeen(name, n)
	}
	s.nodeSeen("c", aNode("c", "64")) // in no rack
	s.gangs.known["default/train"], s.gangs.minimum["default/train"], s.gangs.within["default/train"] = true, 4, "rack"
	join := func(i int) {
		p := aPod(fmt.Sprint("g", i), "1", 0)
		p.Spec.SchedulingGroup = &v1.PodSchedulingGroup{PodGroupName: new("train")}
		see(t, s, p)
	}
	run := func() {
		for range 20 {
			s.one(context.Background())
			s.group.Wait()
			time.Sleep(100 * time.Microsecond)
		}
	}
	for i := range 4 {
		join(i)
	}
	run()
	for i := range 4 {
		if _, node := s.table.Pod(fmt.Sprint("default/g", i)); !strings.HasPrefix(node, "b") {
			t.Errorf("g%d stands on %q; only rack b holds four", i, node)
		}
	}
	// Rack b is full now: a fifth waits, though there is room elsewhere.
	join(4)
	run()
	if last := s.explained["default/g4"]; *bound != 4 || !strings.Contains(last.Message, "outside the pod group's topology domain") {
		t.Errorf("bound %d; %q", *bound, last.Message)
	}
}
