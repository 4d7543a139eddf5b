package devicetaint

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// rule says of a rule how far the moving of pods is.
func (c *controller) rule(ctx context.Context, name string) (time.Duration, error) {
	x, err := c.rules.Get(name)
	if apierrors.IsNotFound(err) {
		return 0, c.forget()
	}
	if err != nil {
		return 0, err
	}
	s := RuleSnapshot{Rule: x, Pods: map[types.UID]*corev1.Pod{}, Now: time.Now()}
	c.mu.Lock()
	s.Evicted = c.evicted[x.UID]
	c.mu.Unlock()
	all, err := c.claims.List(labels.Everything())
	if err != nil {
		return 0, err
	}
	for _, claim := range all {
		if !has(claim, x) {
			continue
		}
		s.Claims = append(s.Claims, claim)
		for _, key := range users(claim) {
			if p, err := c.pods.Pods(key.Namespace).Get(key.Name); err == nil {
				s.Pods[p.UID] = p
			}
		}
	}
	if x.Spec.Taint.Effect == resourcev1.DeviceTaintEffectNone { // nobody else asks what is published
		if s.Slices, err = c.slices.List(labels.Everything()); err != nil {
			return 0, err
		}
	}
	p := decideRule(s)
	if p.Condition == nil {
		return p.Again, nil
	}
	next := x.DeepCopy()
	meta.RemoveStatusCondition(&next.Status.Conditions, p.Condition.Type) // its time is decided too
	next.Status.Conditions = append(next.Status.Conditions, *p.Condition)
	if _, err := c.Client.ResourceV1().DeviceTaintRules().UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("saying how far the rule is: %w", err)
	}
	return p.Again, nil
}

// has tells whether a claim has a device that a rule taints.
func has(claim *resourcev1.ResourceClaim, x *resourcev1.DeviceTaintRule) bool {
	a := claim.Status.Allocation
	return a != nil && slices.ContainsFunc(a.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool { return about(x, r) })
}

// blame counts a pod that left among those of the rules it left for.
func (c *controller) blame(rules []types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, uid := range rules {
		c.evicted[uid]++
	}
}

// goes notes that a pod is deleted now; false if it was before, and the cache shows it yet: it is neither told nor counted again.
func (c *controller) goes(pod types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left[pod] {
		return false
	}
	c.left[pod] = true
	return true
}

// ended forgets a pod that is gone, or could not be deleted.
func (c *controller) ended(pod types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.left, pod)
}

// forget drops the counts of rules that are gone.
func (c *controller) forget() error {
	all, err := c.rules.List(labels.Everything())
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := map[types.UID]int{}
	for _, x := range all {
		if n := c.evicted[x.UID]; n > 0 {
			kept[x.UID] = n
		}
	}
	c.evicted = kept
	return nil
}
