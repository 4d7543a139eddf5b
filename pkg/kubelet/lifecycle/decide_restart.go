package lifecycle

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// matched is the action of the first of a container's rules that holds for how it exited, empty when none does.
func matched(c *v1.Container, code int32) v1.ContainerRestartRuleAction {
	for _, r := range c.RestartPolicyRules {
		switch r.Action {
		case v1.ContainerRestartRuleActionRestart, v1.ContainerRestartRuleActionRestartAllContainers:
		default:
			continue
		}
		if r.ExitCodes != nil && slices.Contains(r.ExitCodes.Values, code) == (r.ExitCodes.Operator == v1.ContainerRestartRuleOnExitCodesOpIn) {
			return r.Action
		}
	}
	return ""
}

// ordinary are a pod's containers that a restart of all starts again, in the order in which they start.
func ordinary(pod *v1.Pod) []v1.Container {
	return slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
}

// mayRestartAll tells whether any container's end may restart all of the pod's.
func mayRestartAll(pod *v1.Pod) bool {
	has := func(c v1.Container) bool {
		return slices.ContainsFunc(c.RestartPolicyRules, func(r v1.ContainerRestartRule) bool {
			return r.Action == v1.ContainerRestartRuleActionRestartAllContainers
		})
	}
	return slices.ContainsFunc(pod.Spec.InitContainers, has) || slices.ContainsFunc(pod.Spec.Containers, has)
}

// culprit is the container whose end restarts all of the pod's: of those with such an end the first. nil when there is none.
func culprit(s Snapshot) *Container {
	var first *Container
	for _, c := range ordinary(s.Pod) {
		l := s.Observed.Latest(c.Name)
		if l == nil || l.State != Exited || matched(&c, l.ExitCode) != v1.ContainerRestartRuleActionRestartAllContainers {
			continue
		}
		if first == nil || l.Finished.Before(first.Finished) {
			first = l
		}
	}
	return first
}

// restartBegun is since when a status tells that all containers are being restarted; zero when it does not.
func restartBegun(st v1.PodStatus) time.Time {
	for _, c := range st.Conditions {
		if c.Type == v1.AllContainersRestarting && c.Status == v1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// restarting tells whether all containers are to be stopped and forgotten, so that the pod starts anew in its sandbox. The runtime
// is the memory of it: the culprit is forgotten last. A status that says so counts too, for another kubelet may have begun and
// left no culprit, unless something was made since: then that kubelet was through and could not say it any more.
func restarting(s Snapshot) bool {
	if !s.Deadline.IsZero() || s.Failure != nil || s.Over || !mayRestartAll(s.Pod) {
		return false
	}
	if culprit(s) != nil {
		return true
	}
	if s.Restarting.IsZero() {
		return false
	}
	left := false
	for _, c := range ordinary(s.Pod) {
		for _, k := range s.Observed.Containers[c.Name] {
			// The API keeps whole seconds.
			if k.Created.After(s.Restarting.Add(time.Second)) {
				return false
			}
			left = true
		}
	}
	return left
}

// again brings a pod whose containers are all to be restarted to where none of them is known any more. It asks for no order, no
// hook and no grace; debug containers are stopped too, and stay known, since they never start again.
func again(s Snapshot) Plan {
	p := Plan{Backoff: map[string]time.Duration{}, Why: "all containers are restarted", Interrupt: s.Busy}
	alive := s.Observed.alive()
	for _, c := range alive {
		if at, ok := s.Killing[c.ID]; !ok || at.After(s.Now) {
			p.Kills = append(p.Kills, Kill{ID: c.ID, Name: c.Name, Reason: "Killing", Message: "Stopping container " + c.Name})
		}
	}
	if len(alive) > 0 || s.Busy {
		return p
	}
	first := culprit(s)
	if first != nil && p.pauses(s, first) || p.later(s, "") {
		return p
	}
	var last []Container
	for _, c := range ordinary(s.Pod) {
		if first != nil && c.Name == first.Name {
			last = s.Observed.Containers[c.Name]
			continue
		}
		p.Remove = append(p.Remove, oldestFirst(s.Observed.Containers[c.Name])...)
	}
	p.Remove = append(p.Remove, oldestFirst(last)...)
	return p
}

func oldestFirst(cs []Container) []Container {
	cs = slices.Clone(cs)
	slices.Reverse(cs)
	return cs
}

// What a status says of a container that was made to start anew, as waiting and as how it ended last.
const (
	reasonAllRestarting  = "RestartingAllContainers"
	messageAllRestarting = "The container is removed because RestartAllContainers in place"
)

// anew is a status whose containers the node has forgotten on purpose. Those which had started count one more restart.
func anew(st v1.PodStatus, o Observed) v1.PodStatus {
	turn := func(list []v1.ContainerStatus) []v1.ContainerStatus {
		list = slices.Clone(list)
		for i := range list {
			cs := &list[i]
			if w := cs.State.Waiting; o.Latest(cs.Name) != nil || w != nil && w.Reason != reasonCrashLoop {
				continue
			}
			cs.RestartCount++
			cs.State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reasonAllRestarting, Message: messageAllRestarting}}
			cs.LastTerminationState = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: 137, Reason: reasonAllRestarting, Message: messageAllRestarting}}
		}
		return list
	}
	st.InitContainerStatuses, st.ContainerStatuses = turn(st.InitContainerStatuses), turn(st.ContainerStatuses)
	return st
}
