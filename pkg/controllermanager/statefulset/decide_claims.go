package statefulset

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// claimName is the name of a pod's own claim.
func claimName(set *appsv1.StatefulSet, template string, ordinal int) string {
	return template + "-" + set.Name + "-" + strconv.Itoa(ordinal)
}

// claimOrdinal answers which pod of a set a claim is for, -1 if none.
func claimOrdinal(set *appsv1.StatefulSet, c *corev1.PersistentVolumeClaim) int {
	for i := range set.Spec.VolumeClaimTemplates {
		rest, ok := strings.CutPrefix(c.Name, set.Spec.VolumeClaimTemplates[i].Name+"-"+set.Name+"-")
		if n, err := strconv.Atoi(rest); ok && err == nil && strconv.Itoa(n) == rest {
			return n
		}
	}
	return -1
}

// own gives claims to whom they are to go with: the set if they end with it, the pod if it is to go and takes them along,
// nobody if they stay. A set that never asked for anything else leaves owners alone.
func (t *turn) own() {
	policy := t.Set.Spec.PersistentVolumeClaimRetentionPolicy
	if policy == nil {
		return
	}
	for _, c := range t.Claims {
		n := claimOrdinal(t.Set, c)
		if n < 0 || c.DeletionTimestamp != nil || foreign(t.Set, c) {
			continue
		}
		refs := t.owners(policy, n, slices.DeleteFunc(slices.Clone(c.OwnerReferences), func(r metav1.OwnerReference) bool { return ours(t.Set, r, n) }))
		if equality.Semantic.DeepEqual(refs, c.OwnerReferences) || len(refs)+len(c.OwnerReferences) == 0 {
			continue
		}
		next := c.DeepCopy()
		next.OwnerReferences = refs
		t.plan.Own = append(t.plan.Own, next)
	}
}

// owners adds to others whom a pod's claims belong to.
func (t *turn) owners(policy *appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy, n int, others []metav1.OwnerReference) []metav1.OwnerReference {
	pod := t.byOrdinal[n]
	leaves := !t.inRange(n)
	switch {
	case leaves && policy.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType && pod != nil:
		return append(others, *metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod")))
	case policy.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType && (!leaves || policy.WhenScaled != appsv1.DeletePersistentVolumeClaimRetentionPolicyType):
		return append(others, *metav1.NewControllerRef(t.Set, setKind))
	case leaves && pod == nil: // its pod is gone, and took it along if it was to
		return t.kept(n)
	}
	return others
}

// kept answers the owners of a claim as they are.
func (t *turn) kept(n int) []metav1.OwnerReference {
	for _, c := range t.Claims {
		if claimOrdinal(t.Set, c) == n {
			return c.OwnerReferences
		}
	}
	return nil
}

// ours tells whether a reference is one that a set puts on claims: to itself or to the pod of the number.
func ours(set *appsv1.StatefulSet, r metav1.OwnerReference, n int) bool {
	return r.Kind == setKind.Kind && r.Name == set.Name || r.Kind == "Pod" && r.Name == set.Name+"-"+strconv.Itoa(n)
}

// foreign tells whether somebody else controls a claim: then it is theirs to end.
func foreign(set *appsv1.StatefulSet, c *corev1.PersistentVolumeClaim) bool {
	ref := metav1.GetControllerOfNoCopy(c)
	return ref != nil && !ours(set, *ref, claimOrdinal(set, c))
}

// leaving tells whether a claim is about to go with a pod that is no more: a new pod must not get what was on it.
func leaving(set *appsv1.StatefulSet, c *corev1.PersistentVolumeClaim, n int) bool {
	if c.DeletionTimestamp != nil {
		return true
	}
	return slices.ContainsFunc(c.OwnerReferences, func(r metav1.OwnerReference) bool { return r.Kind == "Pod" && ours(set, r, n) })
}

// leavingClaims names the claims of pods beyond a set's number.
func leavingClaims(set *appsv1.StatefulSet, pods []*corev1.Pod) (names []string) {
	t := newTurn(Snapshot{Set: set, Pods: pods})
	for _, n := range slices.Sorted(maps.Keys(t.byOrdinal)) {
		for i := range set.Spec.VolumeClaimTemplates {
			if !t.inRange(n) {
				names = append(names, claimName(set, set.Spec.VolumeClaimTemplates[i].Name, n))
			}
		}
	}
	return names
}
