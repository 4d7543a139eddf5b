package scheduler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/volume"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// prebind writes what must be true before the pod is bound, and waits until its volumes are there.
func (s *Scheduler) prebind(ctx context.Context, raw *v1.Pod, plan rules.Plan) error {
	claims := slices.Clone(plan.Claims)
	for i, c := range claims {
		if c.Extended != nil {
			key, err := s.extend(ctx, raw, c)
			if err != nil {
				return fmt.Errorf("claim the pod's extended resources: %w", err)
			}
			claims[i].Key = key
			continue
		}
		if err := s.reserve(ctx, raw, c); err != nil {
			return fmt.Errorf("reserve claim %s: %w", c.Key, err)
		}
	}
	if err := s.devicesReady(ctx, raw, claims); err != nil {
		return err
	}
	if len(plan.Volumes) == 0 {
		return nil
	}
	for _, b := range plan.Volumes {
		if err := s.writeVolume(ctx, b); err != nil {
			return fmt.Errorf("bind volumes: %w", err)
		}
	}
	timeout := s.config.profiles[raw.Spec.SchedulerName].BindTimeout
	ctx, cancel := context.WithTimeout(ctx, time.Duration(timeout)*time.Second)
	defer cancel()
	chosen := map[string]bool{}
	for {
		s.mu.Lock()
		moved := s.moved
		done, err := s.volumesBound(plan.Volumes, chosen)
		s.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("binding volumes: %w", ctx.Err())
		case <-moved:
		}
	}
}

// storageMoved wakes those who wait for their volumes. The lock is held.
func (s *Scheduler) storageMoved() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// writeVolume gives a volume to a claim, or tells the claim's provisioner the node.
func (s *Scheduler) writeVolume(ctx context.Context, b rules.VolumeBind) error {
	s.mu.Lock()
	claim, pv := s.table.Storage.Claim(b.Claim), s.table.Storage.Volume(b.Volume)
	s.mu.Unlock()
	if claim == nil {
		return fmt.Errorf("claim %s is gone", b.Claim)
	}
	if b.Volume == "" {
		if claim.Annotations[volume.AnnSelectedNode] == b.Node {
			return nil
		}
		claim = claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, volume.AnnSelectedNode, b.Node)
		_, err := s.core.PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
		return err
	}
	if pv == nil {
		return fmt.Errorf("volume %s is gone", b.Volume)
	}
	bound, dirty, err := volume.GetBindVolumeToClaim(pv, claim)
	if err != nil || !dirty {
		return err
	}
	_, err = s.core.PersistentVolumes().Update(ctx, bound, metav1.UpdateOptions{})
	return err
}

// volumesBound says whether all claims have their volumes. An error means that they never will as planned. chosen remembers the claims
// that were seen with their node.
func (s *Scheduler) volumesBound(binds []rules.VolumeBind, chosen map[string]bool) (bool, error) {
	done := true
	for _, b := range binds {
		claim := s.table.Storage.Claim(b.Claim)
		if claim == nil {
			return false, fmt.Errorf("claim %s is gone", b.Claim)
		}
		if rules.IsBound(claim) {
			continue
		}
		done = false
		if b.Volume != "" {
			if s.table.Storage.Volume(b.Volume) == nil {
				return false, fmt.Errorf("volume %s is gone", b.Volume)
			}
			continue
		}
		switch claim.Annotations[volume.AnnSelectedNode] {
		case b.Node:
			chosen[b.Claim] = true
		case "":
			if chosen[b.Claim] { // the provisioner cannot make the volume there
				return false, fmt.Errorf("selectedNode annotation reset for PVC %q", claim.Name)
			}
		default:
			return false, fmt.Errorf("selectedNode annotation value %q not set to scheduled node %q", claim.Annotations[volume.AnnSelectedNode], b.Node)
		}
	}
	return done, nil
}

// finalizer keeps a device claim from being deleted while it is allocated.
const finalizer = resourcev1.Finalizer

// reserve writes an allocation, if there is one to write, and the pod as a user of the claim.
func (s *Scheduler) reserve(ctx context.Context, raw *v1.Pod, c rules.ClaimAllocation) error {
	namespace, name, _ := strings.Cut(c.Key, "/")
	claims := s.resource.ResourceClaims(namespace)
	for {
		claim, err := claims.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if claim.DeletionTimestamp != nil {
			return fmt.Errorf("it is being deleted")
		}
		if c.Allocation != nil && claim.Status.Allocation == nil && !slices.Contains(claim.Finalizers, finalizer) {
			claim.Finalizers = append(claim.Finalizers, finalizer)
			if claim, err = claims.Update(ctx, claim, metav1.UpdateOptions{}); apierrors.IsConflict(err) {
				continue
			} else if err != nil {
				return err
			}
		}
		switch {
		case claim.Status.Allocation == nil && c.Allocation == nil:
			return fmt.Errorf("it was deallocated")
		case claim.Status.Allocation != nil && c.Allocation != nil:
			return fmt.Errorf("it was allocated by another")
		case c.Allocation != nil:
			allocation := *c.Allocation
			if conditional(&allocation) {
				allocation.AllocationTimestamp = new(metav1.Now())
			}
			claim.Status.Allocation = &allocation
		}
		user := rules.Reservation(raw.Name, raw.UID)
		if !slices.Contains(claim.Status.ReservedFor, user) {
			claim.Status.ReservedFor = append(claim.Status.ReservedFor, user)
		}
		if _, err = claims.UpdateStatus(ctx, claim, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			return err
		}
	}
}

// conditional says whether devices of an allocation are to be made ready before a pod that uses them is bound.
func conditional(a *resourcev1.AllocationResult) bool {
	return slices.ContainsFunc(a.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool { return len(r.BindingConditions) > 0 })
}

// devicesReady waits until the drivers say that the devices of all claims can be used. Where one says never, or it takes too long, the
// claim is given up, so that the pod may find other devices.
func (s *Scheduler) devicesReady(ctx context.Context, raw *v1.Pod, claims []rules.ClaimAllocation) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.profiles[raw.Spec.SchedulerName].DeviceBindTimeout)
	defer cancel()
	for _, c := range claims {
		s.mu.Lock()
		seen := s.table.Devices.Claim(c.Key)
		s.mu.Unlock()
		if a := c.Allocation; a == nil && (seen == nil || seen.Status.Allocation == nil || !conditional(seen.Status.Allocation)) || a != nil && !conditional(a) {
			continue
		}
		if err := s.awaitDevices(ctx, c.Key); err != nil {
			s.giveUp(context.WithoutCancel(ctx), c.Key, rules.Reservation(raw.Name, raw.UID))
			return fmt.Errorf("claim %s: %w", c.Key, err)
		}
	}
	return nil
}

// awaitDevices waits until the devices of a claim can be used, by what the watch says of it.
func (s *Scheduler) awaitDevices(ctx context.Context, key string) error {
	there, written := false, false // the claim was seen, and with its allocation: from then on to be without is an error
	for {
		s.mu.Lock()
		moved, claim := s.moved, s.table.Devices.Claim(key)
		s.mu.Unlock()
		switch {
		case claim == nil && there:
			return fmt.Errorf("it is gone")
		case claim != nil:
			there = true
		}
		if claim != nil && (claim.Status.Allocation != nil || written) {
			written = true
			if ready, err := rules.Ready(claim); ready || err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for its devices to be ready: %w", ctx.Err())
		case <-moved:
		}
	}
}

// giveUp takes a pod's reservation back, and the allocation too when nobody else uses it.
func (s *Scheduler) giveUp(ctx context.Context, key string, user resourcev1.ResourceClaimConsumerReference) {
	namespace, name, _ := strings.Cut(key, "/")
	claims := s.resource.ResourceClaims(namespace)
	for {
		claim, err := claims.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return
		}
		claim.Status.ReservedFor = slices.DeleteFunc(claim.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r == user })
		if len(claim.Status.ReservedFor) == 0 {
			claim.Status.Allocation, claim.Status.Devices = nil, nil
		}
		if _, err = claims.UpdateStatus(ctx, claim, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			return
		}
	}
}

// deallocate frees a device claim that nobody uses.
func (s *Scheduler) deallocate(ctx context.Context, key string) {
	namespace, name, _ := strings.Cut(key, "/")
	claim, err := s.resource.ResourceClaims(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil || len(claim.Status.ReservedFor) > 0 || claim.Status.Allocation == nil {
		return
	}
	claim.Status.Allocation = nil
	// A conflict means that somebody uses it after all.
	_, _ = s.resource.ResourceClaims(namespace).UpdateStatus(ctx, claim, metav1.UpdateOptions{})
}
