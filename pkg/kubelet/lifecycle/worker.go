package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// worker is one pod's goroutine and what it remembers.
type worker struct {
	m   *Manager
	log *slog.Logger
	uid string
	// wake holds at most one pending look.
	wake chan struct{}

	mu sync.Mutex
	// source is the pod as its source has it; pod is the same with the sizes the node has granted.
	source   *v1.Pod
	pod      *v1.Pod
	granted  Allotment
	pending  *Failure
	progress *Failure
	resizing bool
	applied  map[string]sized
	restart  map[string]bool
	status   v1.PodStatus
	dirty    bool
	gone     bool
	deadline time.Time
	failure  *Failure
	admitted bool
	observed Observed
	seen     map[string]Container
	verdicts map[string]Verdict
	killing  map[string]time.Time
	backoff  map[string]time.Duration
	retry    map[string]time.Time
	tries    map[string]int
	waiting  map[string]v1.ContainerStateWaiting
	pausing  map[string]string
	messages map[string]string
	busy     bool
	// ended and noticed count start jobs: those that ended, and those after which the runtime was asked again.
	ended, noticed int
	// stopped are containers whose kill has ended since the runtime was last asked.
	stopped []string
	cancel  context.CancelFunc
	torn    bool
	probes  map[string]context.CancelFunc
	refresh time.Time
	plan    string
	times   times
}

func newWorker(m *Manager, pod *v1.Pod) *worker {
	w := &worker{
		m: m, uid: string(pod.UID), log: m.cfg.Log.With("pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID), wake: make(chan struct{}, 1),
		source: pod, granted: granted(pod), applied: map[string]sized{}, status: pod.Status, dirty: true, seen: map[string]Container{}, verdicts: map[string]Verdict{}, killing: map[string]time.Time{},
		backoff: map[string]time.Duration{}, retry: map[string]time.Time{}, tries: map[string]int{}, waiting: map[string]v1.ContainerStateWaiting{},
		messages: map[string]string{}, probes: map[string]context.CancelFunc{}, refresh: now(),
		times: times{arrived: now(), fresh: pod.Status.Phase != v1.PodRunning && !terminal(pod.Status.Phase)},
	}
	w.pod = allotted(pod, w.granted)
	return w
}

func (w *worker) update(pod *v1.Pod) {
	w.mu.Lock()
	w.source, w.pod = pod, allotted(pod, w.granted)
	if pod.DeletionTimestamp != nil {
		if t := deadline(pod, now()); w.deadline.IsZero() || t.Before(w.deadline) {
			w.setDeadlineLocked(t)
		}
	}
	w.mu.Unlock()
	w.poke(false)
}

// remove ends a pod which its source no longer has; last is how the source had it when it went, nil when that is unknown.
func (w *worker) remove(last *v1.Pod) {
	w.mu.Lock()
	w.gone = true
	left := grace(w.pod)
	if last != nil && last.DeletionGracePeriodSeconds != nil {
		left = time.Duration(*last.DeletionGracePeriodSeconds) * time.Second
	}
	if t := now().Add(left); w.deadline.IsZero() || last != nil && last.DeletionGracePeriodSeconds != nil && t.Before(w.deadline) {
		w.setDeadlineLocked(t)
	}
	w.mu.Unlock()
	w.poke(false)
}

func (w *worker) setDeadlineLocked(t time.Time) {
	w.deadline = t
	if w.cancel != nil {
		w.cancel()
	}
}

func (w *worker) fail(f Failure) {
	w.mu.Lock()
	if w.failure == nil {
		w.failure = &f
		if w.cancel != nil {
			w.cancel()
		}
	}
	w.mu.Unlock()
	w.poke(false)
}

// poke asks for another step; dirty when the runtime may have changed.
func (w *worker) poke(dirty bool) {
	w.mu.Lock()
	w.dirty = w.dirty || dirty
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// removed tells that the pod's source no longer has it, so that nobody counts on what it still holds.
func (w *worker) removed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone
}

func (w *worker) current() *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := *w.pod
	p.Status = w.status
	return &p
}

func (w *worker) waitingAgain(name string) bool {
	_, a := w.waiting[name]
	_, b := w.pausing[name]
	return a || b
}

func (w *worker) run(ctx context.Context) {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		begun := now()
		next, done := w.step(ctx, &jobs)
		w.stepped(begun)
		if done {
			w.m.forget(w.uid)
			w.stopProbes(nil)
			return
		}
		d := time.Hour
		if !next.IsZero() {
			d = max(time.Until(next), time.Millisecond)
		}
		timer.Reset(d)
	}
}

// step is gather -> decide -> apply -> publish. It returns when to look again and whether the pod is no more.
func (w *worker) step(ctx context.Context, jobs *sync.WaitGroup) (time.Time, bool) {
	w.mu.Lock()
	look, seen, ended, stopped := w.dirty, w.seen, w.ended, w.stopped
	w.dirty, w.stopped = false, nil
	w.mu.Unlock()
	if look {
		begun := now()
		o, err := observe(ctx, w.m.cfg.CRI, w.uid, seen)
		w.m.cfg.Metrics.Looked(now().Sub(begun))
		if err != nil {
			w.log.Debug("asking the runtime", "err", err)
			w.mu.Lock()
			w.dirty, w.stopped = true, append(w.stopped, stopped...)
			w.mu.Unlock()
			return now().Add(time.Second), false
		}
		w.absorb(o, ended, stopped)
	}
	again := w.grant()
	if d := w.resize(ctx); !d.IsZero() && (again.IsZero() || d.Before(again)) {
		again = d
	}
	w.mu.Lock()
	s := w.snapshotLocked()
	w.mu.Unlock()
	if f := w.refuse(s); f != nil {
		w.fail(*f)
		s.Failure = f
	}
	p := decide(s)
	if !again.IsZero() {
		p.wakeAt(again)
	}
	if d := w.expire(s); !d.IsZero() && (p.Wake.IsZero() || d.Before(p.Wake)) {
		p.Wake = d
	}
	if text := p.String(); text != w.plan {
		w.plan = text
		w.log.Debug("step", "plan", text)
	}
	w.probe(ctx, s, jobs)
	for _, k := range p.Kills {
		w.startKill(ctx, jobs, k, s.Pod)
	}
	if p.Sandbox || len(p.Start) > 0 {
		w.startJob(ctx, jobs, p)
	}
	for _, id := range p.Stop {
		w.stopSandbox(ctx, id)
	}
	if p.Teardown {
		p.Wake = w.teardown(ctx, s.Pod)
	}
	w.publish(s, p)
	if p.Done && !s.Deadline.IsZero() {
		return w.purge(ctx, s.Pod)
	}
	if d := w.refreshVolumes(ctx, s); !d.IsZero() && (p.Wake.IsZero() || d.Before(p.Wake)) {
		p.Wake = d
	}
	return p.Wake, false
}

func (w *worker) snapshotLocked() Snapshot {
	s := Snapshot{Pod: w.pod, Observed: w.observed, Now: now(), Verdicts: map[string]Verdict{}, Backoff: map[string]time.Duration{},
		Killing: map[string]time.Time{}, Busy: w.busyLocked(), Deadline: w.deadline, Failure: w.failure, Over: terminal(w.status.Phase), Retry: map[string]time.Time{}, TornDown: w.torn, Resize: map[string]bool{}}
	for k, v := range w.restart {
		s.Resize[k] = v
	}
	for k, v := range w.verdicts {
		s.Verdicts[k] = v
	}
	for k, v := range w.backoff {
		s.Backoff[k] = v
	}
	for k, v := range w.killing {
		s.Killing[k] = v
	}
	for k, v := range w.retry {
		s.Retry[k] = v
	}
	return s
}

// busyLocked tells that a start is under way, or has ended and nobody has looked yet at what came of it.
func (w *worker) busyLocked() bool { return w.busy || w.ended != w.noticed }

// absorb takes in what the runtime said: new exits get their termination message, new runs their first verdict. ended and
// stopped are the jobs and kills which had ended when it was asked.
func (w *worker) absorb(o Observed, ended int, stopped []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noticed = ended
	for _, id := range stopped {
		// A stop which failed is tried again.
		delete(w.killing, id)
	}
	w.observed, w.seen = o, map[string]Container{}
	for _, cs := range o.Containers {
		for _, c := range cs {
			w.seen[c.ID] = c
			if _, ok := w.verdicts[c.ID]; !ok && c.State == Running {
				w.verdicts[c.ID] = firstVerdict(w.pod, specOf(w.pod, c.Name))
			}
			if _, ok := w.messages[c.ID]; !ok && c.State == Exited {
				w.messages[c.ID] = w.message(c)
				w.died(c)
				delete(w.killing, c.ID)
			}
		}
	}
}

// message is a container's last word: from its message file, or its log when that is asked for.
func (w *worker) message(c Container) string {
	path := w.messageFile(c.Name, c.Restarts)
	if m := readEnd(path, 4096); m != "" {
		return m
	}
	if c.MessagePolicy == string(v1.TerminationMessageFallbackToLogsOnError) && c.ExitCode != 0 {
		return logTail(c.LogPath, 80, 2048)
	}
	return ""
}

func (w *worker) messageFile(name string, restarts int) string {
	return filepath.Join(w.m.cfg.Volumes.PodDir(w.uid), "containers", name, fmt.Sprintf("%d", restarts))
}

// refuse is why the pod may not run here (any more): the node refuses it, or its deadline has passed.
func (w *worker) refuse(s Snapshot) *Failure {
	if s.Failure != nil || !s.Deadline.IsZero() || terminal(s.Pod.Status.Phase) {
		return nil
	}
	w.mu.Lock()
	first := !w.admitted
	w.admitted = true
	w.mu.Unlock()
	if first && len(s.Observed.Sandboxes) == 0 && w.m.cfg.Admit != nil {
		if f := w.m.cfg.Admit(s.Pod, w.m.active(w.uid)); f != nil {
			w.event(s.Pod, v1.EventTypeWarning, f.Reason, f.Message)
			return &Failure{Reason: f.Reason, Message: "Pod was rejected: " + f.Message, Grace: f.Grace}
		}
	}
	if d := w.expire(s); !d.IsZero() && !s.Now.Before(d) {
		w.event(s.Pod, v1.EventTypeNormal, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
		return &Failure{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"}
	}
	return nil
}

// expire is when activeDeadlineSeconds runs out; zero is never.
func (w *worker) expire(s Snapshot) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := s.Pod.Spec.ActiveDeadlineSeconds; a != nil && w.status.StartTime != nil && s.Failure == nil && s.Deadline.IsZero() {
		return w.status.StartTime.Add(time.Duration(*a) * time.Second)
	}
	return time.Time{}
}

func (w *worker) publish(s Snapshot, p Plan) {
	health := w.m.cfg.Resources.Health(s.Pod)
	w.mu.Lock()
	w.pausing = map[string]string{}
	for name, d := range p.Backoff {
		w.pausing[name] = fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", d, name, s.Pod.Name, s.Pod.Namespace, s.Pod.UID)
	}
	s.Busy = w.busyLocked()
	v := View{Snapshot: s, Waiting: w.waiting, Backoff: w.pausing, HostIPs: w.m.cfg.HostIPs, Messages: w.messages, Sizes: map[string][2]sized{}, ResizePending: w.pending, Resizing: w.progress, Health: health}
	for id, have := range w.sizesLocked() {
		if c := specOf(s.Pod, w.seen[id].Name); c != nil {
			v.Sizes[id] = [2]sized{have, sizeOf(w.resources(s.Pod, c))}
		}
	}
	old := w.status
	// Conditions of others (readiness gates) come with the pod from its source.
	old.Conditions = mergeForeign(old.Conditions, s.Pod.Status.Conditions)
	w.status = podStatus(v, old)
	st := w.status
	w.ranLocked(old.Phase)
	w.mu.Unlock()
	w.m.cfg.Statuses.Set(s.Pod, st)
	for name := range p.Backoff {
		w.event(s.Pod, v1.EventTypeWarning, "BackOff", "Back-off restarting failed container "+name+" in pod "+s.Pod.Name+"_"+s.Pod.Namespace+"("+w.uid+")", name)
	}
}

// mergeForeign is mine, with every condition the kubelet does not own taken from the source's newest.
func mergeForeign(mine, source []v1.PodCondition) []v1.PodCondition {
	own := map[v1.PodConditionType]bool{v1.PodReadyToStartContainers: true, v1.PodInitialized: true, v1.PodReady: true, v1.ContainersReady: true,
		v1.PodResizePending: true, v1.PodResizeInProgress: true}
	var out []v1.PodCondition
	for _, c := range mine {
		if own[c.Type] {
			out = append(out, c)
		}
	}
	scheduled := false
	for _, c := range source {
		scheduled = scheduled || c.Type == v1.PodScheduled
		if !own[c.Type] {
			out = append(out, c)
		}
	}
	for _, c := range mine {
		// A static pod's source says nothing of scheduling.
		if c.Type == v1.PodScheduled && !scheduled {
			out = append(out, c)
		}
	}
	return out
}

// startJob carries out a plan's sandbox and starts in one goroutine.
func (w *worker) startJob(ctx context.Context, jobs *sync.WaitGroup, p Plan) {
	w.mu.Lock()
	if w.busy || !w.deadline.IsZero() {
		w.mu.Unlock()
		return
	}
	w.busy = true
	jctx, cancel := context.WithCancel(ctx)
	w.cancel = cancel
	pod, observed := w.pod, w.observed
	w.mu.Unlock()
	jobs.Go(func() {
		defer cancel()
		w.start(jctx, pod, observed, p)
		w.mu.Lock()
		w.busy, w.cancel, w.dirty = false, nil, true
		w.ended++
		w.mu.Unlock()
		w.poke(true)
	})
}

func (w *worker) stopSandbox(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if _, err := w.m.cfg.CRI.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		w.log.Warn("stopping the sandbox", "sandbox", id, "err", err)
		time.AfterFunc(time.Second, func() { w.poke(true) })
		return
	}
	w.poke(true)
}

// teardown frees volumes and cgroup; it answers when to try again, zero when all is gone.
func (w *worker) teardown(ctx context.Context, pod *v1.Pod) time.Time {
	w.stopProbes(nil)
	if err := w.m.cfg.Resources.Release(ctx, w.uid); err != nil {
		w.event(pod, v1.EventTypeWarning, "FailedUnprepareDynamicResources", "Failed to unprepare dynamic resources: "+err.Error())
		return now().Add(2 * time.Second)
	}
	err := w.m.cfg.Volumes.Teardown(w.uid)
	if e := w.m.cfg.Cgroups.Destroy(w.uid); err == nil {
		err = e
	}
	if err != nil {
		w.log.Warn("tearing down", "err", err)
		return now().Add(2 * time.Second)
	}
	w.mu.Lock()
	w.torn = true
	w.mu.Unlock()
	w.poke(false)
	return time.Time{}
}

// purge removes the last traces of a deleted pod from runtime and disk, then says so to the API.
func (w *worker) purge(ctx context.Context, pod *v1.Pod) (time.Time, bool) {
	w.mu.Lock()
	gone := w.gone
	o := w.observed
	w.mu.Unlock()
	w.m.cfg.Metrics.Forget(pod)
	if !gone {
		w.m.cfg.Statuses.Ended(pod)
	}
	for _, cs := range o.Containers {
		for _, c := range cs {
			_, _ = w.m.cfg.CRI.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID})
		}
	}
	for _, sb := range o.Sandboxes {
		if _, err := w.m.cfg.CRI.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sb.ID}); err != nil && ctx.Err() == nil {
			w.log.Warn("removing the sandbox", "sandbox", sb.ID, "err", err)
		}
	}
	if err := os.RemoveAll(w.m.cfg.Volumes.PodDir(w.uid)); err != nil {
		w.log.Warn("removing the pod's folder", "err", err)
	}
	if pod.Namespace != "" && pod.Name != "" {
		_ = os.RemoveAll(LogDir(w.m.cfg.LogDir, pod))
	}
	return time.Time{}, true
}

// refreshVolumes writes what the API changed in configMaps, secrets and tokens; it answers when to do so again.
func (w *worker) refreshVolumes(ctx context.Context, s Snapshot) time.Time {
	if !s.Deadline.IsZero() || s.Failure != nil || s.Busy || s.Observed.ready() == nil || !refreshes(s.Pod) {
		return time.Time{}
	}
	every := w.m.cfg.Refresh
	if next := w.refresh.Add(every); s.Now.Before(next) {
		return next
	}
	w.refresh = s.Now
	if err := w.m.cfg.Volumes.Setup(ctx, s.Pod); err != nil {
		w.event(s.Pod, v1.EventTypeWarning, "FailedMount", err.Error())
	}
	return s.Now.Add(every)
}

func refreshes(pod *v1.Pod) bool {
	for _, v := range pod.Spec.Volumes {
		if v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil || v.PersistentVolumeClaim != nil || v.Ephemeral != nil || v.CSI != nil {
			return true
		}
	}
	return false
}

// event records one on the pod, or on one of its containers.
func (w *worker) event(pod *v1.Pod, kind, reason, message string, container ...string) {
	ref := &v1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
	if len(container) > 0 {
		field := "spec.containers{" + container[0] + "}"
		if isInit(pod, container[0]) {
			field = "spec.initContainers{" + container[0] + "}"
		}
		ref.FieldPath = field
	}
	w.m.cfg.Recorder.Event(ref, kind, reason, message)
}
