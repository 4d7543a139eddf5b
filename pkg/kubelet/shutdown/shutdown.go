// Package shutdown ends a node's pods in order before the machine goes down.
//
// Flow: Run asks systemd-logind to wait for the kubelet (an inhibitor lock, for as long as all groups of pods together may
// take) -> logind says that a shutdown begins -> the node is not ready any more and takes no pods -> decide tells in
// which order pods end -> group after group is ended and waited for -> the lock is given back and the machine goes down.
// When the shutdown is called off, the node is ready again and the lock taken anew. Run owns all goroutines; Active may
// be asked from anywhere.
package shutdown

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

// Config is what a Manager works with.
type Config struct {
	// Groups are in ascending order of priority.
	Groups []Group
	// Dial connects to the system's message bus.
	Dial func(ctx context.Context) (*dbus.Conn, error)
	// Dropins is the folder of logind's configuration in which its patience is raised.
	Dropins string
	Pods    func() []*v1.Pod
	// End ends a pod within a grace and does not wait for that; Ended tells that nothing of it runs or is mounted.
	End   func(pod *v1.Pod, grace time.Duration)
	Ended func(pod *v1.Pod) bool
	// Changed is called when Active has another answer.
	Changed func()
	// Event tells of the node.
	Event func(kind, reason, message string)
	// Root is the kubelet's folder, where the last shutdown is written down; empty writes nothing. Metrics may be nil.
	Root    string
	Metrics *metrics.Set
	Log     *slog.Logger
}

// SystemBus is the address every program finds it at.
func SystemBus(ctx context.Context) (*dbus.Conn, error) {
	return dbus.ConnectSystemBus(dbus.WithContext(ctx))
}

const (
	// again is the pause before another try to reach logind, and agains the longest.
	again  = time.Second
	agains = time.Minute
	// glance is how often pods which end are looked at.
	glance = 200 * time.Millisecond
)

// Manager waits for one shutdown of the machine.
type Manager struct {
	cfg    Config
	active atomic.Bool
}

// New makes a Manager.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

// Active tells whether the machine is going down. A nil Manager's never is.
func (m *Manager) Active() bool { return m != nil && m.active.Load() }

// Run works until ctx ends; a logind which is away is tried again and again.
func (m *Manager) Run(ctx context.Context) {
	m.recall()
	wait, said := again, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := m.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); text != said {
			said = text
			m.cfg.Log.Warn("the node cannot wait for its pods when the machine shuts down", "err", err)
		}
		if time.Since(began) > agains {
			wait, said = again, ""
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, agains)
	}
}

// session is one connection to logind, from its begin to its end.
func (m *Manager) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := connect(ctx, m.cfg.Dial)
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.patience(ctx, total(m.cfg.Groups), m.cfg.Dropins); err != nil {
		return err
	}
	if err := l.hold(ctx); err != nil {
		return err
	}
	m.cfg.Log.Info("a shutdown of the machine waits for pods", "at most", total(m.cfg.Groups))
	// ended is closed when all pods have ended; stop calls that off.
	var ended chan struct{}
	stop := func() {}
	defer func() {
		stop()
		if ended != nil {
			<-ended
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case down, ok := <-l.shutdowns:
			switch {
			case !ok:
				return fmt.Errorf("logind is gone")
			case down && !m.Active():
				m.set(true)
				m.cfg.Event(v1.EventTypeNormal, "Shutdown", "Shutdown manager detected shutdown event")
				ectx, ecancel := context.WithCancel(ctx)
				done := make(chan struct{})
				stop, ended = ecancel, done
				go func() {
					defer close(done)
					m.end(ectx)
				}()
			case !down && m.Active():
				stop()
				if ended != nil {
					<-ended
				}
				ended = nil
				m.set(false)
				m.cfg.Event(v1.EventTypeNormal, "Shutdown", "Shutdown manager detected shutdown cancellation")
				l.release()
				if err := l.hold(ctx); err != nil {
					return err
				}
			}
		case <-ended:
			ended = nil
			l.release()
			m.cfg.Log.Info("all pods have ended, the machine may go down")
		}
	}
}

func (m *Manager) set(active bool) {
	m.active.Store(active)
	m.cfg.Log.Info("the machine shuts down", "active", active)
	m.cfg.Changed()
}

// end brings every pod to its end, stage after stage, none longer than its time.
func (m *Manager) end(ctx context.Context) {
	plan := decide(m.cfg.Groups, m.cfg.Pods())
	m.cfg.Log.Info("ending pods before the machine goes down", "plan", plan.String())
	r := record{Began: time.Now()}
	m.note(r)
	defer func() {
		r.Ended = time.Now()
		m.note(r)
	}()
	for _, s := range plan {
		if ctx.Err() != nil {
			return // called off
		}
		for _, e := range s.Ends {
			m.cfg.End(e.Pod, e.Grace)
		}
		m.await(ctx, s)
	}
}

// await returns when every pod of a stage has ended or their time is over.
func (m *Manager) await(ctx context.Context, s Stage) {
	over := time.NewTimer(s.Wait)
	defer over.Stop()
	for {
		left := ""
		for _, e := range s.Ends {
			if !m.cfg.Ended(e.Pod) {
				left += " " + e.Pod.Namespace + "/" + e.Pod.Name
			}
		}
		if left == "" {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			m.cfg.Log.Warn("pods did not end in time before the machine goes down", "pods", left)
			return
		case <-time.After(glance):
		}
	}
}
