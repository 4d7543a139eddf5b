package fairness

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// patience is how long a request waits for a seat at most.
const patience = 15 * time.Second

// level is the seats of a priority level and who waits for them.
type level struct {
	room *Room
	name string
	uid  atomic.Value // string

	mu       sync.Mutex
	exempt   bool
	nominal  int // seats of its own
	lendable int // of them, for others to take while unused
	borrow   int // seats it may take of others
	used     int
	waiting  int
	rejects  bool // instead of queueing
	hand     int
	length   int // of a queue at most
	queues   []queue
	virtual  float64 // the start tag of whoever was let in last

	gauge struct{ used, nominal, lendable atomic.Int64 } // for other levels to read
}

// queue is those who wait, the first first, and the virtual time at which the last of them is done.
type queue struct {
	line   []*waiter
	finish float64
}

// waiter is one who waits.
type waiter struct {
	width int
	start float64 // tag: who has the least is next
	flow  *Flow
	asks  *authorizer.AttributesRecord
	since time.Time
	let   chan struct{}
	in    bool
}

func newLevel(r *Room, name string) *level {
	l := &level{room: r, name: name}
	l.uid.Store("")
	return l
}

// configure takes over what the level's object says. Those who wait in queues that are no more move to others.
func (l *level) configure(o *flowcontrolv1.PriorityLevelConfiguration, nominal int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uid.Store(string(o.UID))
	defer func() {
		l.gauge.nominal.Store(int64(l.nominal))
		l.gauge.lendable.Store(int64(l.lendable))
	}()
	l.nominal, l.lendable, l.borrow = nominal, 0, 0
	if l.exempt = o.Spec.Type == flowcontrolv1.PriorityLevelEnablementExempt; l.exempt {
		if e := o.Spec.Exempt; e != nil && e.LendablePercent != nil {
			l.lendable = nominal * int(*e.LendablePercent) / 100
		}
		l.letAllLocked()
		return
	}
	c := o.Spec.Limited
	if c.LendablePercent != nil {
		l.lendable = nominal * int(*c.LendablePercent) / 100
	}
	l.borrow = l.room.c.Seats
	if c.BorrowingLimitPercent != nil {
		l.borrow = nominal * int(*c.BorrowingLimitPercent) / 100
	}
	l.rejects = c.LimitResponse.Type != flowcontrolv1.LimitResponseTypeQueue || c.LimitResponse.Queuing == nil
	queues := 0
	if !l.rejects {
		q := c.LimitResponse.Queuing
		l.hand, l.length, queues = int(q.HandSize), int(q.QueueLengthLimit), int(q.Queues)
	}
	if queues != len(l.queues) {
		was := l.queues
		l.queues = make([]queue, max(queues, 0))
		if queues == 0 {
			l.queues = was
			l.letAllLocked()
			l.queues = nil
			return
		}
		n := 0
		for _, q := range was {
			for _, w := range q.line {
				to := &l.queues[n%queues]
				to.line = append(to.line, w)
				n++
			}
		}
	}
	l.letLocked()
}

// retire lets everybody in.
func (l *level) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exempt = true
	l.letAllLocked()
}

func (l *level) letAllLocked() {
	for i := range l.queues {
		for _, w := range l.queues[i].line {
			l.admitLocked(w)
		}
		l.queues[i].line = nil
	}
}

func (l *level) admitLocked(w *waiter) {
	w.in = true
	l.takeLocked(w.width)
	l.waiting--
	close(w.let)
}

func (l *level) takeLocked(width int) {
	l.used += width
	l.gauge.used.Store(int64(l.used))
}

// Enter takes seats for a request, waiting for them if need be. leave gives them back; ok is false, and why says so, if
// there is no place.
func (f *Flow) Enter(ctx context.Context, a *authorizer.AttributesRecord, width int) (leave func(), why string, ok bool) {
	l := f.level
	l.mu.Lock()
	if l.exempt {
		l.takeLocked(width)
		l.mu.Unlock()
		return f.serve(width), "", true
	}
	width = max(1, min(width, l.nominal))
	if l.waiting == 0 && l.hasLocked(width) {
		l.takeLocked(width)
		l.mu.Unlock()
		f.seen.waited.Observe(0)
		return f.serve(width), "", true
	}
	if l.rejects || len(l.queues) == 0 {
		l.mu.Unlock()
		f.seen.rejected("concurrency-limit")
		return nil, "concurrency-limit", false
	}
	w := l.joinLocked(f, a, width)
	l.mu.Unlock()
	if w == nil {
		f.seen.rejected("queue-full")
		return nil, "queue-full", false
	}
	f.seen.queued.Inc()
	f.seen.queuedSeats.Add(float64(width))
	defer f.seen.queued.Dec()
	defer f.seen.queuedSeats.Sub(float64(width))
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-w.let:
	case <-late.C:
	case <-ctx.Done():
	}
	took := time.Since(w.since).Seconds()
	if !l.stays(w) {
		f.seen.inVain.Observe(took)
		f.seen.rejected("time-out")
		return nil, "time-out", false
	}
	f.seen.waited.Observe(took)
	return f.serve(width), "", true
}

// serve counts a request in that has its seats; the function it returns counts it out and gives the seats back.
func (f *Flow) serve(width int) (leave func()) {
	begun := time.Now()
	f.seen.dispatched.Inc()
	f.seen.widths.Observe(float64(width))
	f.seen.serving.Inc()
	f.seen.seats.Add(float64(width))
	return func() {
		f.seen.serving.Dec()
		f.seen.seats.Sub(float64(width))
		f.seen.served.Observe(time.Since(begun).Seconds())
		f.level.leave(width)
	}
}

// joinLocked puts a request into the shortest queue of its flow's hand; nil if that is full.
func (l *level) joinLocked(f *Flow, a *authorizer.AttributesRecord, width int) *waiter {
	best := -1
	deal(f.flow(a), len(l.queues), l.hand, func(n int) {
		if best < 0 || len(l.queues[n].line) < len(l.queues[best].line) {
			best = n
		}
	})
	q := &l.queues[max(best, 0)]
	if len(q.line) >= l.length {
		return nil
	}
	w := &waiter{width: width, start: max(l.virtual, q.finish), flow: f, asks: a, since: time.Now(), let: make(chan struct{})}
	q.finish = w.start + float64(width)
	q.line = append(q.line, w)
	l.waiting++
	f.seen.lengths.Observe(float64(len(q.line)))
	return w
}

// stays tells whether a waiter was let in; if not it leaves its queue.
func (l *level) stays(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.in {
		return true
	}
	for i := range l.queues {
		for n, x := range l.queues[i].line {
			if x == w {
				l.queues[i].line = append(l.queues[i].line[:n:n], l.queues[i].line[n+1:]...)
				l.waiting--
				l.letLocked() // a wide one may have stood before narrow ones
				return false
			}
		}
	}
	return false
}

func (l *level) leave(width int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeLocked(-width)
	l.letLocked()
}

// letLocked lets those in whose turn it is, as long as there are seats.
func (l *level) letLocked() {
	for l.waiting > 0 {
		var next *queue
		for i := range l.queues {
			q := &l.queues[i]
			if len(q.line) > 0 && (next == nil || q.line[0].start < next.line[0].start) {
				next = q
			}
		}
		if next == nil || !l.hasLocked(next.line[0].width) {
			return
		}
		w := next.line[0]
		next.line[0] = nil
		next.line = next.line[1:]
		l.virtual = w.start
		l.admitLocked(w)
	}
}

// hasLocked tells whether there are seats: of the level's own, or lent by others.
func (l *level) hasLocked(width int) bool {
	over := l.used + width - l.nominal
	if over <= 0 || l.used == 0 {
		return true // even the narrowest level serves one at a time
	}
	return over <= l.borrow && int64(over-max(l.used-l.nominal, 0)) <= l.room.spare(l)
}

// spare is how many seats others have to lend to a level now. It reads them without their locks, one after another: a
// seat more or less for a moment does no harm.
func (r *Room) spare(to *level) int64 {
	var free int64
	if now := r.peers.Load(); now != nil {
		for _, l := range *now {
			if l == to {
				continue
			}
			used, nominal, lendable := l.gauge.used.Load(), l.gauge.nominal.Load(), l.gauge.lendable.Load()
			if used > nominal {
				free -= used - nominal
			} else {
				free += min(lendable, nominal-used)
			}
		}
	}
	return free - max(to.gauge.used.Load()-to.gauge.nominal.Load(), 0)
}
