package realtest

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestResize(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	res := func(cpu, mem string) string {
		return fmt.Sprintf(`{"limits":{"cpu":%q,"memory":%q},"requests":{"cpu":%q,"memory":%q}}`, cpu, mem, cpu, mem)
	}
	s.create("p", `
containers:
- {name: c1, command: [sleep, "600"], resources: `+res("20m", "32Mi")+`}
- {name: c2, command: [sleep, "600"], resources: `+res("40m", "64Mi")+`}
- {name: c3, command: [sleep, "600"], resources: `+res("60m", "64Mi")+`, resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]}
`)
	before := s.ready("p")
	change := func(sizes ...string) {
		t.Helper()
		var parts []string
		for i := 0; i < len(sizes); i += 2 {
			parts = append(parts, fmt.Sprintf(`{"name":"c%d","resources":%s}`, i/2+1, res(sizes[i], sizes[i+1])))
		}
		s.patch("p", `{"spec":{"containers":[`+strings.Join(parts, ",")+`]}}`, "resize")
	}
	done := func(p *v1.Pod) bool {
		for _, c := range p.Spec.Containers {
			cs := container(p, c.Name)
			if cs.Resources == nil || cs.State.Running == nil || !cs.Ready {
				return false
			}
			for _, n := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
				if want, got, alloc := c.Resources.Limits[n], cs.Resources.Limits[n], cs.AllocatedResources[n]; want.Cmp(got) != 0 || want.Cmp(alloc) != 0 {
					return false
				}
			}
		}
		return condition(p, v1.PodResizePending) == "" && condition(p, v1.PodResizeInProgress) == "" && p.Status.ObservedGeneration == p.Generation
	}
	check := func(p *v1.Pod, quota, memory string, each ...string) {
		t.Helper()
		if q, m := node.cgroup(t, p, "cpu.cfs_quota_us", ""), node.cgroup(t, p, "memory.limit_in_bytes", ""); q != quota || m != memory {
			t.Errorf("the pod has quota %s and memory %s, want %s and %s", q, m, quota, memory)
		}
		for i := 0; i < len(each); i += 2 {
			c := fmt.Sprintf("c%d", i/2+1)
			if q, m := node.cgroup(t, p, "cpu.cfs_quota_us", c), node.cgroup(t, p, "memory.limit_in_bytes", c); q != each[i] || m != each[i+1] {
				t.Errorf("%s has quota %s and memory %s, want %s and %s", c, q, m, each[i], each[i+1])
			}
		}
	}
	change("40m", "64Mi", "80m", "96Mi", "30m", "64Mi")
	p := s.until("p", "resized", done)
	check(p, "15000", "234881024", "4000", "67108864", "8000", "100663296", "3000", "67108864")
	for _, c := range []string{"c1", "c2", "c3"} {
		if a, b := container(before, c), container(p, c); a.ContainerID != b.ContainerID || b.RestartCount != 0 {
			t.Errorf("%s was restarted", c)
		}
	}
	s.event("p", `ResizeCompleted: Pod resize completed: {"containers":[`)
	change("20m", "32Mi", "80m", "96Mi", "60m", "96Mi")
	p = s.until("p", "resized again", done)
	check(p, "16000", "234881024", "2000", "33554432", "8000", "100663296", "6000", "100663296")
	if container(p, "c1").RestartCount != 0 || container(p, "c3").RestartCount != 1 {
		t.Error("only c3 wants a restart for its memory:", p.Status.ContainerStatuses)
	}
	// What no node could give waits, and what ran runs on.
	change("1000", "32Mi", "80m", "96Mi", "60m", "96Mi")
	p = s.until("p", "told that it cannot grow", func(p *v1.Pod) bool { return condition(p, v1.PodResizePending) == v1.ConditionTrue })
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodResizePending && (c.Reason != v1.PodReasonInfeasible || !strings.HasPrefix(c.Message, "Node didn't have enough capacity: cpu, requested: 1000140, capacity: ")) {
			t.Error(c)
		}
	}
	if got := container(p, "c1"); got.AllocatedResources.Cpu().String() != "20m" {
		t.Error("granted without room:", got.AllocatedResources)
	}
	change("20m", "40Mi", "80m", "96Mi", "60m", "96Mi")
	p = s.until("p", "resized a third time", done)
	check(p, "16000", "243269632", "2000", "41943040")
}

// TestPodLevelResources changes a pod's own size: its cgroup and those of the containers without a limit follow, its status tells, and
// what was not granted is remembered by the next kubelet. It runs alone, since it takes the kubelet away.
func TestPodLevelResources(t *testing.T) {
	s := newSpace(t)
	s.create("p", `{resources: {limits: {cpu: 100m, memory: 64Mi}}, containers: [
{name: bare, command: [sleep, "600"]},
{name: own, command: [sleep, "600"], resources: {requests: {cpu: 10m, memory: 8Mi}, limits: {cpu: 20m, memory: 16Mi}}},
{name: again, command: [sleep, "600"], resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]}]}`)
	p := s.ready("p")
	own := func(cpu, mem, request string) func(*v1.Pod) bool {
		return func(p *v1.Pod) bool {
			r := p.Status.Resources
			return r != nil && r.Limits.Cpu().String() == cpu && r.Limits.Memory().String() == mem && r.Requests.Cpu().String() == request && p.Status.AllocatedResources.Cpu().String() == request
		}
	}
	check := func(p *v1.Pod, is func(*v1.Pod) bool, quota, memory string, restarts int32) {
		t.Helper()
		if !is(p) {
			t.Errorf("status: %+v of %v", p.Status.Resources, p.Status.AllocatedResources)
		}
		for c, want := range map[string][2]string{"": {quota, memory}, "bare": {quota, memory}, "own": {"2000", "16777216"}, "again": {quota, memory}} {
			if q, m := node.cgroup(t, p, "cpu.cfs_quota_us", c), node.cgroup(t, p, "memory.limit_in_bytes", c); q != want[0] || m != want[1] {
				t.Errorf("%q has quota %s and memory %s, want %v", c, q, m, want)
			}
		}
		for c, want := range map[string]int32{"bare": 0, "own": 0, "again": restarts} {
			if got := container(p, c); got.RestartCount != want {
				t.Errorf("%s was restarted %d times, want %d", c, got.RestartCount, want)
			}
			if r := container(p, c).Resources; c == "bare" && r != nil && len(r.Limits)+len(r.Requests) > 0 {
				t.Errorf("%s has none of its own: %+v", c, r)
			}
		}
	}
	check(p, own("100m", "64Mi", "10m"), "10000", "67108864", 0)
	done := func(is func(*v1.Pod) bool) func(*v1.Pod) bool {
		return func(p *v1.Pod) bool {
			return is(p) && condition(p, v1.PodResizePending) == "" && condition(p, v1.PodResizeInProgress) == "" && condition(p, v1.PodReady) == v1.ConditionTrue &&
				p.Status.ObservedGeneration == p.Generation
		}
	}
	change := func(cpu, mem, request string) {
		t.Helper()
		s.patch("p", fmt.Sprintf(`{"spec":{"resources":{"requests":{"cpu":%q},"limits":{"cpu":%q,"memory":%q}}}}`, request, cpu, mem), "resize")
	}
	change("200m", "64Mi", "20m")
	check(s.until("p", "larger", done(own("200m", "64Mi", "20m"))), own("200m", "64Mi", "20m"), "20000", "67108864", 0)
	change("50m", "48Mi", "20m")
	check(s.until("p", "smaller", done(own("50m", "48Mi", "20m"))), own("50m", "48Mi", "20m"), "5000", "50331648", 1)
	// What no node could give waits, also for the next kubelet.
	change("1000", "48Mi", "1000")
	pending := func(p *v1.Pod) bool {
		return condition(p, v1.PodResizePending) == v1.ConditionTrue && p.Status.ObservedGeneration == p.Generation
	}
	check(s.until("p", "told that it cannot grow", pending), own("50m", "48Mi", "20m"), "5000", "50331648", 1)
	restart(t, false, nil)
	s.create("later", `{restartPolicy: Never, containers: [{name: c, command: ["true"]}]}`)
	s.ended("later", v1.PodSucceeded)
	check(s.until("p", "still told so", pending), own("50m", "48Mi", "20m"), "5000", "50331648", 1)
	change("60m", "48Mi", "30m")
	check(s.until("p", "as large as it can be", done(own("60m", "48Mi", "30m"))), own("60m", "48Mi", "30m"), "6000", "50331648", 1)
}
