package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

const (
	// patience is how long a lagging watch is given before etcd is asked to report its progress.
	patience = 3 * time.Millisecond
	// settle is how long a new watch takes to catch up, during which etcd leaves questions out.
	settle = 250 * time.Millisecond
	// late is how long an answer along the watch may take before the question is asked the other way.
	late = 20 * time.Millisecond
	// lost is how long an answer is waited for before it is taken for left out, and with it the count of answers.
	lost = time.Second
	// alone is how long etcd is believed to have one member only.
	alone = time.Second
)

// errReopen ends a watch whose answers can no longer be told apart.
var errReopen = errors.New("the watch is opened anew")

// question is one question to etcd, shared by everyone who asks while none has been sent.
type question struct {
	done  chan struct{}
	rev   int64
	err   error
	nth   int         // its number among the watch's questions; 0 = asked the other way
	timer *time.Timer // runs while the answer is awaited along the watch
}

// line is the way questions take. There are two: a linearizable read, which is right with any etcd, and a word along the
// watch that is open anyhow, which costs a fifth and is right while etcd has a single member: what it answers is the
// revision of the member that acknowledged every write there is. One question is on its way at a time, and one waits to be
// sent; whoever comes meanwhile joins the one that waits. Guarded by the cache's mutex.
type line struct {
	asked, next *question
	w           *store.Watch // nil while no watch is open
	settled     bool         // w has had time to catch up
	quick       bool         // w answers
	answers     int          // that came along w
	probe       int          // the number of the question whose answer makes w quick
	reopen      bool         // w is ended on purpose
	ordered     bool         // etcd is known to be of a version whose answers keep their place among the events
	aloneUntil  time.Time
	checking    bool
}

// Fresh returns when the cache holds everything that was acknowledged before the call, with the revision that is true
// of. Callers that come while a question is on its way share the next one.
func (c *Cache) Fresh(ctx context.Context) (int64, error) {
	q := c.ask()
	select {
	case <-q.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if q.err != nil {
		return 0, fmt.Errorf("asking etcd for its revision: %w", q.err)
	}
	return q.rev, c.WaitFor(ctx, q.rev)
}

// FreshAll is Fresh of every etcd's cache, for those who do not know of which resources they ask. An etcd apart that cannot be
// followed at the moment is not waited for: what lies in the others counts without it.
func (c *Cache) FreshAll(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, other := range c.apart {
		if other.Loaded() && other.Problem() == nil {
			wg.Go(func() { _, _ = other.Fresh(ctx) }) // the same
		}
	}
	_, err := c.Fresh(ctx)
	wg.Wait()
	return err
}

// ask sends a question, or joins the one that has not been sent yet. One on its way takes no more joiners: their writes
// might be newer than its answer.
func (c *Cache) ask() *question {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.line
	if l.asked == nil {
		l.asked = &question{done: make(chan struct{})}
		l.sendLocked(c)
		return l.asked
	}
	if l.next == nil {
		l.next = &question{done: make(chan struct{})}
	}
	return l.next
}

// sendLocked sends the question that is next on its way.
func (l *line) sendLocked(c *Cache) {
	q := l.asked
	if l.quick && l.w != nil {
		if l.single(c) {
			if nth, err := l.w.Ask(); err == nil {
				w := l.w
				q.nth, q.timer = nth, time.AfterFunc(late, func() { c.late(q, w) })
				return
			}
		}
	}
	q.nth = 0
	go c.readRevision(q)
}

// single tells whether etcd was one member a moment ago, and has that looked at again before it is too long ago.
func (l *line) single(c *Cache) bool {
	now := time.Now()
	if !l.checking && now.After(l.aloneUntil.Add(-alone/2)) {
		l.checking = true
		go c.checkAlone(now, l.w, l.ordered)
	}
	return l.ordered && now.Before(l.aloneUntil)
}

func (c *Cache) checkAlone(now time.Time, w *store.Watch, ordered bool) {
	ctx, cancel := context.WithTimeout(context.Background(), alone)
	defer cancel()
	yes := c.store.Alone(ctx)
	if yes && !ordered {
		ordered = c.store.Ordered(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.checking = false
	if yes && c.line.w == w {
		c.line.aloneUntil, c.line.ordered = now.Add(alone), ordered
	}
}

// readRevision asks by a linearizable read.
func (c *Cache) readRevision(q *question) {
	rev, err := c.store.Revision(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.finishLocked(c, q, rev, err)
}

// finishLocked ends a question and sends the next. An etcd that does not answer one does not answer the other: who joined
// it has waited as well.
func (l *line) finishLocked(c *Cache, q *question, rev int64, err error) {
	q.rev, q.err = rev, err
	close(q.done)
	if l.next != nil && err != nil {
		l.next.err = err
		close(l.next.done)
		l.next = nil
	}
	l.asked, l.next = l.next, nil
	if l.asked != nil {
		l.sendLocked(c)
	}
}

// answeredLocked counts an answer that came along the watch: everything before it has been applied.
func (l *line) answeredLocked(c *Cache) {
	l.answers++
	if l.probe > 0 && l.answers >= l.probe {
		l.quick, l.probe = true, 0
	}
	if q := l.asked; q != nil && q.nth > 0 && l.answers >= q.nth && q.timer.Stop() {
		l.finishLocked(c, q, c.rev, nil)
	}
}

// late asks a question the other way that has not been answered in time, and sees to it that the count is right again.
func (c *Cache) late(q *question, w *store.Watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.line
	if l.w == w && l.quick {
		l.awaitLocked(c, q.nth)
	}
	go c.readRevision(q)
}

// awaitLocked asks nothing along the watch until its nth answer has come, and ends the watch if that takes too long: then
// etcd has left a question out, and the count of answers is behind for good.
func (l *line) awaitLocked(c *Cache, nth int) {
	w := l.w
	l.quick, l.probe = false, nth
	time.AfterFunc(lost, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if l.w == w && l.probe == nth {
			l.reopen = true
			w.Close()
		}
	})
}

// open takes a watch for questions, as soon as it answers one.
func (l *line) open(c *Cache, w *store.Watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*l = line{asked: l.asked, next: l.next, w: w, checking: l.checking}
	time.AfterFunc(settle, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if l.w != w {
			return
		}
		l.settled = true
		if nth, err := w.Ask(); err == nil {
			l.awaitLocked(c, nth)
		}
	})
}

// reopening tells whether the watch was ended on purpose.
func (c *Cache) reopening() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.reopen
}

// close gives the watch up; a question on its way along it is asked the other way.
func (l *line) close(c *Cache) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.w, l.settled, l.quick = nil, false, false
	if q := l.asked; q != nil && q.nth > 0 && q.timer.Stop() {
		go c.readRevision(q)
	}
}

// WaitFor returns when everything up to rev is in the cache.
func (c *Cache) WaitFor(ctx context.Context, rev int64) error {
	var hurry *time.Timer
	for {
		c.mu.Lock()
		reached, moved := c.rev >= rev, c.moved
		c.mu.Unlock()
		if reached {
			return nil
		}
		if hurry == nil {
			hurry = time.NewTimer(patience)
			defer hurry.Stop()
		}
		select {
		case <-moved:
		case <-hurry.C:
			c.askProgress()
			hurry.Reset(100 * time.Millisecond)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// askProgress makes etcd tell soon how far it is.
func (c *Cache) askProgress() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line.settled && c.line.w != nil {
		_, _ = c.line.w.Ask() // a watch that broke is opened anew, and then tells
	}
}
