package shutdown

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// critical is the priority from which on the system's own pods are.
const critical = 2000000000

// Group is how long pods get whose priority is at least the group's and below the next one's.
type Group struct {
	Priority int32
	Grace    time.Duration
}

// Groups are a configuration's, the lowest priority first; none when the node shuts down without waiting.
func Groups(c *kubeletv1beta1.KubeletConfiguration) ([]Group, error) {
	all, last := c.ShutdownGracePeriod.Duration, c.ShutdownGracePeriodCriticalPods.Duration
	by := c.ShutdownGracePeriodByPodPriority
	switch {
	case len(by) > 0 && (all != 0 || last != 0):
		return nil, errors.New("shutdownGracePeriodByPodPriority says for every priority what shutdownGracePeriod and shutdownGracePeriodCriticalPods say: give either")
	case all < 0 || last < 0 || all > 0 && all < time.Second || last > 0 && last < time.Second:
		return nil, fmt.Errorf("shutdownGracePeriod %s and shutdownGracePeriodCriticalPods %s: want 0, or 1s and more", all, last)
	case last > all:
		return nil, fmt.Errorf("shutdownGracePeriodCriticalPods %s is a part of shutdownGracePeriod %s and cannot be longer", last, all)
	case all > 0:
		return []Group{{0, all - last}, {critical, last}}, nil
	}
	var out []Group
	for _, g := range by {
		if g.ShutdownGracePeriodSeconds < 0 {
			return nil, fmt.Errorf("shutdownGracePeriodByPodPriority: %d seconds for priority %d are less than none", g.ShutdownGracePeriodSeconds, g.Priority)
		}
		out = append(out, Group{g.Priority, time.Duration(g.ShutdownGracePeriodSeconds) * time.Second})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Priority < out[j].Priority })
	for i := 1; i < len(out); i++ {
		if out[i].Priority == out[i-1].Priority {
			return nil, fmt.Errorf("shutdownGracePeriodByPodPriority: priority %d stands there twice", out[i].Priority)
		}
	}
	return out, nil
}

// total is how long all groups together may take.
func total(groups []Group) time.Duration {
	sum := time.Duration(0)
	for _, g := range groups {
		sum += g.Grace
	}
	return sum
}

// Stage is some pods which end at the same time, and how long is waited for them.
type Stage struct {
	Wait time.Duration
	Ends []End
}

// End is one pod to end, and its grace.
type End struct {
	Pod   *v1.Pod
	Grace time.Duration
}

// Plan is the order in which a node's pods end.
type Plan []Stage

// String prints the plan as logs and tests show it.
func (p Plan) String() string {
	var out []string
	for _, s := range p {
		var names []string
		for _, e := range s.Ends {
			names = append(names, fmt.Sprintf("%s/%s in %s", e.Pod.Namespace, e.Pod.Name, e.Grace))
		}
		out = append(out, fmt.Sprintf("within %s end %s", s.Wait, strings.Join(names, ", ")))
	}
	if len(out) == 0 {
		return "nothing to end"
	}
	return strings.Join(out, "; then ")
}

// decide puts the pods that still run in the order in which they end: the lowest priority first. A group without pods
// takes no time.
func decide(groups []Group, pods []*v1.Pod) Plan {
	stages := make([]Stage, len(groups))
	for _, p := range pods {
		if p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed || len(groups) == 0 {
			continue
		}
		priority := int32(0)
		if p.Spec.Priority != nil {
			priority = *p.Spec.Priority
		}
		// Who is below all groups ends with the first.
		at := max(0, sort.Search(len(groups), func(i int) bool { return groups[i].Priority > priority })-1)
		grace := groups[at].Grace
		if g := p.Spec.TerminationGracePeriodSeconds; g != nil {
			grace = min(grace, time.Duration(*g)*time.Second)
		}
		stages[at].Wait = groups[at].Grace
		stages[at].Ends = append(stages[at].Ends, End{p, grace})
	}
	var out Plan
	for _, s := range stages {
		if len(s.Ends) == 0 {
			continue
		}
		sort.Slice(s.Ends, func(i, j int) bool {
			a, b := s.Ends[i].Pod, s.Ends[j].Pod
			return a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name
		})
		out = append(out, s)
	}
	return out
}
