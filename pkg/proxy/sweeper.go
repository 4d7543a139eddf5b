package proxy

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// sweeper forgets flows that the tables do not lead any more. It works beside the loop: to look through the flows of a busy node takes a second
// where the machine has other work, and rules must not wait for that. What it is given was written to the tables before.
type sweeper struct {
	metrics *metrics
	failed  func() // asks for all to be looked at again
	wake    chan struct{}

	mu    sync.Mutex
	next  task
	doing task
}

// task is what a sweep looks for.
type task struct {
	gone *stale  // what changed; nil for nothing
	left *strays // nil where only changes matter
}

func (t task) matches(f flow) bool {
	return t.gone != nil && t.gone.matches(f) || t.left != nil && t.left.matches(f)
}

// keep says that flows to endpoints which these changes bring are none to be forgotten from now on. The tables are about to lead there, and a sweep
// that began before takes its time.
func (t task) keep(changes []desired.Change) {
	for _, c := range changes {
		if t.gone != nil {
			t.gone.keep(c.After)
		}
		if t.left != nil {
			t.left.keep(c.After)
		}
	}
}

func newSweeper(m *metrics, failed func()) *sweeper {
	return &sweeper{metrics: m, failed: failed, wake: make(chan struct{}, 1)}
}

// keep is called before changes are written.
func (s *sweeper) keep(changes []desired.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next.keep(changes)
	s.doing.keep(changes)
}

// add hands over what changed and was written, and with left what all tables hold.
func (s *sweeper) add(changes []desired.Change, left *strays) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.gone == nil {
		s.next.gone = staleFlows(nil)
	}
	for _, c := range changes {
		s.next.gone.compare(c)
	}
	if left != nil {
		s.next.left = left
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sweeper) matches(f flow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doing.matches(f)
}

// run sweeps until ctx ends.
func (s *sweeper) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		t := s.next
		s.doing, s.next = t, task{}
		s.mu.Unlock()
		if t.gone == nil {
			continue
		}
		began := time.Now()
		n, err := s.sweep(t)
		s.metrics.flows.WithLabelValues(family).Add(float64(n))
		s.metrics.forgot.WithLabelValues(family).Observe(time.Since(began).Seconds())
		if err != nil {
			slog.Error("forget flows", "error", err)
			s.failed()
			continue
		}
		slog.Debug("flows forgotten", "flows", n, "all", t.left != nil, "took", time.Since(began))
	}
}

// sweep forgets flows of UDP first, which would be lost for as long as somebody talks.
func (s *sweeper) sweep(t task) (uint, error) {
	if t.left == nil {
		return forget(unix.IPPROTO_UDP, t.gone.families, s.matches)
	}
	n, err := forget(unix.IPPROTO_UDP, t.left.families[unix.IPPROTO_UDP], s.matches)
	if err != nil {
		return n, err
	}
	more, err := forget(unix.IPPROTO_TCP, t.left.families[unix.IPPROTO_TCP], s.matches)
	return n + more, err
}
