// Package scheduler gives pods their nodes.
//
// Watches keep a table of nodes and a queue of pods (one mutex guards both). One loop pops a pod, decides by package rules, writes the
// answer into the table as if it were true already, and binds in the background: many binds fly while the next pod is decided. A
// bind that fails takes its assumption back and the pod is tried again. Only the holder of the lease runs the loop.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes/scheme"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// versionLabel is the lease's label in which the leader writes its version.
const versionLabel = "sextant.dev/version"

// bindsInFlight bounds the bindings sent and not answered.
const bindsInFlight = 128

// Scheduler is the daemon.
type Scheduler struct {
	config      *Config
	core        coreclient.CoreV1Interface
	apps        appsclient.AppsV1Interface
	leases      coordinationclient.CoordinationV1Interface
	server      *server
	metrics     *metrics
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
	stores      stores
	synced      atomic.Bool
	wake        chan struct{}
	slots       chan struct{}
	group       sync.WaitGroup

	mu      sync.Mutex
	table   *rules.Table
	queue   *queue
	assumed map[string]types.UID // bound by us, not yet seen bound
	placed  map[string]types.UID // seen with a node
	start   int                  // the row the next search begins at
}

// New reads the configuration and binds the port. Nothing runs yet.
func New(c *Config) (*Scheduler, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	rc, err := c.client(c.Kubeconfig)
	if err != nil {
		return nil, err
	}
	s := &Scheduler{
		config: c, metrics: newMetrics(), wake: make(chan struct{}, 1), slots: make(chan struct{}, bindsInFlight),
		table: rules.NewTable(), queue: newQueue(c.initialBackoff, c.maxBackoff),
		assumed: map[string]types.UID{}, placed: map[string]types.UID{},
	}
	if s.core, err = coreclient.NewForConfig(rc); err != nil {
		return nil, err
	}
	if s.apps, err = appsclient.NewForConfig(rc); err != nil {
		return nil, err
	}
	if s.leases, err = coordinationclient.NewForConfig(rc); err != nil {
		return nil, err
	}
	if c.SecurePort > 0 {
		if s.server, err = newServer(c, s.routes()); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.broadcaster = record.NewBroadcaster(record.WithContext(ctx))
	defer s.broadcaster.Shutdown()
	s.broadcaster.StartRecordingToSink(&coreclient.EventSinkImpl{Interface: s.core.Events("")})
	s.recorder = s.broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: v1.DefaultSchedulerName})
	if s.server != nil {
		s.group.Go(func() {
			if err := s.server.run(ctx); err != nil {
				stop(err)
			}
		})
	}
	s.runInformers(ctx)
	slog.Info("scheduler started", "version", s.config.Version, "release", Release)
	if s.config.LeaderElect {
		if err := s.lead(ctx); err != nil {
			stop(err)
		}
	} else {
		s.loop(ctx)
	}
	stop(nil)
	s.group.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// lead runs the loop while the lease is ours. A lease that is lost, because another took it or because the apiserver could not
// be asked for too long, ends the loop, and this process stands for election again: its watches go on, so it knows no less.
func (s *Scheduler) lead(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		host = "scheduler"
	}
	var running sync.Mutex // held by the loop
	defer running.Lock()
	e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: s.config.LeaseNamespace, Name: s.config.LeaseName},
			Client:     s.leases,
			LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())},
			Labels:     map[string]string{versionLabel: s.config.Version},
		},
		LeaseDuration: s.config.LeaseDuration, RenewDeadline: s.config.RenewDeadline, RetryPeriod: s.config.RetryPeriod,
		ReleaseOnCancel: true, Name: s.config.LeaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				slog.Info("holding the lease")
				running.Lock()
				defer running.Unlock()
				s.loop(ctx)
			},
			OnStoppedLeading: func() {
				if ctx.Err() == nil {
					slog.Warn("the lease was lost; standing for election again")
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("joining the election: %w", err)
	}
	for ctx.Err() == nil {
		e.Run(ctx)
	}
	return nil
}

// loop decides one pod after another until ctx ends.
func (s *Scheduler) loop(ctx context.Context) {
	flush := time.NewTicker(30 * time.Second)
	defer flush.Stop()
	for ctx.Err() == nil {
		if s.synced.Load() && s.one(ctx) {
			continue
		}
		s.mu.Lock()
		wait := s.queue.next(time.Now())
		s.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-timer.C:
		case <-flush.C:
			s.mu.Lock()
			s.queue.flush(time.Now())
			s.mu.Unlock()
		}
		timer.Stop()
	}
}

// one decides the next pod; false when none is ready.
func (s *Scheduler) one(ctx context.Context) bool {
	s.mu.Lock()
	w := s.queue.pop(time.Now())
	if w == nil {
		s.mu.Unlock()
		return false
	}
	began := time.Now()
	pod := w.pod
	profile := s.config.profiles[pod.Spec.SchedulerName]
	nodes, _ := s.table.Len()
	snapshot := rules.Snapshot{
		Table: s.table, Pod: pod, Claims: s.claims(pod), Namespaces: s.namespaceLabels(), Seed: s.config.Seed,
		Start: s.start, Enough: enough(nodes, s.config.percentage), Off: profile.off, Weights: profile.weights,
	}
	if len(pod.Spec.TopologySpreadConstraints) == 0 {
		snapshot.Siblings = s.siblings(pod)
	}
	plan, err := decide(snapshot)
	if nodes > 0 {
		s.start = (s.start + plan.Searched) % nodes
	}
	s.metrics.algorithm.Observe(time.Since(began).Seconds())
	if err != nil {
		s.queue.retry(w, time.Now())
		s.mu.Unlock()
		slog.Error("decide", "pod", pod.Key, "error", err)
		s.count(pod, "error", began)
		return true
	}
	slog.Debug("decided", "plan", plan)
	if plan.Node != "" {
		s.assumed[pod.Key] = pod.UID
		s.table.SetPod(pod, plan.Node)
		s.mu.Unlock()
		s.slots <- struct{}{}
		s.group.Go(func() {
			defer func() { <-s.slots }()
			s.bind(ctx, w, pod, plan, began)
		})
		return true
	}
	helps := rules.NodeAdded
	for _, name := range plan.Rejectors {
		helps |= rules.Helps(name)
	}
	if plan.Nominated != "" {
		s.table.Nominate(pod, plan.Nominated)
		helps |= rules.PodGone
	}
	s.queue.park(w, helps, time.Now())
	s.mu.Unlock()
	s.count(pod, "unschedulable", began)
	s.group.Go(func() { s.refused(ctx, pod, plan) })
	return true
}

// decide answers a plugin's panic as an error: one bad pod does not stop the others.
func decide(s rules.Snapshot) (plan rules.Plan, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a plugin panicked: %v", p)
		}
	}()
	return rules.Decide(s), nil
}

// enough answers after how many feasible nodes a search ends; 0 searches all.
func enough(nodes int, percentage int32) int {
	if nodes < 100 || percentage >= 100 {
		return 0
	}
	if percentage <= 0 {
		percentage = max(50-int32(nodes)/125, 5)
	}
	return max(nodes*int(percentage)/100, 100)
}

func (s *Scheduler) count(p *rules.Pod, result string, began time.Time) {
	s.metrics.attempts.WithLabelValues(p.Spec.SchedulerName, result).Inc()
	s.metrics.duration.WithLabelValues(p.Spec.SchedulerName, result).Observe(time.Since(began).Seconds())
}

// gauge brings the gauges up to now.
func (s *Scheduler) gauge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	nodes, pods := s.table.Len()
	s.metrics.cache.WithLabelValues("nodes").Set(float64(nodes))
	s.metrics.cache.WithLabelValues("pods").Set(float64(pods))
	s.metrics.cache.WithLabelValues("assumed_pods").Set(float64(len(s.assumed)))
	for part, n := range s.queue.sizes() {
		s.metrics.pending.WithLabelValues(part).Set(float64(n))
	}
}
