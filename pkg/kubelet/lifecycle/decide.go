package lifecycle

import (
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Verdict is what the probes say of one container instance.
type Verdict struct {
	Started, Ready bool
	// Kill is the event text when a liveness or startup probe gave up on it.
	Kill string
}

// Failure is a reason for which the node itself ends a pod (deadline, eviction, refused admission).
type Failure struct {
	Reason, Message string
	// Grace is what its containers are given, seconds; nil is the pod's own.
	Grace *int64
}

// graceOf is how long a pod which the node ends may take.
func (f Failure) graceOf(pod *v1.Pod) time.Duration {
	if f.Grace != nil {
		return time.Duration(*f.Grace) * time.Second
	}
	return grace(pod)
}

// Snapshot is everything one decision is made from.
type Snapshot struct {
	Pod      *v1.Pod
	Observed Observed
	Now      time.Time
	// Verdicts are by container ID.
	Verdicts map[string]Verdict
	// Backoff is, by container name, the pause which must lie between its last exit and its next start.
	Backoff map[string]time.Duration
	// Killing holds when each container ID now being stopped must be dead.
	Killing map[string]time.Time
	// Busy: an earlier start is still being carried out.
	Busy bool
	// Deadline is when a deleted pod must be gone; zero while it is wanted.
	Deadline time.Time
	Failure  *Failure
	// Over: the pod has been told to have ended; whatever the runtime still knows of it, it never starts again.
	Over bool
	// Retry is, by container name ("" is the sandbox), when a failed start may be tried again.
	Retry map[string]time.Time
	// Resize: container IDs which must be restarted to take their new size.
	Resize map[string]bool
	// TornDown: volumes and cgroup of an ended pod are gone.
	TornDown bool
	// Restarting is since when the pod's status tells that all its containers are being restarted; zero when it does not.
	Restarting time.Time
}

// Kill is one container to stop. Grace is in seconds.
type Kill struct {
	ID, Name        string
	Grace           int64
	Reason, Message string
}

// Plan is what to do next. Sandbox and Start are carried out in order by one goroutine, Kills each by their own.
type Plan struct {
	Sandbox bool
	Start   []string
	Kills   []Kill
	// Interrupt: the start under way is of no use any more.
	Interrupt bool
	// Remove are the containers the runtime is to forget, in this order.
	Remove []Container
	// Stop are sandboxes to stop.
	Stop []string
	// Teardown: nothing runs any more and nothing will; free volumes and cgroup.
	Teardown bool
	// Done: the pod has ended and its node's part is cleaned up.
	Done bool
	// Backoff: containers which wait for their crash-loop pause, and how long it is.
	Backoff map[string]time.Duration
	// Wake is when to decide again though nothing happened; zero is never.
	Wake time.Time
	// Why is the outcome in words.
	Why string
}

// String prints the plan as logs and golden tests show it.
func (p Plan) String() string {
	var out []string
	add := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	for _, k := range p.Kills {
		add("kill %s grace=%ds (%s)", k.Name, k.Grace, k.Message)
	}
	if p.Interrupt {
		add("give up the start")
	}
	for _, c := range p.Remove {
		add("forget %s", c.Name)
	}
	for _, s := range p.Stop {
		add("stop sandbox %s", s)
	}
	if p.Sandbox {
		add("create sandbox")
	}
	for _, s := range p.Start {
		add("start %s", s)
	}
	for _, name := range sortedKeys(p.Backoff) {
		add("back off %s %s", name, p.Backoff[name])
	}
	if p.Teardown {
		add("tear down")
	}
	if p.Done {
		add("done")
	}
	if !p.Wake.IsZero() {
		add("wake")
	}
	if len(out) == 0 {
		add("nothing")
	}
	if p.Why != "" {
		add("because %s", p.Why)
	}
	return strings.Join(out, "; ")
}

// decide is the pod's state machine: forward only, from what is wanted and what is there to what comes next.
func decide(s Snapshot) Plan {
	switch {
	case !s.Deadline.IsZero():
		return end(s, "the pod is deleted", s.Deadline)
	case s.Failure != nil:
		return end(s, s.Failure.Reason, s.Now.Add(s.Failure.graceOf(s.Pod)))
	case s.Over, finished(s):
		return end(s, "the pod has finished", s.Now.Add(grace(s.Pod)))
	}
	if restarting(s) {
		return again(s)
	}
	p := keep(s)
	if s.Busy {
		p.Sandbox, p.Start, p.Stop = false, nil, nil
	}
	return p
}

// end brings a pod to rest: kill what lives (sidecars last, in reverse order), stop the sandbox, tear down.
func end(s Snapshot, why string, deadline time.Time) Plan {
	p := Plan{Why: why}
	alive := s.Observed.alive()
	if len(alive) > 0 {
		left := int64(deadline.Sub(s.Now).Round(time.Second) / time.Second)
		for _, c := range dying(s, alive) {
			k := Kill{ID: c.ID, Name: c.Name, Grace: max(left, 1), Reason: "Killing", Message: "Stopping container " + c.Name}
			if at, ok := s.Killing[c.ID]; ok && !s.Now.Add(time.Duration(k.Grace)*time.Second).Before(at.Add(-2*time.Second)) {
				continue
			}
			p.Kills = append(p.Kills, k)
		}
		if s.Now.Before(deadline) {
			p.Wake = deadline
		}
		return p
	}
	if s.Busy {
		return p
	}
	for _, sb := range s.Observed.Sandboxes {
		if sb.Ready {
			p.Stop = append(p.Stop, sb.ID)
		}
	}
	switch {
	case len(p.Stop) > 0:
	case !s.TornDown:
		p.Teardown = true
	default:
		p.Done = true
	}
	return p
}

// dying is which of the living may be killed now: sidecars wait for the containers they serve, and for later sidecars.
func dying(s Snapshot, alive []Container) []Container {
	sidecar := map[string]int{}
	for i, c := range s.Pod.Spec.InitContainers {
		if isSidecar(c) {
			sidecar[c.Name] = i
		}
	}
	var mains []Container
	last, lastAt := Container{}, -1
	for _, c := range alive {
		if at, ok := sidecar[c.Name]; !ok {
			mains = append(mains, c)
		} else if at > lastAt {
			last, lastAt = c, at
		}
	}
	switch {
	case !s.Deadline.IsZero() && !s.Now.Before(s.Deadline):
		return alive
	case len(mains) > 0:
		return mains
	case lastAt >= 0:
		return []Container{last}
	}
	return nil
}

// finished tells whether a pod's work is over for good, by its restart policies.
func finished(s Snapshot) bool {
	if restarting(s) {
		return false
	}
	for _, c := range s.Pod.Spec.InitContainers {
		if isSidecar(c) {
			continue
		}
		if l := s.Observed.Latest(c.Name); l != nil && l.State == Exited && l.ExitCode != 0 && !restarts(s.Pod, &c, l.ExitCode) {
			return true
		}
	}
	for _, c := range s.Pod.Spec.Containers {
		l := s.Observed.Latest(c.Name)
		if l == nil || l.State != Exited || restarts(s.Pod, &c, l.ExitCode) {
			return false
		}
	}
	return len(s.Pod.Spec.Containers) > 0
}

// keep brings a wanted pod towards running.
func keep(s Snapshot) Plan {
	p := Plan{Backoff: map[string]time.Duration{}}
	sb := s.Observed.ready()
	if sb == nil {
		for _, c := range s.Observed.alive() {
			if _, ok := s.Killing[c.ID]; !ok {
				p.Kills = append(p.Kills, Kill{ID: c.ID, Name: c.Name, Grace: 2, Reason: "Killing", Message: "Stopping container " + c.Name})
			}
		}
		if len(p.Kills) > 0 || len(s.Observed.alive()) > 0 {
			p.Why = "the sandbox is gone"
			return p
		}
		if p.later(s, "") {
			return p
		}
		p.Sandbox = true
		if len(s.Observed.Sandboxes) > 0 {
			p.Why = "the sandbox is gone"
		}
		sb = &Sandbox{}
	}
	if p.inits(s, sb.ID) {
		for i := range s.Pod.Spec.Containers {
			p.container(s, sb.ID, &s.Pod.Spec.Containers[i])
		}
	}
	for _, c := range s.Pod.Spec.EphemeralContainers {
		if s.Observed.Latest(c.Name) == nil && !p.later(s, c.Name) {
			p.Start = append(p.Start, c.Name)
		}
	}
	return p
}

// inits walks the init containers in order and tells whether the main ones may start.
func (p *Plan) inits(s Snapshot, sandbox string) bool {
	begun := false
	for _, c := range s.Pod.Spec.Containers {
		begun = begun || s.Observed.in(c.Name, sandbox) != nil
	}
	for i := range s.Pod.Spec.InitContainers {
		c := &s.Pod.Spec.InitContainers[i]
		l := s.Observed.in(c.Name, sandbox)
		if isSidecar(*c) {
			p.container(s, sandbox, c)
			if !begun && (l == nil || l.State != Running || !s.Verdicts[l.ID].Started) {
				return false
			}
			continue
		}
		if begun || l != nil && l.State == Exited && l.ExitCode == 0 {
			continue
		}
		p.container(s, sandbox, c)
		return false
	}
	return true
}

// container decides for one container within the given sandbox.
func (p *Plan) container(s Snapshot, sandbox string, c *v1.Container) {
	l := s.Observed.in(c.Name, sandbox)
	switch {
	case l == nil, l.State == Created:
		// What ran in an earlier sandbox still decides whether the container is to run again.
		if old := s.Observed.Latest(c.Name); l == nil && old != nil && old.State == Exited && !isInit(s.Pod, c.Name) && !restarts(s.Pod, c, old.ExitCode) {
			return
		}
		if !p.later(s, c.Name) {
			p.Start = append(p.Start, c.Name)
		}
	case l.State == Running:
		if _, ok := s.Killing[l.ID]; ok {
			return
		}
		v := s.Verdicts[l.ID]
		switch {
		case v.Kill != "":
			p.Kills = append(p.Kills, Kill{ID: l.ID, Name: c.Name, Grace: probeGrace(s.Pod, c, v), Reason: "Killing", Message: v.Kill})
		case s.Resize[l.ID]:
			p.Kills = append(p.Kills, Kill{ID: l.ID, Name: c.Name, Grace: int64(grace(s.Pod) / time.Second), Reason: "Killing",
				Message: fmt.Sprintf("Container %s resize requires restart", c.Name)})
		case l.Hash != "" && l.Hash != Hash(c):
			p.Kills = append(p.Kills, Kill{ID: l.ID, Name: c.Name, Grace: int64(grace(s.Pod) / time.Second), Reason: "Killing",
				Message: fmt.Sprintf("Container %s definition changed, will be restarted", c.Name)})
		}
	case l.State == Unknown:
		// Its runtime died while it started. Nobody may live beside what it might be.
		if _, ok := s.Killing[l.ID]; !ok {
			p.Kills = append(p.Kills, Kill{ID: l.ID, Name: c.Name, Grace: min(2, int64(grace(s.Pod)/time.Second)), Reason: "Killing",
				Message: "Container is in unknown state, try killing it before starting it"})
		}
	case l.State == Exited:
		if !restarts(s.Pod, c, l.ExitCode) {
			return
		}
		if !p.pauses(s, l) && !p.later(s, c.Name) {
			p.Start = append(p.Start, c.Name)
		}
	}
}

// pauses tells whether a container that has exited must wait before it starts again, and plans the wake.
func (p *Plan) pauses(s Snapshot, l *Container) bool {
	pause := s.Backoff[l.Name]
	at := l.Finished.Add(pause)
	// An exit in the future tells that the clock went back; who waited for it might wait for hours.
	if pause == 0 || !s.Now.Before(at) || s.Now.Before(l.Finished) {
		return false
	}
	p.Backoff[l.Name] = pause
	p.wakeAt(at)
	return true
}

// later tells whether a failed start has to wait, and plans the wake.
func (p *Plan) later(s Snapshot, name string) bool {
	at := s.Retry[name]
	if !s.Now.Before(at) {
		return false
	}
	p.wakeAt(at)
	return true
}

func (p *Plan) wakeAt(t time.Time) {
	if p.Wake.IsZero() || t.Before(p.Wake) {
		p.Wake = t
	}
}

// restarts tells whether a container which exited with code is started again.
func restarts(pod *v1.Pod, c *v1.Container, code int32) bool {
	if matched(c, code) != "" {
		return true
	}
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = v1.RestartPolicy(*c.RestartPolicy)
	} else if isInit(pod, c.Name) && policy == v1.RestartPolicyAlways {
		policy = v1.RestartPolicyOnFailure
	}
	switch policy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

// nextBackoff is the pause after one more crash: 10 s doubling to the most, which is 5 min unless configured, forgotten after ten minutes of running well.
func nextBackoff(last, ran, most time.Duration) time.Duration {
	const first, well = 10 * time.Second, 10 * time.Minute
	if last == 0 || ran >= well {
		return min(first, most)
	}
	return min(2*last, most)
}

func probeGrace(pod *v1.Pod, c *v1.Container, v Verdict) int64 {
	p := c.LivenessProbe
	if strings.Contains(v.Kill, "startup") {
		p = c.StartupProbe
	}
	if p != nil && p.TerminationGracePeriodSeconds != nil {
		return *p.TerminationGracePeriodSeconds
	}
	return int64(grace(pod) / time.Second)
}

func grace(pod *v1.Pod) time.Duration {
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return time.Duration(*g) * time.Second
	}
	return 30 * time.Second
}

// deadline is when a deleted pod must be gone. It counts from when the node hears of it: the API's clock and the node's may
// differ by any amount, and neither may cost a pod its grace.
func deadline(pod *v1.Pod, now time.Time) time.Time {
	if g := pod.DeletionGracePeriodSeconds; g != nil {
		return now.Add(time.Duration(*g) * time.Second)
	}
	return pod.DeletionTimestamp.Time
}

func isSidecar(c v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

func isInit(pod *v1.Pod, name string) bool {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == name {
			return true
		}
	}
	return false
}
