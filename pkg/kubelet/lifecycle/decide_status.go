package lifecycle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const reasonCrashLoop = "CrashLoopBackOff"

// View is what a status is made from, beside the snapshot.
type View struct {
	Snapshot
	// Waiting is, by container name, why it has not started.
	Waiting map[string]v1.ContainerStateWaiting
	Backoff map[string]string
	HostIPs []string
	Runtime string // its name; "" while that is not known
	// Messages are termination messages by container ID.
	Messages map[string]string
	// Sizes are, by container ID, what it has and what it is to have.
	Sizes map[string][2]sized
	// Size is what of the pod's own size, beside those of its containers, it has.
	Size v1.ResourceRequirements
	// Health is, by container name, how the devices it was given are.
	Health map[string][]v1.ResourceStatus
	// ResizePending and Resizing are why a change of size waits, and that it is being carried out; nil without one.
	ResizePending, Resizing *Failure
}

// podStatus is the pod's status as the API is to show it. old supplies what the node does not own, and transition times.
func podStatus(v View, old v1.PodStatus) v1.PodStatus {
	pod, now, all := v.Pod, metav1.NewTime(v.Now), restarting(v.Snapshot)
	if !all && !v.ending() && !restartBegun(old).IsZero() {
		old = anew(old, v.Observed)
	}
	st := v1.PodStatus{
		ObservedGeneration: pod.Generation, QOSClass: old.QOSClass, StartTime: old.StartTime, NominatedNodeName: old.NominatedNodeName,
		ResourceClaimStatuses: old.ResourceClaimStatuses, ExtendedResourceClaimStatus: old.ExtendedResourceClaimStatus,
	}
	if st.QOSClass == "" {
		st.QOSClass = QOS(pod)
	}
	if st.StartTime == nil {
		st.StartTime = &metav1.Time{Time: v.Now.Truncate(1e9)}
	}
	for _, ip := range v.HostIPs {
		st.HostIPs = append(st.HostIPs, v1.HostIP{IP: ip})
	}
	if len(v.HostIPs) > 0 {
		st.HostIP = v.HostIPs[0]
	}
	ips := podIPs(v)
	if len(ips) == 0 && len(old.PodIPs) > 0 && (v.ending() || terminal(old.Phase)) {
		for _, ip := range old.PodIPs {
			ips = append(ips, ip.IP)
		}
	}
	for _, ip := range ips {
		st.PodIPs = append(st.PodIPs, v1.PodIP{IP: ip})
	}
	if len(ips) > 0 {
		st.PodIP = ips[0]
	}

	initialized := true
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		cs := v.containerStatus(c, "PodInitializing", find(old.InitContainerStatuses, c.Name))
		if isSidecar(*c) {
			if cs.Started == nil || !*cs.Started {
				initialized = false
			}
		} else {
			cs.Ready = cs.State.Terminated != nil && cs.State.Terminated.ExitCode == 0
			initialized = initialized && cs.Ready
			if cs.Ready {
				no := false
				cs.Started = &no
			}
		}
		st.InitContainerStatuses = append(st.InitContainerStatuses, cs)
	}
	waiting := "ContainerCreating"
	if len(pod.Spec.InitContainers) > 0 {
		waiting = "PodInitializing"
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		st.ContainerStatuses = append(st.ContainerStatuses, v.containerStatus(c, waiting, find(old.ContainerStatuses, c.Name)))
		initialized = initialized || v.Observed.Latest(c.Name) != nil
	}
	if mayRestartAll(pod) {
		// Once initialized it stays so, though its init containers may run again.
		initialized = initialized || slices.ContainsFunc(old.Conditions, func(c v1.PodCondition) bool {
			return c.Type == v1.PodInitialized && c.Status == v1.ConditionTrue
		})
	}
	for i := range pod.Spec.EphemeralContainers {
		c := v1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		cs := v.containerStatus(&c, "ContainerCreating", find(old.EphemeralContainerStatuses, c.Name))
		cs.Ready, cs.Started = false, nil
		cs.Resources, cs.AllocatedResources = nil, nil
		st.EphemeralContainerStatuses = append(st.EphemeralContainerStatuses, cs)
	}
	st.Phase = phase(pod, st, v.ending() && len(v.Observed.alive()) == 0 && !v.Busy)
	if terminal(old.Phase) || old.Phase == v1.PodRunning && st.Phase == v1.PodPending {
		// Never back, whatever the runtime has lost.
		st.Phase = old.Phase
	}
	if all && terminal(st.Phase) {
		// What was killed for its sake has not failed the pod.
		if st.Phase = old.Phase; st.Phase == "" {
			st.Phase = v1.PodPending
		}
	}
	st.Reason, st.Message = old.Reason, old.Message
	if v.Failure != nil {
		st.Phase, st.Reason, st.Message = v1.PodFailed, v.Failure.Reason, v.Failure.Message
	}
	if terminal(st.Phase) && !terminal(old.Phase) && (len(v.Observed.alive()) > 0 || v.Busy) {
		// Terminal means that nothing of the pod runs any more: a Job may start its next pod on that word.
		st.Phase, st.Reason, st.Message = old.Phase, old.Reason, old.Message
		if st.Phase == "" {
			st.Phase = v1.PodPending
		}
	}
	conditions(v, &st, old, initialized, all, now)
	resizeConditions(v, &st, old, now)
	podSize(v, &st)
	return st
}

// ending tells whether the pod is on its way out.
func (v View) ending() bool {
	return !v.Deadline.IsZero() || v.Failure != nil || v.Over || finished(v.Snapshot)
}

func podIPs(v View) []string {
	if v.Pod.Spec.HostNetwork {
		if v.Observed.ready() == nil {
			return nil
		}
		return v.HostIPs
	}
	if sb := v.Observed.ready(); sb != nil {
		return sb.IPs
	}
	return nil
}

func terminal(p v1.PodPhase) bool { return p == v1.PodSucceeded || p == v1.PodFailed }

func find(cs []v1.ContainerStatus, name string) *v1.ContainerStatus {
	for i := range cs {
		if cs[i].Name == name {
			return &cs[i]
		}
	}
	return nil
}

// containerStatus shows one container; waiting is the reason while it has never started.
func (v View) containerStatus(c *v1.Container, waiting string, old *v1.ContainerStatus) v1.ContainerStatus {
	no := false
	cs := v1.ContainerStatus{Name: c.Name, Image: c.Image, Started: &no, AllocatedResources: c.Resources.Requests}
	if len(c.Resources.Limits) > 0 || len(c.Resources.Requests) > 0 {
		cs.Resources = &v1.ResourceRequirements{Limits: c.Resources.Limits, Requests: c.Resources.Requests}
	} else {
		cs.Resources = &v1.ResourceRequirements{}
	}
	cs.AllocatedResourcesStatus = v.Health[c.Name]
	for _, m := range c.VolumeMounts {
		ms := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := v1.RecursiveReadOnlyDisabled
			ms.RecursiveReadOnly = &mode
		}
		cs.VolumeMounts = append(cs.VolumeMounts, ms)
	}
	l := v.Observed.Latest(c.Name)
	if l == nil {
		switch {
		case old != nil && old.State.Terminated != nil:
			// The runtime has forgotten it (a reboot, a purge); what is known stays known.
			cs = *old.DeepCopy()
			cs.Started, cs.Ready = &no, false
			return cs
		case old != nil && old.State.Running != nil && v.ending():
			cs.RestartCount = old.RestartCount
			cs.State.Terminated = &v1.ContainerStateTerminated{ExitCode: 137, Reason: "ContainerStatusUnknown",
				Message: "The container could not be located when the pod was terminated"}
			return cs
		}
		if old != nil {
			cs.RestartCount, cs.LastTerminationState = old.RestartCount, old.LastTerminationState
		}
		cs.State.Waiting = &v1.ContainerStateWaiting{Reason: waiting}
		if w, ok := v.Waiting[c.Name]; ok {
			cs.State.Waiting = &w
		} else if old != nil && old.State.Waiting != nil && old.State.Waiting.Reason == reasonAllRestarting {
			cs.State.Waiting = old.State.Waiting
		}
		return cs
	}
	cs.ContainerID = v.runtimeID(l.ID)
	cs.ImageID = l.ImageID
	if l.Image != "" && !strings.HasPrefix(l.Image, "sha256:") {
		cs.Image = l.Image
	}
	cs.RestartCount = int32(l.Restarts)
	if u := l.User.GetLinux(); u != nil {
		cs.User = &v1.ContainerUser{Linux: &v1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}}
	}
	older := v.Observed.Containers[c.Name][1:]
	// What was made but never started (its kubelet died) has no end to tell of.
	if i := slices.IndexFunc(older, func(o Container) bool { return o.State == Exited }); i >= 0 {
		cs.LastTerminationState.Terminated = v.terminated(&older[i], old)
	} else if old != nil && (old.RestartCount == cs.RestartCount || old.State.Waiting != nil) {
		// Who waited to start had not ended again since.
		cs.LastTerminationState = old.LastTerminationState
	}
	switch l.State {
	case Running:
		cs.State.Running = &v1.ContainerStateRunning{StartedAt: metav1.NewTime(l.Started.Truncate(1e9))}
		verdict := v.Verdicts[l.ID]
		started := verdict.Started
		cs.Started, cs.Ready = &started, verdict.Started && verdict.Ready
		if z, ok := v.Sizes[l.ID]; ok {
			r := actual(*cs.Resources, z[0], z[1])
			cs.Resources = &r
		}
	case Exited:
		w, held := v.Waiting[c.Name]
		if d, ok := v.Backoff[c.Name]; ok && !held {
			w, held = v1.ContainerStateWaiting{Reason: reasonCrashLoop, Message: d}, true
		}
		if held && !v.ending() {
			cs.State.Waiting = &w
			cs.LastTerminationState.Terminated = v.terminated(l, old)
		} else {
			cs.State.Terminated = v.terminated(l, old)
		}
	default:
		cs.State.Waiting = &v1.ContainerStateWaiting{Reason: waiting}
		if w, ok := v.Waiting[c.Name]; ok {
			cs.State.Waiting = &w
		}
	}
	return cs
}

func (v View) runtimeID(id string) string { return cmp.Or(v.Runtime, "containerd") + "://" + id }

// terminated tells of a container's end; old is what was told of it before, nil for nothing.
func (v View) terminated(c *Container, old *v1.ContainerStatus) *v1.ContainerStateTerminated {
	t := &v1.ContainerStateTerminated{ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message, ContainerID: v.runtimeID(c.ID),
		StartedAt: metav1.NewTime(c.Started.Truncate(1e9)), FinishedAt: metav1.NewTime(c.Finished.Truncate(1e9))}
	if m := v.Messages[c.ID]; m != "" {
		t.Message = m
	}
	if t.Reason == "" {
		t.Reason = "Error"
		if c.ExitCode == 0 {
			t.Reason = "Completed"
		}
	}
	if old != nil {
		for _, was := range []*v1.ContainerStateTerminated{old.State.Terminated, old.LastTerminationState.Terminated} {
			if was != nil && was.ContainerID == t.ContainerID && was.Reason == reasonOOMKilled {
				t.Reason = reasonOOMKilled // a kubelet before this one saw it, which the runtime did not
			}
		}
	}
	return t
}

// phase is the pod's phase by its container statuses. over: nothing runs and nothing will.
func phase(pod *v1.Pod, st v1.PodStatus, over bool) v1.PodPhase {
	failedInit, pendingInit := 0, 0
	for i, c := range pod.Spec.InitContainers {
		cs := st.InitContainerStatuses[i]
		if isSidecar(c) {
			if (cs.Started == nil || !*cs.Started) && cs.State.Terminated == nil && cs.LastTerminationState.Terminated == nil {
				pendingInit++
			}
			continue
		}
		switch t := cs.State.Terminated; {
		case t != nil && t.ExitCode != 0 && !restarts(pod, &c, t.ExitCode):
			failedInit++
		case t == nil || t.ExitCode != 0:
			pendingInit++
		}
	}
	if failedInit > 0 {
		return v1.PodFailed
	}
	waiting, running, stopped, succeeded, again := 0, 0, 0, 0, false
	for i, c := range pod.Spec.Containers {
		switch s := st.ContainerStatuses[i]; {
		case s.State.Running != nil:
			running++
		case s.State.Terminated != nil:
			stopped++
			if s.State.Terminated.ExitCode == 0 {
				succeeded++
			}
			again = again || restarts(pod, &c, s.State.Terminated.ExitCode)
		case s.LastTerminationState.Terminated != nil:
			stopped++
			again = true
		default:
			waiting++
		}
	}
	if over {
		if stopped > 0 && stopped == succeeded && waiting == 0 {
			return v1.PodSucceeded
		}
		return v1.PodFailed
	}
	switch {
	case pendingInit > 0 && running == 0 && stopped == 0:
		return v1.PodPending
	case waiting > 0:
		return v1.PodPending
	case running > 0:
		return v1.PodRunning
	case again:
		return v1.PodRunning
	case stopped > 0 && stopped == succeeded:
		return v1.PodSucceeded
	case stopped > 0:
		return v1.PodFailed
	}
	return v1.PodPending
}

// conditions sets the node's own conditions and keeps everyone else's. all: all containers are being restarted.
func conditions(v View, st *v1.PodStatus, old v1.PodStatus, initialized, all bool, now metav1.Time) {
	own := []v1.PodConditionType{v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled, v1.PodResizePending, v1.PodResizeInProgress,
		v1.AllContainersRestarting}
	set := func(t v1.PodConditionType, ok bool, reason, message string) bool {
		c := v1.PodCondition{Type: t, Status: v1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: now, ObservedGeneration: v.Pod.Generation}
		if ok {
			c.Status = v1.ConditionTrue
		}
		for _, o := range old.Conditions {
			if o.Type == t {
				c.LastProbeTime = o.LastProbeTime
				if o.Status == c.Status {
					c.LastTransitionTime = o.LastTransitionTime
				}
				if t == v1.PodScheduled && o.Status == v1.ConditionTrue {
					c = o
					c.ObservedGeneration = v.Pod.Generation
				}
			}
		}
		st.Conditions = append(st.Conditions, c)
		return ok
	}
	done := func(otherwise string) string {
		switch st.Phase {
		case v1.PodSucceeded:
			return "PodCompleted"
		case v1.PodFailed:
			return "PodFailed"
		}
		return otherwise
	}
	sb := v.Observed.ready()
	set(v1.PodReadyToStartContainers, sb != nil && !terminal(st.Phase) && (len(sb.IPs) > 0 || v.Pod.Spec.HostNetwork), "", "")
	if initialized || st.Phase == v1.PodSucceeded {
		reason := ""
		if st.Phase == v1.PodSucceeded {
			reason = "PodCompleted"
		}
		set(v1.PodInitialized, true, reason, "")
	} else {
		var names []string
		for _, c := range st.InitContainerStatuses {
			if !c.Ready {
				names = append(names, c.Name)
			}
		}
		set(v1.PodInitialized, false, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: %v", names))
	}
	var unready []string
	for i, c := range v.Pod.Spec.InitContainers {
		if isSidecar(c) && !st.InitContainerStatuses[i].Ready {
			unready = append(unready, c.Name)
		}
	}
	for _, c := range st.ContainerStatuses {
		if !c.Ready {
			unready = append(unready, c.Name)
		}
	}
	ok := len(unready) == 0 && !terminal(st.Phase)
	reason, message := "", ""
	if !ok {
		reason, message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %v", unready)
		if terminal(st.Phase) {
			reason, message = done(reason), ""
		}
	}
	gates, gateMessage := true, []string(nil)
	for _, g := range v.Pod.Spec.ReadinessGates {
		state := "is missing"
		for _, c := range old.Conditions {
			if c.Type == g.ConditionType {
				state = fmt.Sprintf("status is %q, while True is expected", c.Status)
				if c.Status == v1.ConditionTrue {
					state = ""
				}
			}
		}
		switch state {
		case "":
		case "is missing":
			gates, gateMessage = false, append(gateMessage, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		default:
			gates, gateMessage = false, append(gateMessage, fmt.Sprintf("the status of pod readiness gate %q is not %q, but %s", g.ConditionType, "True", strings.Fields(strings.ReplaceAll(state, ",", ""))[2]))
		}
	}
	if ok && !gates {
		set(v1.PodReady, false, "ReadinessGatesNotReady", strings.Join(gateMessage, ", "))
	} else {
		set(v1.PodReady, ok, reason, message)
	}
	set(v1.ContainersReady, ok, reason, message)
	set(v1.PodScheduled, true, "", "")
	switch {
	case all:
		set(v1.AllContainersRestarting, true, "RestartAllContainersStarted", "container exited with restart policy rule")
	case mayRestartAll(v.Pod):
		set(v1.AllContainersRestarting, false, done(""), "")
	}
	if v.Failure != nil && (v.Failure.Reason == "Evicted" || v.Failure.Reason == "Terminated") {
		set(v1.DisruptionTarget, true, "TerminationByKubelet", v.Failure.Message)
		own = append(own, v1.DisruptionTarget)
	}
	for _, c := range old.Conditions {
		if !slices.Contains(own, c.Type) {
			st.Conditions = append(st.Conditions, c)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
