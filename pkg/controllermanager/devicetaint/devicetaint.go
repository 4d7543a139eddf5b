// Package devicetaint moves pods off devices whose taints they do not tolerate.
//
// A pod brings its key, and so do the claims and slices of devices that it depends on, and rules about those; decide says when it has to leave. A
// pod is told why in a condition before it is deleted. A rule brings a key without namespace: decideRule answers what its condition says of
// the pods that have to go. How many have gone for it since the start is kept, and which of them the cache still shows, guarded by a mutex.
package devicetaint

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	resourcelisters "k8s.io/client-go/listers/resource/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

type controller struct {
	runtime.Deps
	pods   corelisters.PodLister
	claims resourcelisters.ResourceClaimLister
	rules  resourcelisters.DeviceTaintRuleLister
	slices resourcelisters.ResourceSliceLister
	with   func(pool string) []*resourcev1.ResourceClaim // claims that have devices of a pool
	of     func(pool string) []*resourcev1.ResourceSlice

	mu      sync.Mutex
	evicted map[types.UID]int  // by rule
	left    map[types.UID]bool // pods that were deleted and are in the cache yet
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	pods, api := d.Informers.Core().V1().Pods(), d.Informers.Resource().V1()
	c := &controller{
		Deps: d, pods: pods.Lister(), claims: api.ResourceClaims().Lister(), rules: api.DeviceTaintRules().Lister(), slices: api.ResourceSlices().Lister(), evicted: map[types.UID]int{}, left: map[types.UID]bool{},
		with: runtime.By(api.ResourceClaims().Informer(), "pools", func(x *resourcev1.ResourceClaim) (out []string) {
			if x.Status.Allocation == nil {
				return nil
			}
			for _, r := range x.Status.Allocation.Devices.Results {
				out = append(out, r.Driver+"/"+r.Pool)
			}
			return out
		}),
		of: runtime.By(api.ResourceSlices().Informer(), "pools", func(x *resourcev1.ResourceSlice) []string {
			return []string{x.Spec.Driver + "/" + x.Spec.Pool.Name}
		}),
	}
	return &runtime.Controller{
		Name: "device-taint-eviction-controller", Account: "device-taint-eviction-controller", Queue: "device_taint_eviction", For: "pods leave devices whose taints they do not tolerate", Workers: 8,
		Watches: []runtime.Watch{
			{What: "pods", Informer: pods.Informer(), Gone: func(o metav1.Object) { c.ended(o.GetUID()) }, Keys: func(_, obj metav1.Object) []runtime.Key {
				if p := obj.(*corev1.Pod); len(p.Spec.ResourceClaims) == 0 && p.Status.ExtendedResourceClaimStatus == nil {
					return nil
				}
				return []runtime.Key{runtime.KeyOf(obj)}
			}},
			{What: "resourceclaims", Informer: api.ResourceClaims().Informer(), Keys: func(_, obj metav1.Object) []runtime.Key { return users(obj.(*resourcev1.ResourceClaim)) }},
			{What: "resourceslices", Informer: api.ResourceSlices().Informer(), Keys: func(_, obj metav1.Object) (keys []runtime.Key) {
				s := obj.(*resourcev1.ResourceSlice)
				for _, x := range c.with(s.Spec.Driver + "/" + s.Spec.Pool.Name) {
					keys = append(keys, users(x)...)
				}
				return keys
			}},
			{What: "devicetaintrules", Informer: api.DeviceTaintRules().Informer(), Optional: true, Keys: func(_, obj metav1.Object) []runtime.Key {
				return append(c.under(obj.(*resourcev1.DeviceTaintRule)), runtime.KeyOf(obj))
			}},
		},
		Writes: []string{"pods", "pods/status", "devicetaintrules/status"}, Reconcile: c.reconcile,
	}
}

// users answers the pods that a claim is for.
func users(x *resourcev1.ResourceClaim) (keys []runtime.Key) {
	for _, r := range x.Status.ReservedFor {
		if r.APIGroup == "" && r.Resource == "pods" {
			keys = append(keys, runtime.Key{Namespace: x.Namespace, Name: r.Name})
		}
	}
	return keys
}

// under answers the pods that have devices which a rule taints.
func (c *controller) under(x *resourcev1.DeviceTaintRule) (keys []runtime.Key) {
	all, err := c.claims.List(labels.Everything())
	if err != nil {
		return nil
	}
	for _, claim := range all {
		if has(claim, x) {
			keys = append(keys, users(claim)...)
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	if key.Namespace == "" {
		return c.rule(ctx, key.Name)
	}
	p, err := c.pods.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || stays(p) {
		return 0, err
	}
	s := Snapshot{Pod: p}
	if s.Rules, err = c.rules.List(labels.Everything()); err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	for _, name := range names(p) {
		x, err := c.claims.ResourceClaims(p.Namespace).Get(name)
		if err != nil || x.Status.Allocation == nil {
			continue // its allocation brings this pod again
		}
		s.Claims = append(s.Claims, x)
		for _, r := range x.Status.Allocation.Devices.Results {
			if pool := r.Driver + "/" + r.Pool; !seen[pool] {
				seen[pool] = true
				s.Slices = append(s.Slices, c.of(pool)...)
			}
		}
	}
	at, leaves := decide(s)
	if !leaves {
		return 0, nil
	}
	now := time.Now()
	if wait := at.Sub(now); wait > 0 {
		return wait, nil
	}
	if !c.goes(p.UID) {
		return 0, nil
	}
	if err := c.evict(ctx, p, now); err != nil {
		c.ended(p.UID)
		return 0, err
	}
	c.blame(blamed(s, now))
	return 0, nil
}

// names answers the claims of a pod.
func names(p *corev1.Pod) (out []string) {
	for _, pc := range p.Spec.ResourceClaims {
		if pc.ResourceClaimName != nil {
			out = append(out, *pc.ResourceClaimName)
		}
	}
	for _, st := range p.Status.ResourceClaimStatuses {
		if st.ResourceClaimName != nil {
			out = append(out, *st.ResourceClaimName)
		}
	}
	if x := p.Status.ExtendedResourceClaimStatus; x != nil {
		out = append(out, x.ResourceClaimName)
	}
	return out
}

// reason is why a pod is taken away, as its condition says.
const reason = "DeletionByDeviceTaintManager"

func (c *controller) evict(ctx context.Context, p *corev1.Pod, now time.Time) error {
	c.Event(p, runtime.Normal, "DeviceTaintManagerEviction", fmt.Sprintf("Marking for deletion Pod %s/%s", p.Namespace, p.Name))
	if runtime.Told(p, reason) {
		return runtime.DeletePod(ctx, c.Deps, p)
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": map[string]any{"conditions": []corev1.PodCondition{{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: "Device Taint manager: deleting due to NoExecute taint",
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	}}}})
	if err != nil {
		return err
	}
	if _, err := c.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("telling the pod why it goes: %w", err)
	}
	return runtime.DeletePod(ctx, c.Deps, p)
}
