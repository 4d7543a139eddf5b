package scheduler

import (
	"container/heap"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// waiting is a pod in the queue, with what happened to it so far.
type waiting struct {
	pod       *rules.Pod
	raw       *v1.Pod   // as the API server told it; not to be changed
	added     time.Time // first seen
	since     time.Time // in its present part of the queue
	ready     time.Time // no try before
	attempts  int
	rejectors []string   // plugins that refused it
	group     string     // of like pods that wait for the same
	helpers   rules.Kind // what may help it
	heap      *podHeap   // it stands in, nil for none
	index     int        // in heap
	missed    []rules.Event
	changed   bool // while it was being decided
	deciding  bool
}

// podHeap orders by less; the queue keeps two.
type podHeap struct {
	items []*waiting
	less  func(a, b *waiting) bool
}

func (h *podHeap) Len() int           { return len(h.items) }
func (h *podHeap) Less(i, j int) bool { return h.less(h.items[i], h.items[j]) }
func (h *podHeap) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.items[i].index, h.items[j].index = i, j
}
func (h *podHeap) Push(x any) {
	w := x.(*waiting)
	w.index = len(h.items)
	h.items = append(h.items, w)
}
func (h *podHeap) Pop() any {
	last := len(h.items) - 1
	w := h.items[last]
	h.items[last] = nil
	h.items = h.items[:last]
	w.index = -1
	return w
}

// queue holds the pods without a node: active ones by priority, those in back-off by time, and those that wait for an event, in groups
// of like pods, so that an event is judged once for all of a group. Its owner locks. Time comes in as an argument.
type queue struct {
	initial, most, longest time.Duration
	active, delay          podHeap
	parked                 map[string]map[string]*waiting // by group, then by pod
	gated                  map[string]*waiting
	flying                 map[string]*waiting // popped and not settled
	all                    map[string]*waiting
	incoming               func(event, part string)
	flushed                func()
}

// newQueue answers an empty queue with back-offs from initial to most; a pod waits for an event no longer than longest.
func newQueue(initial, most, longest time.Duration) *queue {
	q := &queue{
		initial: initial, most: most, longest: longest, parked: map[string]map[string]*waiting{}, gated: map[string]*waiting{},
		flying: map[string]*waiting{}, all: map[string]*waiting{}, incoming: func(string, string) {}, flushed: func() {},
	}
	q.active.less = func(a, b *waiting) bool { return rules.Before(a.pod, a.since, b.pod, b.since) }
	q.delay.less = func(a, b *waiting) bool { return a.ready.Before(b.ready) }
	return q
}

func (q *queue) push(h *podHeap, w *waiting, event string, now time.Time) {
	w.since = now
	w.heap = h
	heap.Push(h, w)
	part := "active"
	if h == &q.delay {
		part = "backoff"
	}
	q.incoming(event, part)
}

// find answers where a pod is, nil when the queue does not know it.
func (q *queue) find(key string) *waiting { return q.all[key] }

// set adds a pod or takes its new form. A pod with gates waits for nothing but its own change.
func (q *queue) set(p *rules.Pod, raw *v1.Pod, now time.Time) {
	w := q.all[p.Key]
	if w != nil && w.pod.UID != p.UID {
		q.remove(p.Key)
		w = nil
	}
	if w == nil {
		w = &waiting{pod: p, raw: raw, added: now, index: -1}
		q.all[p.Key] = w
		q.admit(w, "PodAdd", now)
		return
	}
	// Where only its status moved, most likely by our own hand, nothing is to be tried again.
	same := w.pod.Class.ID() == p.Class.ID() && len(w.raw.Spec.SchedulingGates) == len(raw.Spec.SchedulingGates)
	w.raw = raw
	if same {
		return
	}
	w.pod = p
	switch {
	case q.flying[p.Key] == w:
		w.changed = true
	case w.heap != nil:
		heap.Fix(w.heap, w.index)
	default:
		delete(q.gated, p.Key)
		q.unpark(w)
		q.admit(w, "PodUpdate", now)
	}
}

// admit puts a pod where it can be decided, unless it has gates.
func (q *queue) admit(w *waiting, event string, now time.Time) {
	if reason, _ := rules.Gated(w.raw); reason != "" {
		w.since = now
		q.gated[w.pod.Key] = w
		q.incoming(event, "gated")
		return
	}
	q.ripen(w, event, now)
}

// ripen puts a pod among the active, or in back-off while it is too early.
func (q *queue) ripen(w *waiting, event string, now time.Time) {
	if w.ready.After(now) {
		q.push(&q.delay, w, event, now)
	} else {
		q.push(&q.active, w, event, now)
	}
}

func (q *queue) unpark(w *waiting) {
	if g := q.parked[w.group]; g[w.pod.Key] == w {
		if delete(g, w.pod.Key); len(g) == 0 {
			delete(q.parked, w.group)
		}
	}
}

// remove forgets a pod.
func (q *queue) remove(key string) {
	w := q.all[key]
	if w == nil {
		return
	}
	delete(q.all, key)
	if w.heap != nil {
		heap.Remove(w.heap, w.index)
		w.heap = nil
	}
	q.unpark(w)
	delete(q.gated, key)
	delete(q.flying, key)
}

// pop takes the next pod to decide, nil when there is none now.
func (q *queue) pop(now time.Time) *waiting {
	for q.delay.Len() > 0 && !q.delay.items[0].ready.After(now) {
		w := heap.Pop(&q.delay).(*waiting)
		q.push(&q.active, w, "BackoffComplete", now)
	}
	if q.active.Len() == 0 {
		return nil
	}
	w := heap.Pop(&q.active).(*waiting)
	w.heap = nil
	w.attempts++
	w.missed, w.rejectors, w.changed, w.deciding = nil, nil, false, true
	q.flying[w.pod.Key] = w
	return w
}

// take pops a pod out of its turn, wherever it waits; false when it cannot be decided now.
func (q *queue) take(w *waiting) bool {
	if q.all[w.pod.Key] != w || q.flying[w.pod.Key] == w || q.gated[w.pod.Key] == w {
		return false
	}
	if w.heap != nil {
		heap.Remove(w.heap, w.index)
		w.heap = nil
	}
	q.unpark(w)
	w.attempts++
	w.missed, w.rejectors, w.changed, w.deciding = nil, nil, false, true
	q.flying[w.pod.Key] = w
	return true
}

// next answers when pop may have something, at most a minute from now.
func (q *queue) next(now time.Time) time.Duration {
	wait := time.Minute
	if q.delay.Len() > 0 {
		wait = min(wait, max(q.delay.items[0].ready.Sub(now), 0))
	}
	return wait
}

// done settles a popped pod that has its node.
func (q *queue) done(key string) {
	if w := q.flying[key]; w != nil {
		delete(q.flying, key)
		delete(q.all, key)
	}
}

// park settles a popped pod that fits nowhere until an event comes that helps one of the plugins that refused it.
func (q *queue) park(w *waiting, rejectors []string, now time.Time, helps func(w *waiting, e rules.Event) bool) {
	if q.flying[w.pod.Key] != w {
		return
	}
	delete(q.flying, w.pod.Key)
	w.since, w.rejectors = now, rejectors
	w.ready = now.Add(q.backoff(w.attempts))
	if w.changed {
		q.admit(w, "PodUpdate", now)
		return
	}
	for _, e := range w.missed {
		if helps(w, e) {
			q.ripen(w, "MissedEvent", now)
			return
		}
	}
	w.group, w.helpers = w.pod.Kin(rejectors), rules.Helpers(rejectors)
	if q.parked[w.group] == nil {
		q.parked[w.group] = map[string]*waiting{}
	}
	q.parked[w.group][w.pod.Key] = w
	q.incoming("ScheduleAttemptFailure", "unschedulable")
}

// retry settles a popped pod that met an error: again after its back-off.
func (q *queue) retry(w *waiting, now time.Time) {
	if q.flying[w.pod.Key] != w {
		return
	}
	delete(q.flying, w.pod.Key)
	w.ready = now.Add(q.backoff(w.attempts))
	q.push(&q.delay, w, "ScheduleAttemptFailure", now)
}

// backoff doubles from the initial with each attempt.
func (q *queue) backoff(attempts int) time.Duration {
	d := q.initial
	for range attempts - 1 {
		if d *= 2; d >= q.most {
			return q.most
		}
	}
	return d
}

// event wakes the parked pods that it can help, and is remembered for those being decided.
func (q *queue) event(now time.Time, e rules.Event, helps func(w *waiting) bool) {
	for _, group := range q.parked {
		for _, w := range group { // any of them speaks for all
			if w.helpers&e.Kind != 0 && helps(w) {
				q.wake(group, eventName(e.Kind), now)
			}
			break
		}
	}
	for _, w := range q.flying {
		if w.deciding {
			w.missed = append(w.missed, e)
		}
	}
}

func (q *queue) wake(group map[string]*waiting, event string, now time.Time) {
	for _, w := range group {
		q.unpark(w)
		q.ripen(w, event, now)
	}
}

func eventName(k rules.Kind) string {
	switch {
	case k&rules.NodeAdded != 0:
		return "NodeAdd"
	case k&rules.NodeChanged != 0:
		return "NodeUpdate"
	case k&rules.PodGone != 0:
		return "AssignedPodDelete"
	case k&rules.PodPlaced != 0:
		return "AssignedPodAdd"
	case k&rules.StorageChanged != 0:
		return "StorageChange"
	}
	return "ResourceClaimChange"
}

// flush wakes what has been parked for too long.
func (q *queue) flush(now time.Time) {
	for _, group := range q.parked {
		for _, w := range group {
			if now.Sub(w.since) > q.longest {
				q.unpark(w)
				q.ripen(w, "UnschedulableTimeout", now)
				q.flushed()
			}
		}
	}
}

// sizes answers the numbers of pods by upstream's names of the queue's parts.
func (q *queue) sizes() map[string]int {
	parked := 0
	for _, group := range q.parked {
		parked += len(group)
	}
	return map[string]int{"active": q.active.Len(), "backoff": q.delay.Len(), "unschedulable": parked, "gated": len(q.gated)}
}

// part answers in which part of the queue a pod is, in upstream's words.
func (q *queue) part(w *waiting) string {
	key := w.pod.Key
	switch {
	case q.flying[key] == w:
		return "being decided or bound"
	case q.gated[key] == w:
		return "gated"
	case w.heap == &q.active:
		return "active"
	case w.heap == &q.delay:
		return "backoff"
	}
	return "unschedulable"
}
