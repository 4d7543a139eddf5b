package validate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// Node answers what is wrong with a node.
func Node(n *corev1.Node) field.ErrorList {
	errs := validation.ValidateObjectMeta(&n.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	errs = append(errs, taints(n.Spec.Taints)...)
	at, cidrs := field.NewPath("spec", "podCIDRs"), podCIDRs(n)
	for i, c := range cidrs {
		errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(at.Index(i), c, false, nil)...)
	}
	dual := len(cidrs) == 2 && netutils.IsIPv6CIDRString(cidrs[0]) != netutils.IsIPv6CIDRString(cidrs[1])
	if len(cidrs) > 1 && !dual {
		errs = append(errs, field.Invalid(at, cidrs, "may specify no more than one CIDR for each IP family"))
	}
	return errs
}

// NodeUpdate answers what is wrong with a node in the place of old.
func NodeUpdate(n, old *corev1.Node) field.ErrorList {
	errs := common(&n.ObjectMeta, &old.ObjectMeta, false)
	errs = append(errs, Node(n)...)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&n.ObjectMeta, &old.ObjectMeta, metadata)...)
	seen, at := map[corev1.NodeAddress]bool{}, field.NewPath("status", "addresses")
	for i, a := range n.Status.Addresses {
		if seen[a] {
			errs = append(errs, field.Duplicate(at.Index(i), a))
		}
		seen[a] = true
	}
	if was := podCIDRs(old); len(was) > 0 && !slices.Equal(podCIDRs(n), was) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
	}
	if old.Spec.ProviderID != "" && n.Spec.ProviderID != old.Spec.ProviderID {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "providerID"), "node updates may not change providerID except from \"\" to valid"))
	}
	return append(errs, taints(n.Spec.Taints)...)
}

// podCIDRs are a node's ranges. The old single field wins over a list that contradicts it.
func podCIDRs(n *corev1.Node) []string {
	if one := n.Spec.PodCIDR; one != "" && (len(n.Spec.PodCIDRs) == 0 || n.Spec.PodCIDRs[0] != one) {
		return []string{one}
	}
	return n.Spec.PodCIDRs
}

func taints(list []corev1.Taint) field.ErrorList {
	var errs field.ErrorList
	type what struct {
		key    string
		effect corev1.TaintEffect
	}
	seen := map[what]bool{}
	for i, t := range list {
		at := metadata.Child("taints").Index(i)
		errs = append(errs, qualified(at.Child("key"), t.Key)...)
		errs = append(errs, wrong(at.Child("value"), t.Value, utilvalidation.IsValidLabelValue(t.Value))...)
		errs = append(errs, chosen(at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule,
			corev1.TaintEffectNoExecute)...)
		if w := (what{t.Key, t.Effect}); seen[w] {
			twice := field.Duplicate(at, struct {
				Key, Value, Effect string
				TimeAdded          any
			}{t.Key, t.Value, string(t.Effect), t.TimeAdded})
			twice.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, twice)
		} else {
			seen[w] = true
		}
	}
	return errs
}
