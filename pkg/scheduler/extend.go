package scheduler

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// extend makes the claim of a pod whose extended resources come from devices, allocated and reserved, and writes on the pod which of its
// containers gets which of the devices. It answers the claim's key.
func (s *Scheduler) extend(ctx context.Context, raw *v1.Pod, c rules.ClaimAllocation) (string, error) {
	claims := s.resource.ResourceClaims(raw.Namespace)
	claim, err := claims.Create(ctx, &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: raw.Namespace, GenerateName: raw.Name + "-extended-resources-", Finalizers: []string{finalizer},
			Annotations:     map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: raw.Name, UID: raw.UID, Controller: new(true)}},
		},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: c.Extended.Requests}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	allocation := *c.Allocation
	if conditional(&allocation) {
		allocation.AllocationTimestamp = new(metav1.Now())
	}
	claim.Status.Allocation = &allocation
	claim.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{rules.Reservation(raw.Name, raw.UID)}
	if _, err := claims.UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil {
		return "", err
	}
	status := v1.PodExtendedResourceClaimStatus{ResourceClaimName: claim.Name, RequestMappings: c.Extended.Mappings}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": raw.UID}, "status": map[string]any{"extendedResourceClaimStatus": status}})
	if err != nil {
		return "", err
	}
	_, err = s.core.Pods(raw.Namespace).Patch(ctx, raw.Name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
	return raw.Namespace + "/" + claim.Name, err
}

// retract deletes the claims that were made for the extended resources of a pod that is not bound after all: nobody else can use them.
func (s *Scheduler) retract(ctx context.Context, raw *v1.Pod, plan rules.Plan) {
	if !slices.ContainsFunc(plan.Claims, func(c rules.ClaimAllocation) bool { return c.Extended != nil }) {
		return
	}
	claims := s.resource.ResourceClaims(raw.Namespace)
	list, err := claims.List(ctx, metav1.ListOptions{})
	if err != nil {
		slog.Warn("list claims for extended resources", "pod", raw.Namespace+"/"+raw.Name, "error", err)
		return
	}
	for i := range list.Items {
		claim := &list.Items[i]
		if owner := metav1.GetControllerOfNoCopy(claim); owner == nil || owner.UID != raw.UID || claim.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" {
			continue
		}
		claim.Status = resourcev1.ResourceClaimStatus{}
		freed, err := claims.UpdateStatus(ctx, claim, metav1.UpdateOptions{})
		if err == nil {
			freed.Finalizers = slices.DeleteFunc(freed.Finalizers, func(f string) bool { return f == finalizer })
			_, err = claims.Update(ctx, freed, metav1.UpdateOptions{})
		}
		if err == nil {
			err = claims.Delete(ctx, claim.Name, metav1.DeleteOptions{})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			slog.Warn("delete a claim for extended resources", "claim", claim.Namespace+"/"+claim.Name, "error", err)
		}
	}
}
