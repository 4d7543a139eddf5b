package scheduler

import (
	"container/heap"
	"reflect"
	"time"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// flushAfter is how long a pod waits for an event that helps it before it is tried anyway.
const flushAfter = 5 * time.Minute

// waiting is a pod in the queue, with what happened to it so far.
type waiting struct {
	pod      *rules.Pod
	added    time.Time // first seen
	since    time.Time // in its present part of the queue
	ready    time.Time // no try before
	attempts int
	helps    rules.Events // what may make it fit
	heap     *podHeap     // it stands in, nil for none
	index    int          // in heap
	missed   rules.Events // events seen while it was being decided
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

// queue holds the pods without a node: active ones by priority, those in back-off by time, and those that wait for an event.
// Its owner locks. Time comes in as an argument.
type queue struct {
	initial, most time.Duration
	active, delay podHeap
	parked        map[string]*waiting
	gated         map[string]*waiting
	flying        map[string]*waiting // popped and not settled
	heaped        map[string]*waiting // those in a heap
}

func newQueue(initial, most time.Duration) *queue {
	q := &queue{initial: initial, most: most, parked: map[string]*waiting{}, gated: map[string]*waiting{}, flying: map[string]*waiting{}, heaped: map[string]*waiting{}}
	q.active.less = func(a, b *waiting) bool {
		if a.pod.Priority != b.pod.Priority {
			return a.pod.Priority > b.pod.Priority
		}
		return a.since.Before(b.since)
	}
	q.delay.less = func(a, b *waiting) bool { return a.ready.Before(b.ready) }
	return q
}

func (q *queue) push(h *podHeap, w *waiting, now time.Time) {
	w.since = now
	w.heap = h
	q.heaped[w.pod.Key] = w
	heap.Push(h, w)
}

// find answers where a pod is, nil when the queue does not know it.
func (q *queue) find(key string) *waiting {
	for _, m := range []map[string]*waiting{q.heaped, q.parked, q.gated, q.flying} {
		if w := m[key]; w != nil {
			return w
		}
	}
	return nil
}

// set adds a pod or takes its new form. A pod with gates waits for nothing but its own change.
func (q *queue) set(p *rules.Pod, now time.Time) {
	w := q.find(p.Key)
	if w != nil && w.pod.UID != p.UID {
		q.remove(p.Key)
		w = nil
	}
	if w == nil {
		w = &waiting{pod: p, added: now, index: -1}
	} else if q.flying[p.Key] == w {
		if !reflect.DeepEqual(w.pod.Spec, p.Spec) || !reflect.DeepEqual(w.pod.Labels, p.Labels) {
			w.missed |= rules.PodChanged
		}
		w.pod = p
		return
	} else if w.heap != nil {
		w.pod = p
		heap.Fix(w.heap, w.index)
		return
	}
	same := reflect.DeepEqual(w.pod.Spec, p.Spec) && reflect.DeepEqual(w.pod.Labels, p.Labels)
	w.pod = p
	if same && q.parked[p.Key] == w {
		return // only its status moved, most likely by our own hand
	}
	delete(q.gated, p.Key)
	delete(q.parked, p.Key)
	switch {
	case len(p.Spec.SchedulingGates) > 0:
		w.since = now
		q.gated[p.Key] = w
	case w.attempts > 0:
		q.parked[p.Key] = w
		q.wake(w, rules.PodChanged, now)
	default:
		q.push(&q.active, w, now)
	}
}

// remove forgets a pod.
func (q *queue) remove(key string) {
	if w := q.heaped[key]; w != nil {
		heap.Remove(w.heap, w.index)
		w.heap = nil
		delete(q.heaped, key)
	}
	delete(q.parked, key)
	delete(q.gated, key)
	delete(q.flying, key)
}

// pop takes the next pod to decide, nil when there is none now.
func (q *queue) pop(now time.Time) *waiting {
	for q.delay.Len() > 0 && !q.delay.items[0].ready.After(now) {
		w := heap.Pop(&q.delay).(*waiting)
		q.push(&q.active, w, now)
	}
	if q.active.Len() == 0 {
		return nil
	}
	w := heap.Pop(&q.active).(*waiting)
	delete(q.heaped, w.pod.Key)
	w.heap = nil
	w.attempts++
	w.missed = 0
	q.flying[w.pod.Key] = w
	return w
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
func (q *queue) done(key string) { delete(q.flying, key) }

// park settles a popped pod that fits nowhere until one of the events comes.
func (q *queue) park(w *waiting, helps rules.Events, now time.Time) {
	if q.flying[w.pod.Key] != w {
		return
	}
	delete(q.flying, w.pod.Key)
	w.helps, w.since = helps|rules.PodChanged, now
	w.ready = now.Add(q.backoff(w.attempts))
	q.parked[w.pod.Key] = w
	q.wake(w, w.missed, now)
}

// retry settles a popped pod that met an error: again after its back-off.
func (q *queue) retry(w *waiting, now time.Time) {
	if q.flying[w.pod.Key] != w {
		return
	}
	delete(q.flying, w.pod.Key)
	w.ready = now.Add(q.backoff(w.attempts))
	q.push(&q.delay, w, now)
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

// wake moves a parked pod on if the event can help it.
func (q *queue) wake(w *waiting, event rules.Events, now time.Time) {
	if w.helps&event == 0 {
		return
	}
	delete(q.parked, w.pod.Key)
	if w.ready.After(now) {
		q.push(&q.delay, w, now)
	} else {
		q.push(&q.active, w, now)
	}
}

// event wakes the parked pods that it can help, and is remembered for those being decided.
func (q *queue) event(event rules.Events, now time.Time) {
	for _, w := range q.parked {
		q.wake(w, event, now)
	}
	for _, w := range q.flying {
		w.missed |= event
	}
}

// flush wakes what has been parked for too long.
func (q *queue) flush(now time.Time) {
	for _, w := range q.parked {
		if now.Sub(w.since) > flushAfter {
			q.wake(w, w.helps, now)
		}
	}
}

// sizes answers the numbers of pods by upstream's names of the queue's parts.
func (q *queue) sizes() map[string]int {
	return map[string]int{"active": q.active.Len(), "backoff": q.delay.Len(), "unschedulable": len(q.parked), "gated": len(q.gated)}
}
