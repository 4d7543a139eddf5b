// Package disruption counts, for every disruption budget, how many of its pods may be evicted now.
//
// A budget, or a pod that it selects, brings the budget's key; decide compares how many pods are healthy with how many
// have to be, and the eviction endpoint of the apiserver spends what the status allows. No state is kept here: an eviction
// that was allowed and not seen yet is in the status' disruptedPods. A pod that says that it is taken away, and is not, says so no more
// after a while: keys that begin with "pod/" are those of pods.
package disruption

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

type controller struct {
	runtime.Deps
	budgets     policylisters.PodDisruptionBudgetLister
	pods        corelisters.PodLister
	podsOf      func(namespace string, s *metav1.LabelSelector) ([]*corev1.Pod, error)
	budgetsOf   func(namespace string, of map[string]string) []*policyv1.PodDisruptionBudget
	sets        appslisters.ReplicaSetLister
	deployments appslisters.DeploymentLister
	stateful    appslisters.StatefulSetLister
	controllers corelisters.ReplicationControllerLister
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	budgets, pods, apps := d.Informers.Policy().V1().PodDisruptionBudgets(), d.Informers.Core().V1().Pods(), d.Informers.Apps().V1()
	rcs := d.Informers.Core().V1().ReplicationControllers()
	c := &controller{
		Deps: d, budgets: budgets.Lister(), pods: pods.Lister(), podsOf: runtime.PodsMatching(d), sets: apps.ReplicaSets().Lister(), deployments: apps.Deployments().Lister(),
		stateful: apps.StatefulSets().Lister(), controllers: rcs.Lister(),
		budgetsOf: runtime.Selecting(budgets.Informer(), func(b *policyv1.PodDisruptionBudget) (string, *metav1.LabelSelector) {
			return b.Namespace, b.Spec.Selector
		}),
	}
	selecting := runtime.Moved(c.selecting)
	return &runtime.Controller{
		Name: "disruption-controller", Account: "disruption-controller", Queue: "disruption", For: "how many pods of a disruption budget may be evicted",
		Watches: []runtime.Watch{
			{What: "poddisruptionbudgets", Informer: budgets.Informer(), Keys: runtime.Self},
			{What: "pods", Informer: pods.Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
				return append(selecting(old, obj), disrupted(obj)...)
			}},
			// Their number of replicas is what percentages are of.
			{What: "replicasets", Informer: apps.ReplicaSets().Informer(), Keys: c.inNamespace},
			{What: "deployments", Informer: apps.Deployments().Informer(), Keys: c.inNamespace},
			{What: "statefulsets", Informer: apps.StatefulSets().Informer(), Keys: c.inNamespace},
			{What: "replicationcontrollers", Informer: rcs.Informer(), Keys: c.inNamespace},
		},
		Writes: []string{"poddisruptionbudgets/status", "pods/status"}, Reconcile: c.reconcile,
	}
}

// selecting answers the budgets that select a pod, or did before it changed.
func (c *controller) selecting(old, obj metav1.Object) (keys []runtime.Key) {
	found := c.budgetsOf(obj.GetNamespace(), obj.GetLabels())
	if old != nil && !maps.Equal(old.GetLabels(), obj.GetLabels()) {
		found = append(found, c.budgetsOf(obj.GetNamespace(), old.GetLabels())...)
	}
	for _, b := range found {
		keys = append(keys, runtime.KeyOf(b))
	}
	return keys
}

// inNamespace answers the budgets beside an owner whose wishes changed.
func (c *controller) inNamespace(old, obj metav1.Object) []runtime.Key {
	if old != nil && old.GetGeneration() == obj.GetGeneration() {
		return nil
	}
	budgets, err := c.budgets.PodDisruptionBudgets(obj.GetNamespace()).List(labels.Everything())
	if err != nil {
		return nil
	}
	keys := make([]runtime.Key, 0, len(budgets))
	for _, b := range budgets {
		keys = append(keys, runtime.KeyOf(b))
	}
	return keys
}

// ofPod is what the keys of pods begin with; no budget's name has a slash.
const ofPod = "pod/"

// disrupted answers the key of a pod that says that it is taken away.
func disrupted(obj metav1.Object) []runtime.Key {
	if says, _ := stale(obj.(*corev1.Pod), time.Now()); !says {
		return nil
	}
	return []runtime.Key{{Namespace: obj.GetNamespace(), Name: ofPod + obj.GetName()}}
}

// settle has a pod that was not taken away after all say so.
func (c *controller) settle(ctx context.Context, namespace, name string) (time.Duration, error) {
	p, err := c.pods.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
	if says, left := stale(p, now); !says || left > 0 {
		return left, nil
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.UID, "resourceVersion": p.ResourceVersion},
		"status": map[string]any{"conditions": []map[string]any{{
			"type": corev1.DisruptionTarget, "status": corev1.ConditionFalse, "observedGeneration": p.Generation, "lastTransitionTime": metav1.NewTime(now),
			"reason": nil, "message": nil, // they told why it was to go
		}}},
	})
	if err != nil {
		return 0, err
	}
	_, err = c.Client.CoreV1().Pods(namespace).Patch(ctx, name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	if pod, ok := strings.CutPrefix(key.Name, ofPod); ok {
		return c.settle(ctx, key.Namespace, pod)
	}
	b, err := c.budgets.PodDisruptionBudgets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	all, err := c.podsOf(b.Namespace, b.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("finding the pods of budget %s: %w", key, err)
	}
	s, owners := Snapshot{Budget: b, Owners: map[types.UID]Owner{}, Now: time.Now()}, map[types.UID]Owner{}
	for _, p := range all {
		if runtime.Finished(p) {
			continue
		}
		s.Pods = append(s.Pods, p)
		if ref := metav1.GetControllerOf(p); ref != nil {
			if _, known := owners[ref.UID]; !known {
				owners[ref.UID] = c.owner(ctx, p, ref)
			}
			s.Owners[p.UID] = owners[ref.UID]
		}
	}
	if len(all) == 0 {
		c.Event(b, runtime.Normal, "NoPods", "No matching pods found")
	}
	p := decide(s)
	if p.Unmanaged {
		c.Event(b, runtime.Warning, "UnmanagedPods", fmt.Sprintf("Pods selected by this PodDisruptionBudget (selector: %v) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", b.Spec.Selector))
	}
	if p.Failed != "" {
		c.Event(b, runtime.Warning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: "+p.Failed)
	}
	if p.Status == nil {
		return p.Again, nil
	}
	slog.Debug("disruption budget", "key", key.String(), "plan", p.String())
	next := b.DeepCopy()
	next.Status = *p.Status
	_, err = c.Client.PolicyV1().PodDisruptionBudgets(b.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return p.Again, err
}

// owner finds what scales a pod: a deployment rather than its replica set.
func (c *controller) owner(ctx context.Context, p *corev1.Pod, ref *metav1.OwnerReference) Owner {
	out := Owner{UID: ref.UID}
	var n *int32
	var err error
	var uid types.UID
	switch ref.Kind {
	case "ReplicaSet":
		set, e := c.sets.ReplicaSets(p.Namespace).Get(ref.Name)
		if err = e; err != nil {
			break
		}
		uid, n = set.UID, set.Spec.Replicas
		if up := metav1.GetControllerOf(set); up != nil && up.Kind == "Deployment" {
			d, e := c.deployments.Deployments(p.Namespace).Get(up.Name)
			if e == nil && d.UID == up.UID {
				out.UID, n = d.UID, d.Spec.Replicas
			}
		}
	case "StatefulSet":
		set, e := c.stateful.StatefulSets(p.Namespace).Get(ref.Name)
		if err = e; err == nil {
			uid, n = set.UID, set.Spec.Replicas
		}
	case "ReplicationController":
		rc, e := c.controllers.ReplicationControllers(p.Namespace).Get(ref.Name)
		if err = e; err == nil {
			uid, n = rc.UID, rc.Spec.Replicas
		}
	default:
		return c.scaled(ctx, p.Namespace, ref)
	}
	if err != nil || uid != ref.UID {
		return out // it is gone: nothing is to be of it
	}
	out.Scale = 1
	if n != nil {
		out.Scale = *n
	}
	return out
}
