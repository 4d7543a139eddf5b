// Package eviction keeps the node from running out of memory, disk or process numbers by ending pods in time.
//
// Flow: every few seconds Manager observes the node -> judge says which thresholds are met and which conditions hold ->
// disk is first reclaimed from images -> only when that is not enough, pods are measured, ranked and the first of them
// evicted. Beside that, pods which outgrow their own disk limits go. Run owns the one goroutine; Conditions may be asked
// from anywhere.
package eviction

import (
	"context"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Config is what a Manager works with.
type Config struct {
	Thresholds []Threshold
	// Transition is how long a condition outlives its cause.
	Transition time.Duration
	// MaxGrace bounds the grace of pods which a soft threshold ends, seconds.
	MaxGrace int64
	// Observe is what is left of each signal's resource.
	Observe func(ctx context.Context) map[Signal]Observation
	// Measure is what each pod uses; it costs.
	Measure func(ctx context.Context) (*stats.Summary, error)
	// Folder is what an emptyDir of a pod holds, bytes.
	Folder func(pod *v1.Pod, volume string) int64
	Pods   func() []*v1.Pod
	// Reclaim frees disk without ending anybody.
	Reclaim func(ctx context.Context)
	// Evict ends a pod with so many seconds' grace; signal is what it is counted under.
	Evict func(pod *v1.Pod, signal, message string, grace int64)
	// Changed is called when a condition begins or ends.
	Changed func()
	Log     *slog.Logger
}

// every is how often the node is looked at, and under pressure.
const (
	every         = 10 * time.Second
	everyPressure = 2 * time.Second
)

// Manager watches one node.
type Manager struct {
	cfg Config

	mu         sync.Mutex
	conditions map[v1.NodeConditionType]bool
	met        map[int]time.Time
	last       map[v1.NodeConditionType]time.Time
}

// New makes a Manager.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg, conditions: map[v1.NodeConditionType]bool{}, met: map[int]time.Time{}, last: map[v1.NodeConditionType]time.Time{}}
}

// Under tells whether a condition holds.
func (m *Manager) Under(c v1.NodeConditionType) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conditions[c]
}

// Run watches until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := every
		if m.step(ctx) {
			wait = everyPressure
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// step looks once and answers whether the node is under pressure.
func (m *Manager) step(ctx context.Context) bool {
	v := m.judge(m.cfg.Observe(ctx))
	if len(v.Act) > 0 && disk(v.Act[0].Threshold.Signal) {
		m.cfg.Reclaim(ctx)
		v = m.judge(m.cfg.Observe(ctx))
	}
	pods := m.cfg.Pods()
	if len(v.Act) > 0 {
		m.evict(ctx, v.Act[0], pods)
	} else {
		m.limits(ctx, pods)
	}
	return len(v.Conditions) > 0
}

func (m *Manager) judge(seen map[Signal]Observation) Verdict {
	m.mu.Lock()
	v := decide(Snapshot{Now: time.Now(), Thresholds: m.cfg.Thresholds, Transition: m.cfg.Transition, Seen: seen, Met: m.met, Last: m.last})
	changed := len(v.Conditions) != len(m.conditions)
	for c := range v.Conditions {
		changed = changed || !m.conditions[c]
	}
	m.conditions, m.met, m.last = v.Conditions, v.Met, v.Last
	m.mu.Unlock()
	if changed {
		m.cfg.Log.Info("node conditions", "pressure", v.Conditions)
		m.cfg.Changed()
	}
	return v
}

// evict ends one pod: the next look tells whether that was enough.
func (m *Manager) evict(ctx context.Context, a Act, pods []*v1.Pod) {
	sum, err := m.cfg.Measure(ctx)
	if err != nil {
		m.cfg.Log.Warn("measuring pods", "err", err)
		return
	}
	ranked := rank(a.Threshold.Signal, candidates(pods, sum))
	if len(ranked) == 0 {
		m.cfg.Log.Warn("nothing can be evicted", "signal", a.Threshold.Signal)
		return
	}
	p := ranked[0]
	grace := int64(0)
	if !a.Threshold.Hard {
		grace = m.cfg.MaxGrace
		if g := p.Pod.Spec.TerminationGracePeriodSeconds; g != nil {
			grace = min(grace, *g)
		}
	}
	m.cfg.Evict(p.Pod, string(a.Threshold.Signal), message(a, p), grace)
}

// limits ends pods which outgrew what they may keep on disk. Only those which have such a limit are measured.
func (m *Manager) limits(ctx context.Context, pods []*v1.Pod) {
	var bounded []*v1.Pod
	for _, p := range pods {
		if ended(p) {
			continue
		}
		for _, v := range p.Spec.Volumes {
			if v.EmptyDir == nil || v.EmptyDir.SizeLimit == nil || v.EmptyDir.Medium == v1.StorageMediumMemory || v.EmptyDir.SizeLimit.IsZero() {
				continue
			}
			if m.cfg.Folder(p, v.Name) > v.EmptyDir.SizeLimit.Value() {
				m.cfg.Evict(p, "emptydirfs.limit", emptyDirText(v.Name, v.EmptyDir.SizeLimit.String()), 1)
				return
			}
		}
		if storageLimited(p) {
			bounded = append(bounded, p)
		}
	}
	if len(bounded) == 0 {
		return
	}
	sum, err := m.cfg.Measure(ctx)
	if err != nil {
		m.cfg.Log.Warn("measuring pods", "err", err)
		return
	}
	for _, u := range candidates(bounded, sum) {
		if text := overLimit(u); text != "" {
			m.cfg.Evict(u.Pod, "ephemeralpodfs.limit", text, 1)
		}
	}
}
