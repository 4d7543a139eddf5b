// Package nodelifecycle believes a node well as long as it is heard of, says so in its taints, and moves pods off nodes
// that they do not tolerate.
//
// The flow: a node's status or lease brings its key; when it changed is noted by our own clock; decide says what to write.
// A second controller watches taints and pods and deletes the pods whose time on a node is over. What was seen when is
// the only state, guarded by a mutex.
package nodelifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationlisters "k8s.io/client-go/listers/coordination/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// Config is how patient the controller is.
type Config struct {
	Grace        time.Duration // how long a node may be silent
	StartupGrace time.Duration // the same for one that was never heard of
	Period       time.Duration // how often zones are looked at
	// How many nodes a second a zone gives up: a healthy one, and a large one of which Unhealthy, a part of 1, is not well.
	Rate, SecondaryRate float32
	Unhealthy           float32
	Large               int // from how many nodes on a zone is large
}

// heard is when something of a node last changed.
type heard struct {
	lease  *metav1.MicroTime
	status []corev1.NodeCondition
	at     time.Time
}

type controller struct {
	runtime.Deps
	Config
	nodes  corelisters.NodeLister
	leases coordinationlisters.LeaseLister
	pods   cache.Indexer

	mu     sync.Mutex
	heard  map[string]heard
	zones  zones
	looked time.Time            // when zones was made
	next   map[string]time.Time // when a zone may give up its next node
	// leaving is when a pod was first seen on a node that it may not stay on.
	leaving map[types.UID]time.Time
}

// byNode is the index of pods by their node.
const byNode = "spec.nodeName"

// New answers the controller of nodes.
func New(d runtime.Deps, conf Config) *runtime.Controller {
	nodes, leases := d.Informers.Core().V1().Nodes(), d.Informers.Coordination().V1().Leases()
	c := &controller{
		Deps: d, Config: conf, nodes: nodes.Lister(), leases: leases.Lister(), pods: podsByNode(d), heard: map[string]heard{}, next: map[string]time.Time{},
	}
	return &runtime.Controller{
		Name: "node-lifecycle-controller", Account: "node-controller", Queue: "node_lifecycle_controller", For: "the health of nodes, in their conditions and taints",
		Watches: []runtime.Watch{
			{What: "nodes", Informer: nodes.Informer(), Keys: runtime.Self},
			{What: "leases", Informer: leases.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				if obj.GetNamespace() != corev1.NamespaceNodeLease {
					return nil
				}
				return []runtime.Key{{Name: obj.GetName()}}
			}},
			{What: "pods", Informer: d.Informers.Core().V1().Pods().Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return nil }},
		},
		Writes: []string{"nodes", "nodes/status", "pods/status"}, Start: c.follow, Reconcile: c.node,
	}
}

// NewEviction answers the controller of the pods on tainted nodes.
func NewEviction(d runtime.Deps) *runtime.Controller {
	nodes, pods := d.Informers.Core().V1().Nodes(), d.Informers.Core().V1().Pods()
	c := &controller{Deps: d, nodes: nodes.Lister(), pods: podsByNode(d), leaving: map[types.UID]time.Time{}}
	forget := func(pod metav1.Object) {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.leaving, pod.GetUID())
	}
	return &runtime.Controller{
		Name: "taint-eviction-controller", Account: "node-controller", Queue: "noexec_taint_pod", For: "pods leave nodes whose taints they do not tolerate",
		Watches: []runtime.Watch{
			{What: "pods", Informer: pods.Informer(), Keys: c.onTainted, Gone: forget},
			{What: "nodes", Informer: nodes.Informer(), Keys: c.podsOf},
		},
		Writes: []string{"pods"}, Workers: 8, Reconcile: c.pod,
	}
}

// podsByNode indexes pods by their node, once for both controllers.
func podsByNode(d runtime.Deps) cache.Indexer {
	i := d.Informers.Core().V1().Pods().Informer()
	if _, ok := i.GetIndexer().GetIndexers()[byNode]; !ok {
		// The only error is that the index exists, which was just asked.
		_ = i.AddIndexers(cache.Indexers{byNode: func(obj any) ([]string, error) {
			if p, ok := obj.(*corev1.Pod); ok && p.Spec.NodeName != "" {
				return []string{p.Spec.NodeName}, nil
			}
			return nil, nil
		}})
	}
	return i.GetIndexer()
}

func (c *controller) on(node string) []*corev1.Pod {
	objs, err := c.pods.ByIndex(byNode, node)
	if err != nil {
		return nil // there is no such index: New made it
	}
	out := make([]*corev1.Pod, 0, len(objs))
	for _, o := range objs {
		out = append(out, o.(*corev1.Pod))
	}
	return out
}

// onTainted answers a pod whose node expels pods. On one that does not, or is not seen yet, there is nothing to do until its taints change.
func (c *controller) onTainted(_, obj metav1.Object) []runtime.Key {
	n, err := c.nodes.Get(obj.(*corev1.Pod).Spec.NodeName)
	if err != nil || !expels(n) {
		return nil
	}
	return []runtime.Key{runtime.KeyOf(obj)}
}

// expels tells whether a node has a taint that pods leave for.
func expels(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute })
}

// podsOf answers the pods on a node whose taints changed, if any of them has pods leave or had.
func (c *controller) podsOf(old, obj metav1.Object) []runtime.Key {
	n := obj.(*corev1.Node)
	o, ok := old.(*corev1.Node)
	if ok && o != nil && equality.Semantic.DeepEqual(o.Spec.Taints, n.Spec.Taints) || !expels(n) && (o == nil || !expels(o)) {
		return nil
	}
	var keys []runtime.Key
	for _, p := range c.on(n.Name) {
		keys = append(keys, runtime.KeyOf(p))
	}
	return keys
}

// renewed notes what is new of a node and answers when it last was heard of.
func (c *controller) renewed(n *corev1.Node, now time.Time) time.Time {
	var renew *metav1.MicroTime
	if l, err := c.leases.Leases(corev1.NamespaceNodeLease).Get(n.Name); err == nil {
		renew = l.Spec.RenewTime
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h, known := c.heard[n.Name]
	beat := heartbeats(n)
	switch {
	case !known:
		h = heard{renew, beat, now}
		c.Event(n, runtime.Normal, "RegisteredNode", fmt.Sprintf("Node %s event: Registered Node %s in Controller", n.Name, n.Name))
	case renew != nil && (h.lease == nil || !renew.Equal(h.lease)) || !equality.Semantic.DeepEqual(beat, h.status):
		h = heard{renew, beat, now}
	}
	c.heard[n.Name] = h
	return h.at
}

// heartbeats are the conditions that the kubelet wrote itself.
func heartbeats(n *corev1.Node) []corev1.NodeCondition {
	var out []corev1.NodeCondition
	for _, c := range n.Status.Conditions {
		if c.Reason != unknownReason {
			out = append(out, c)
		}
	}
	return out
}

// unknownReason marks conditions that we set for a node that is silent.
const unknownReason = "NodeStatusUnknown"

func (c *controller) node(ctx context.Context, key runtime.Key) (time.Duration, error) {
	n, err := c.nodes.Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.mu.Lock()
		delete(c.heard, key.Name)
		c.mu.Unlock()
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
	grace := c.Grace
	if !hasCondition(n) {
		grace = c.StartupGrace
	}
	renewed := c.renewed(n, now)
	z := c.look(now)
	sight := Sight{Node: n, Renewed: renewed, Created: n.CreationTimestamp.Time, Now: now, Grace: grace, Dark: z.dark}
	p := decide(sight)
	if p.Unknown {
		// Its taints follow from what is written here, with the turn that the change brings.
		return time.Second, c.unknown(ctx, n, now)
	}
	if p.Held {
		var wait time.Duration
		if sight.Turn, wait = c.turn(z, zoneOf(n), now); sight.Turn {
			p = decide(sight)
		} else if p.Again == 0 || wait < p.Again {
			p.Again = wait
		}
	}
	if p.Taints != nil {
		slog.Info("node taints", "node", n.Name, "ready", p.Ready)
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"resourceVersion": n.ResourceVersion, "uid": n.UID}, "spec": map[string]any{"taints": p.Taints},
		})
		if err != nil {
			return 0, err
		}
		if _, err := c.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			if sight.Turn {
				c.giveBack(zoneOf(n), now)
			}
			return 0, err
		}
		// Its pods are for the turn that this change brings: when many nodes fall silent together, all have their taints before
		// the pods of any are written.
		return p.Again, nil
	}
	if p.Ready != corev1.ConditionTrue && p.Ready != "" {
		if err := c.unready(ctx, n); err != nil {
			return 0, err
		}
	}
	return p.Again, nil
}

// unknown says of every condition of a silent node that nobody knows.
func (c *controller) unknown(ctx context.Context, n *corev1.Node, now time.Time) error {
	next := n.DeepCopy()
	at := metav1.NewTime(now.Truncate(time.Second))
	known := map[corev1.NodeConditionType]bool{}
	for i := range next.Status.Conditions {
		cond := &next.Status.Conditions[i]
		known[cond.Type] = true
		if cond.Status != corev1.ConditionUnknown {
			cond.Status, cond.Reason, cond.Message, cond.LastTransitionTime = corev1.ConditionUnknown, unknownReason, "Kubelet stopped posting node status.", at
		}
	}
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		if !known[t] {
			next.Status.Conditions = append(next.Status.Conditions, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.", LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: at,
			})
		}
	}
	_, err := c.Client.CoreV1().Nodes().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if err == nil {
		c.Event(n, runtime.Normal, "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady", n.Name))
	}
	return err
}

// unready takes the pods of a node that is not ready out of their services.
func (c *controller) unready(ctx context.Context, n *corev1.Node) error {
	pods := c.on(n.Name)
	return runtime.Each(len(pods), func(at int) error {
		p := pods[at]
		if _, ready := runtime.Ready(p); !ready {
			return nil
		}
		err := c.say(ctx, p, map[string]any{"type": corev1.PodReady, "status": corev1.ConditionFalse, "lastTransitionTime": metav1.Now()})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
		c.Event(p, runtime.Warning, "NodeNotReady", "Node is not ready")
		return nil
	})
}

// since answers when a pod was first seen on a tainted node, which is now for one that was not. Users' taints do not tell
// when they came.
func (c *controller) since(uid types.UID, now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.leaving[uid]; !ok {
		c.leaving[uid] = now
	}
	return c.leaving[uid]
}

// pod deletes a pod whose time on its node is over.
func (c *controller) pod(ctx context.Context, key runtime.Key) (time.Duration, error) {
	obj, exists, err := c.pods.GetByKey(key.Namespace + "/" + key.Name)
	if err != nil || !exists {
		return 0, err
	}
	p := obj.(*corev1.Pod)
	if p.Spec.NodeName == "" || p.DeletionTimestamp != nil {
		return 0, nil
	}
	n, err := c.nodes.Get(p.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
	at, leaves := evictAt(p, n.Spec.Taints, c.since(p.UID, now))
	if !leaves {
		c.mu.Lock()
		delete(c.leaving, p.UID)
		c.mu.Unlock()
		return 0, nil
	}
	if wait := at.Sub(now); wait > 0 {
		return wait, nil
	}
	c.Event(p, runtime.Normal, "TaintManagerEviction", fmt.Sprintf("Marking for deletion Pod %s/%s", p.Namespace, p.Name))
	if err := c.tell(ctx, p, now); err != nil {
		return 0, err
	}
	err = c.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}

// evicted is why a pod is taken away, as its condition says.
const evicted = "DeletionByTaintManager"

// tell writes into a pod why it goes, unless a life that ended before it deleted the pod has done so.
func (c *controller) tell(ctx context.Context, p *corev1.Pod, now time.Time) error {
	if runtime.Told(p, evicted) {
		return nil
	}
	err := c.say(ctx, p, map[string]any{
		"type": corev1.DisruptionTarget, "status": corev1.ConditionTrue, "reason": evicted, "message": "Taint manager: deleting due to NoExecute taint",
		"lastTransitionTime": metav1.NewTime(now),
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// say writes a condition into a pod that is still as it was looked at. The cache holds no whole pod to write back.
func (c *controller) say(ctx context.Context, p *corev1.Pod, condition map[string]any) error {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.UID, "resourceVersion": p.ResourceVersion}, "status": map[string]any{"conditions": []any{condition}},
	})
	if err != nil {
		return err
	}
	_, err = c.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	return err
}
