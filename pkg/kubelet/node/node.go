// Package node tells the API about the node.
//
// Flow: Run registers the Node object (retrying until the API answers), then keeps two clocks: the Lease every quarter
// of its duration, the status when it changed or its report is due. Pods and images on the node are none of its affair.
// Object may be called from any goroutine; everything else belongs to Run's.
package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/tools/record"

	"github.com/sextant-k8s/sextant/pkg/kubelet/api"
)

// Config is what a Reporter works with.
type Config struct {
	Client   *api.Client
	Name     string
	IPs      []string
	Labels   map[string]string
	Taints   []v1.Taint
	Register bool
	// ProviderID is how a cloud calls the node. External is set where a provider's controller tells the node's addresses; Provided
	// is then the one it must keep to, or empty.
	ProviderID, Provided string
	External             bool
	// Lease, Status and Report are the lease's duration, and how often the status is looked at and, unchanged, written.
	Lease, Status, Report time.Duration
	// Facts is the node's status as seen now, without conditions' times.
	Facts    func(ctx context.Context) v1.NodeStatus
	Recorder record.EventRecorder
	Log      *slog.Logger
}

// Reporter keeps the node's API objects true.
type Reporter struct {
	cfg  Config
	poke chan struct{}

	mu     sync.Mutex
	object *v1.Node
}

// New makes a Reporter.
func New(cfg Config) *Reporter { return &Reporter{cfg: cfg, poke: make(chan struct{}, 1)} }

// Object is the Node as last read or written; nil before it is registered.
func (r *Reporter) Object() *v1.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.object
}

// Refresh reads the Node again and answers it; the last one known when the API does not answer.
func (r *Reporter) Refresh(ctx context.Context) *v1.Node {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if n, err := r.cfg.Client.Nodes.Get(ctx, "", r.cfg.Name); err == nil {
		r.keep(n)
	}
	return r.Object()
}

// Poke has the status looked at again soon.
func (r *Reporter) Poke() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := r.register(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		r.cfg.Log.Warn("registering the node", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
	r.cfg.Log.Info("the node is registered", "node", r.cfg.Name)
	ref := &v1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: r.cfg.Name, UID: types.UID(r.cfg.Name)}
	r.cfg.Recorder.Event(ref, v1.EventTypeNormal, "Starting", "Starting kubelet.")
	var wg sync.WaitGroup
	wg.Go(func() { r.leases(ctx) })
	r.statuses(ctx)
	wg.Wait()
	return nil
}

func (r *Reporter) register(ctx context.Context) error {
	nodes := r.cfg.Client.Nodes
	have, err := nodes.Get(ctx, "", r.cfg.Name)
	if apierrors.IsNotFound(err) && r.cfg.Register {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.cfg.Name, Labels: r.cfg.Labels, Annotations: map[string]string{
			"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}, Spec: v1.NodeSpec{Taints: r.cfg.Taints, ProviderID: r.cfg.ProviderID}}
		if r.cfg.Provided != "" {
			n.Annotations["alpha.kubernetes.io/provided-node-ip"] = r.cfg.Provided
		}
		n.Status = r.stamp(r.cfg.Facts(ctx), v1.NodeStatus{})
		have, err = nodes.Create(ctx, "", n)
		if apierrors.IsAlreadyExists(err) {
			have, err = nodes.Get(ctx, "", r.cfg.Name)
		}
	}
	if err != nil {
		return err
	}
	r.keep(have)
	labels := map[string]string{}
	for k, v := range r.cfg.Labels {
		if have.Labels[k] != v {
			labels[k] = v
		}
	}
	if len(labels) > 0 {
		raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
		if err != nil {
			return err
		}
		if have, err = nodes.Patch(ctx, "", r.cfg.Name, types.StrategicMergePatchType, raw); err != nil {
			return err
		}
		r.keep(have)
	}
	return nil
}

func (r *Reporter) keep(n *v1.Node) {
	n.ManagedFields = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	r.object = n
}

// patience bounds a heartbeat: on a connection that died with the network it would wait much longer than the cluster does.
const patience = 10 * time.Second

func (r *Reporter) leases(ctx context.Context) {
	leases := r.cfg.Client.Leases
	var last *coordv1.Lease
	period := r.cfg.Lease / 4
	for ctx.Err() == nil {
		beat, cancel := context.WithTimeout(ctx, patience)
		secs, now := int32(r.cfg.Lease/time.Second), metav1.NowMicro()
		var err error
		if last == nil {
			last, err = leases.Get(beat, v1.NamespaceNodeLease, r.cfg.Name)
		}
		l := &coordv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: r.cfg.Name, Namespace: v1.NamespaceNodeLease}}
		if err == nil && last != nil {
			l = last.DeepCopy()
		}
		l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &r.cfg.Name, &secs, &now
		if n := r.Object(); n != nil && len(l.OwnerReferences) == 0 {
			l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
		}
		switch {
		case apierrors.IsNotFound(err):
			last, err = leases.Create(beat, v1.NamespaceNodeLease, l)
		case err == nil:
			last, err = leases.Update(beat, v1.NamespaceNodeLease, l.Name, l)
		}
		cancel()
		wait := period
		if err != nil {
			last = nil
			if ctx.Err() == nil {
				r.cfg.Log.Warn("renewing the lease", "err", err)
			}
			wait = min(period, time.Second)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (r *Reporter) statuses(ctx context.Context) {
	var reported time.Time
	for ctx.Err() == nil {
		facts := r.cfg.Facts(ctx)
		err := r.write(ctx, facts, &reported)
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("writing the node's status", "err", err)
		}
		wait := r.cfg.Status
		if err != nil {
			wait = min(wait, 2*time.Second)
		} else if !ready(facts) {
			wait = min(wait, 500*time.Millisecond)
		}
		select {
		case <-ctx.Done():
		case <-r.poke:
		case <-time.After(wait):
		}
	}
}

func ready(s v1.NodeStatus) bool {
	for _, c := range s.Conditions {
		if c.Type == v1.NodeReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func (r *Reporter) write(ctx context.Context, facts v1.NodeStatus, reported *time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// What the server has counts, not what was written last: while the node was silent others spoke for it.
	old := r.Refresh(ctx)
	next := r.stamp(facts, old.Status)
	due := time.Since(*reported) >= r.cfg.Report
	if !due && apiequality.Semantic.DeepEqual(still(next), still(old.Status)) {
		return nil
	}
	// Others write here too (attached volumes, tainting controllers): read before writing.
	have, err := r.cfg.Client.Nodes.Get(ctx, "", r.cfg.Name)
	if apierrors.IsNotFound(err) {
		return r.register(ctx)
	}
	if err != nil {
		return err
	}
	next = r.stamp(facts, have.Status)
	a, err := json.Marshal(v1.Node{Status: have.Status})
	if err != nil {
		return err
	}
	b, err := json.Marshal(v1.Node{Status: next})
	if err != nil {
		return err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(a, b, v1.Node{})
	if err != nil {
		return err
	}
	n, err := r.cfg.Client.Nodes.Patch(ctx, "", r.cfg.Name, types.StrategicMergePatchType, patch, "status")
	if err != nil {
		return fmt.Errorf("patching node %s: %w", r.cfg.Name, err)
	}
	*reported = time.Now()
	r.keep(n)
	return nil
}

// stamp gives facts their condition times, and keeps what the node does not own.
func (r *Reporter) stamp(facts, old v1.NodeStatus) v1.NodeStatus {
	out := facts
	now := metav1.Now()
	out.VolumesAttached, out.Phase = old.VolumesAttached, old.Phase
	if r.cfg.External && len(old.Addresses) > 0 {
		out.Addresses = old.Addresses
	}
	out.Conditions = nil
	own := map[v1.NodeConditionType]bool{}
	for _, c := range facts.Conditions {
		own[c.Type] = true
		c.LastHeartbeatTime, c.LastTransitionTime = now, now
		for _, o := range old.Conditions {
			if o.Type == c.Type && o.Status == c.Status {
				c.LastTransitionTime = o.LastTransitionTime
			}
		}
		out.Conditions = append(out.Conditions, c)
	}
	for _, o := range old.Conditions {
		if !own[o.Type] {
			out.Conditions = append(out.Conditions, o)
		}
	}
	// Extended resources set through the API are not ours to drop.
	for _, l := range []struct{ dst, src v1.ResourceList }{{out.Capacity, old.Capacity}, {out.Allocatable, old.Allocatable}} {
		extra := maps.Clone(l.src)
		for k, v := range extra {
			if _, ok := l.dst[k]; !ok && l.dst != nil {
				l.dst[k] = v
			}
		}
	}
	return out
}

// still is a status without its heartbeats.
func still(s v1.NodeStatus) v1.NodeStatus {
	out := *s.DeepCopy()
	for i := range out.Conditions {
		out.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return out
}
