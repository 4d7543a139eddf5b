package lifecycle

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
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
	// size is what of the pod's own size has been carried out.
	size     v1.ResourceRequirements
	applied  map[string]sized
	restart  map[string]bool
	status   v1.PodStatus
	dirty    bool
	gone     bool
	deadline time.Time
	failure  *Failure
	admitted bool
	before   bool // a kubelet before this one let it in
	observed Observed
	seen     map[string]Container
	// made and begun are what the start job has brought up and nobody has looked at yet.
	made     *Sandbox
	begun    []begun
	verdicts map[string]Verdict
	killing  map[string]time.Time
	backoff  map[string]time.Duration
	retry    map[string]time.Time
	tries    map[string]int
	waiting  map[string]v1.ContainerStateWaiting
	pausing  map[string]string
	messages map[string]string
	// past are, by container name, the last instances before all were made to start anew; the runtime has forgotten them.
	past map[string]Container
	busy bool
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

// newWorker makes a pod's worker; unknown tells that the runtime has nothing of the pod, which need not be asked then.
func newWorker(m *Manager, pod *v1.Pod, unknown bool) *worker {
	w := &worker{
		m: m, uid: string(pod.UID), log: m.cfg.Log.With("pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID), wake: make(chan struct{}, 1),
		source: pod, granted: granted(pod), applied: map[string]sized{}, status: pod.Status, dirty: !unknown, seen: map[string]Container{}, verdicts: map[string]Verdict{}, killing: map[string]time.Time{},
		backoff: map[string]time.Duration{}, retry: map[string]time.Time{}, tries: map[string]int{}, waiting: map[string]v1.ContainerStateWaiting{},
		messages: map[string]string{}, past: map[string]Container{}, probes: map[string]context.CancelFunc{}, refresh: now(),
		before: pod.Status.StartTime != nil, times: times{arrived: now(), fresh: pod.Status.Phase != v1.PodRunning && !terminal(pod.Status.Phase)},
	}
	w.pod, w.size = allotted(pod, w.granted), w.granted[""]
	if shown(pod.Status, v1.PodResizeInProgress) && !terminal(pod.Status.Phase) {
		// An earlier kubelet was carrying out a change: this one ends it.
		w.resizing, w.progress, w.times.resized = true, &Failure{}, now()
		if has := pod.Status.Resources; has != nil {
			w.size = *has
		}
	}
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
	if err := w.look(ctx); err != nil {
		w.log.Debug("asking the runtime", "err", err)
		return now().Add(time.Second), false
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
	if p.Interrupt {
		w.interrupt()
	}
	for _, k := range p.Kills {
		w.startKill(ctx, jobs, k, s.Pod)
	}
	if p.Sandbox || len(p.Start) > 0 {
		w.startJob(ctx, jobs, p)
	}
	// What has happened is told before the sandbox is stopped, which takes longer than all of the telling.
	late := holds(s.Pod)
	if !late {
		w.publish(s, p)
	}
	for _, id := range p.Stop {
		w.stopSandbox(ctx, id)
	}
	if p.Teardown {
		p.Wake = w.teardown(ctx, s.Pod)
	}
	if late {
		w.publish(s, p)
	}
	if len(p.Remove) > 0 {
		w.forgetContainers(ctx, s, p.Remove)
	}
	if p.Done && !s.Deadline.IsZero() {
		return w.purge(ctx, s.Pod)
	}
	if d := w.refreshVolumes(ctx, s); !d.IsZero() && (p.Wake.IsZero() || d.Before(p.Wake)) {
		p.Wake = d
	}
	return p.Wake, false
}

// look takes in what has changed in the runtime: all of the pod when that may be anything, no more than what its own start made
// when nothing else can have.
func (w *worker) look(ctx context.Context) error {
	w.mu.Lock()
	whole, last, ended, stopped, made, started := w.dirty, w.observed, w.ended, w.stopped, w.made, w.begun
	news := made != nil || len(started) > 0 || w.ended != w.noticed
	w.dirty, w.stopped, w.made, w.begun = false, nil, nil, nil
	w.mu.Unlock()
	if !whole && !news {
		return nil
	}
	asked := now()
	o, err := last, error(nil)
	if !whole {
		o, err = last.with(ctx, w.m.cfg.CRI, made, started)
	}
	if whole || err != nil {
		o, err = observe(ctx, w.m.cfg.CRI, w.uid, last)
	}
	w.m.cfg.Metrics.Looked(now().Sub(asked))
	if err != nil {
		w.mu.Lock()
		w.dirty, w.stopped = true, append(w.stopped, stopped...)
		w.mu.Unlock()
		return err
	}
	w.absorb(o, ended, stopped)
	return nil
}

func (w *worker) snapshotLocked() Snapshot {
	s := Snapshot{Pod: w.pod, Observed: w.observed, Now: now(), Verdicts: map[string]Verdict{}, Backoff: map[string]time.Duration{},
		Killing: map[string]time.Time{}, Busy: w.busyLocked(), Deadline: w.deadline, Failure: w.failure, Over: terminal(w.status.Phase), Retry: map[string]time.Time{}, TornDown: w.torn, Resize: map[string]bool{}, Restarting: restartBegun(w.status)}
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
		for i := range cs {
			_, known := w.messages[cs[i].ID]
			if cs[i].State == Exited && !known && !slices.Contains(stopped, cs[i].ID) && w.starvedLocked(cs[i]) {
				cs[i].Reason = reasonOOMKilled
			}
			c := cs[i]
			w.seen[c.ID] = c
			if _, ok := w.verdicts[c.ID]; !ok && c.State == Running {
				w.verdicts[c.ID] = firstVerdict(w.pod, specOf(w.pod, c.Name), c.ID)
			}
			if c.State == Exited && !known {
				w.messages[c.ID] = w.message(c)
				w.died(c)
				delete(w.killing, c.ID)
			}
		}
	}
}

// refuse is why the pod may not run here (any more): the node refuses it, or its deadline has passed.
func (w *worker) refuse(s Snapshot) *Failure {
	if s.Failure != nil || !s.Deadline.IsZero() || terminal(s.Pod.Status.Phase) {
		return nil
	}
	if f := w.admit(s); f != nil {
		w.event(s.Pod, v1.EventTypeWarning, f.Reason, f.Message)
		return &Failure{Reason: f.Reason, Message: "Pod was rejected: " + f.Message, Grace: f.Grace}
	}
	if d := w.expire(s); !d.IsZero() && !s.Now.Before(d) {
		w.event(s.Pod, v1.EventTypeNormal, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
		return &Failure{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"}
	}
	return nil
}

// admit asks the node once whether it lets the pod in; what runs already is in. One pod is asked about after the other, and counts
// for the others when it is in: else two that come at once, where one has room, would both be refused or both be let in.
func (w *worker) admit(s Snapshot) *Failure {
	w.mu.Lock()
	asked := w.admitted
	w.mu.Unlock()
	if asked {
		return nil
	}
	w.m.room.Lock()
	defer w.m.room.Unlock()
	if len(s.Observed.Sandboxes) == 0 && w.m.cfg.Admit != nil {
		if f := w.m.cfg.Admit(s.Pod, w.m.active(w.uid)); f != nil {
			return f
		}
	}
	w.mu.Lock()
	w.admitted = true
	w.mu.Unlock()
	return nil
}

// in tells whether the pod has been let in, by this kubelet or one before.
func (w *worker) in() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.admitted || w.before || len(w.observed.Sandboxes) > 0
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
	w.m.starting.Add(1)
	jobs.Go(func() {
		defer cancel()
		plain := w.start(jctx, pod, observed, p)
		w.mu.Lock()
		w.busy, w.cancel = false, nil
		w.ended++
		w.mu.Unlock()
		w.m.starting.Add(-1)
		w.poke(!plain)
	})
}
