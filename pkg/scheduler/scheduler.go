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
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	policyclient "k8s.io/client-go/kubernetes/typed/policy/v1"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"
	schedulingclient "k8s.io/client-go/kubernetes/typed/scheduling/v1beta1"
	storageclient "k8s.io/client-go/kubernetes/typed/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// bindsInFlight bounds the bindings sent and not answered; refusalsInFlight the writes about pods that fit nowhere.
const (
	bindsInFlight    = 128
	refusalsInFlight = 32
	// measureEvery is of how many decisions one has its plugins timed.
	measureEvery = 10
)

// Scheduler is the daemon.
type Scheduler struct {
	config      *Config
	core        coreclient.CoreV1Interface
	apps        appsclient.AppsV1Interface
	storage     storageclient.StorageV1Interface
	resource    resourceclient.ResourceV1Interface
	policy      policyclient.PolicyV1Interface
	scheduling  schedulingclient.SchedulingV1beta1Interface
	leases      coordinationclient.CoordinationV1Interface
	server      *server
	metrics     *metrics
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
	recorders   map[string]record.EventRecorder // by profile; recorder for the others
	extenders   []*extender
	controllers []cache.Controller
	nodes       cache.Store
	podsListed  atomic.Bool
	synced      atomic.Bool
	leading     atomic.Bool
	needing     sync.Mutex // guards needs
	needs       []*need
	wake        chan struct{}
	slots       chan struct{}
	refusals    chan struct{}
	group       sync.WaitGroup

	mu        sync.Mutex
	table     *rules.Table
	queue     *queue
	assumed   map[string]types.UID // bound by us, not yet seen bound
	explained explained
	gangs     gangs
	moved     chan struct{} // closed when a claim or volume changes, then another
	decided   uint64
	meter     rules.Meter
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
	s := newScheduler(c)
	for _, made := range []func() error{
		func() (err error) { s.core, err = coreclient.NewForConfig(rc); return err },
		func() (err error) { s.apps, err = appsclient.NewForConfig(rc); return err },
		func() (err error) { s.storage, err = storageclient.NewForConfig(rc); return err },
		func() (err error) { s.resource, err = resourceclient.NewForConfig(rc); return err },
		func() (err error) { s.policy, err = policyclient.NewForConfig(rc); return err },
		func() (err error) { s.scheduling, err = schedulingclient.NewForConfig(rc); return err },
		func() (err error) { s.leases, err = coordinationclient.NewForConfig(rc); return err },
		func() (err error) { s.extenders, err = newExtenders(c.extenders); return err },
	} {
		if err := made(); err != nil {
			return nil, err
		}
	}
	if c.SecurePort > 0 {
		if s.server, err = newServer(c, s.routes()); err != nil {
			return nil, err
		}
		s.server.metrics = s.metrics
	}
	return s, nil
}

// newScheduler answers a scheduler without clients.
func newScheduler(c *Config) *Scheduler {
	started := time.Now()
	s := &Scheduler{
		config: c, metrics: newMetrics(c.Version), wake: make(chan struct{}, 1),
		slots: make(chan struct{}, bindsInFlight), refusals: make(chan struct{}, refusalsInFlight),
		table: rules.NewTable(c.Seed), queue: newQueue(c.initialBackoff, c.maxBackoff, c.MaxParked),
		assumed: map[string]types.UID{}, explained: explained{}, gangs: newGangs(), moved: make(chan struct{}),
		meter: rules.Meter{Now: func() int64 { return int64(time.Since(started)) }, Took: map[rules.Step]int64{}},
	}
	s.queue.incoming = func(event, part string) { s.metrics.incoming.WithLabelValues(event, part).Inc() }
	s.queue.flushed = s.metrics.flushed.Inc
	return s
}

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.broadcaster = record.NewBroadcaster(record.WithContext(ctx))
	defer s.broadcaster.Shutdown()
	s.broadcaster.StartRecordingToSink(&coreclient.EventSinkImpl{Interface: s.core.Events("")})
	s.recorder, s.recorders = s.broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: v1.DefaultSchedulerName}), map[string]record.EventRecorder{}
	for name := range s.config.profiles {
		s.recorders[name] = s.broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: name})
	}
	if s.server != nil {
		s.group.Go(func() { s.server.learnAuthorities(ctx, s.core) })
		s.group.Go(func() {
			if err := s.server.run(ctx); err != nil {
				stop(err)
			}
		})
	}
	if !s.config.delayWatches || !s.config.LeaderElect {
		s.runWatches(ctx)
	}
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

// loop decides one pod after another until ctx ends.
func (s *Scheduler) loop(ctx context.Context) {
	s.leading.Store(true)
	defer s.leading.Store(false)
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
	if least := s.gangs.least(w); least > 0 {
		s.oneGang(ctx, w, least, began)
		return true
	}
	snapshot := rules.Snapshot{Table: s.table, Pod: w.pod, Profile: s.config.profiles[w.raw.Spec.SchedulerName]}
	var plan rules.Plan
	var err error
	if s.decided++; s.decided%measureEvery == 0 {
		snapshot.Meter = &s.meter
	}
	if asked := s.interested(w.raw); len(asked) == 0 {
		plan, err = decide(snapshot)
	} else {
		plan, err = s.decideWith(ctx, asked, w, snapshot)
	}
	w.deciding = false
	s.metrics.algorithm.Observe(time.Since(began).Seconds())
	s.metrics.evaluated(snapshot.Profile.Name, plan.Asked)
	if snapshot.Meter != nil {
		s.metrics.measured(snapshot.Meter, snapshot.Profile.Name, plan.Node != "")
	}
	switch {
	case s.queue.flying[w.pod.Key] != w:
		s.mu.Unlock() // the pod went away while extenders were asked
	case err != nil:
		s.explained.put(w, rules.Plan{Message: err.Error()}, began)
		s.queue.retry(w, time.Now())
		s.mu.Unlock()
		slog.Error("decide", "pod", w.pod.Key, "error", err)
		s.count(w, "error", began)
		s.behind(func() { s.tellError(ctx, w, err) })
	case plan.Node != "":
		s.assume(ctx, w, plan, began)
	default:
		s.settleRefused(ctx, w, plan, began)
	}
	return true
}

// assume writes a decision into the table and binds in the background. It is called with the lock and gives it up.
func (s *Scheduler) assume(ctx context.Context, w *waiting, plan rules.Plan, began time.Time) {
	s.reserveFor(w, plan, began)
	raw := w.raw
	s.mu.Unlock()
	s.launch(ctx, w, raw, plan, began)
}

// reserveFor writes a decision into the table. The lock is held.
func (s *Scheduler) reserveFor(w *waiting, plan rules.Plan, began time.Time) {
	pod := w.pod
	s.assumed[pod.Key] = pod.UID
	s.table.SetPod(pod, plan.Node)
	s.table.Storage.Reserve(plan.Volumes)
	s.table.Devices.Reserve(plan.Claims)
	s.explained.drop(pod.Key)
	s.happened(rules.Event{Kind: rules.PodPlaced, Node: plan.Node, Pod: pod}, began)
}

// launch binds in the background.
func (s *Scheduler) launch(ctx context.Context, w *waiting, raw *v1.Pod, plan rules.Plan, began time.Time) {
	if slog.Default().Enabled(ctx, slog.LevelDebug) {
		slog.Debug("decided", "plan", plan)
	}
	if len(plan.Volumes)+len(plan.Claims) > 0 {
		// This may wait for a volume to be made; others do not wait for it.
		s.group.Go(func() { s.bind(ctx, w, raw, plan, began) })
		return
	}
	s.slots <- struct{}{}
	s.group.Go(func() {
		defer func() { <-s.slots }()
		s.bind(ctx, w, raw, plan, began)
	})
}

// settleRefused parks a pod that fits nowhere and tells it why. It is called with the lock and gives it up.
func (s *Scheduler) settleRefused(ctx context.Context, w *waiting, plan rules.Plan, began time.Time) {
	now := time.Now()
	rejectors := plan.Rejectors
	if plan.Message == rules.NoNodes {
		rejectors = []string{"NodeUnschedulable"} // which any new node may help
	}
	clear := false
	switch {
	case plan.Nominated != "":
		s.table.Nominate(w.pod, plan.Nominated)
	case !plan.Keep:
		clear = w.raw.Status.NominatedNodeName != ""
		s.unnominate(w.pod, now)
	}
	s.explained.put(w, plan, began)
	s.queue.park(w, rejectors, now, s.helps)
	raw := w.raw
	s.mu.Unlock()
	s.count(w, "unschedulable", began)
	s.behind(func() { s.refused(ctx, raw, plan, clear) })
}

// behind runs a write about a refusal in the background, so many at a time.
func (s *Scheduler) behind(f func()) {
	s.refusals <- struct{}{}
	s.group.Go(func() {
		defer func() { <-s.refusals }()
		f()
	})
}

// decide answers a plugin's panic as an error: one bad pod does not stop the others.
func decide(s rules.Snapshot) (plan rules.Plan, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Table.Forget()
			err = fmt.Errorf("a plugin panicked: %v", p)
		}
	}()
	return rules.Decide(s)
}

func (s *Scheduler) count(w *waiting, result string, began time.Time) {
	s.metrics.attempts.WithLabelValues(w.raw.Spec.SchedulerName, result).Inc()
	s.metrics.duration.WithLabelValues(w.raw.Spec.SchedulerName, result).Observe(time.Since(began).Seconds())
}

// gauge brings the gauges up to now.
func (s *Scheduler) gauge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	nodes, pods := s.table.Len()
	s.metrics.cache.WithLabelValues("nodes").Set(float64(nodes))
	s.metrics.cache.WithLabelValues("pods").Set(float64(pods))
	s.metrics.cache.WithLabelValues("assumed_pods").Set(float64(len(s.assumed)))
	s.metrics.goroutines.WithLabelValues("binding").Set(float64(len(s.slots)))
	s.metrics.settle()
	s.metrics.refusing.Reset()
	s.metrics.inflight.Reset()
	for _, w := range s.queue.all {
		for _, plugin := range w.rejectors {
			s.metrics.refusing.WithLabelValues(plugin, w.raw.Spec.SchedulerName).Inc()
		}
		for _, e := range w.missed {
			s.metrics.inflight.WithLabelValues(eventName(e.Kind)).Inc()
		}
	}
	for part, n := range s.queue.sizes() {
		s.metrics.pending.WithLabelValues(part).Set(float64(n))
	}
	leading := 0.0
	if s.leading.Load() {
		leading = 1
	}
	s.metrics.leader.WithLabelValues(s.config.LeaseName).Set(leading)
}
