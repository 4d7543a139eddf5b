package defaults

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RoleBinding fills in a role binding.
func RoleBinding(b *rbacv1.RoleBinding) { roleRef(&b.RoleRef, b.Subjects) }

// ClusterRoleBinding fills in a cluster role binding.
func ClusterRoleBinding(b *rbacv1.ClusterRoleBinding) { roleRef(&b.RoleRef, b.Subjects) }

func roleRef(r *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	fill(&r.APIGroup, rbacv1.GroupName)
	for i := range subjects {
		if k := subjects[i].Kind; k == rbacv1.UserKind || k == rbacv1.GroupKind {
			fill(&subjects[i].APIGroup, rbacv1.GroupName)
		}
	}
}

// LimitRange fills in a limit range: a default limit bounds a default request, and a maximum both.
func LimitRange(l *corev1.LimitRange) {
	for i := range l.Spec.Limits {
		it := &l.Spec.Limits[i]
		if it.Type != corev1.LimitTypeContainer {
			continue
		}
		for _, step := range []struct {
			to   *corev1.ResourceList
			from corev1.ResourceList
		}{{&it.Default, it.Max}, {&it.DefaultRequest, nil}, {&it.DefaultRequest, it.Min}} {
			from := step.from
			if from == nil && step.to == &it.DefaultRequest {
				from = it.Default
			}
			for name, q := range from {
				if *step.to == nil {
					*step.to = corev1.ResourceList{}
				}
				if _, ok := (*step.to)[name]; !ok {
					(*step.to)[name] = q.DeepCopy()
				}
			}
		}
	}
}

// NetworkPolicy fills in a policy: which directions it speaks of.
func NetworkPolicy(p *networkingv1.NetworkPolicy) {
	for i := range p.Spec.Ingress {
		policyPorts(p.Spec.Ingress[i].Ports)
	}
	for i := range p.Spec.Egress {
		policyPorts(p.Spec.Egress[i].Ports)
	}
	if len(p.Spec.PolicyTypes) == 0 {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) != 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
}

func policyPorts(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		set(&ports[i].Protocol, corev1.ProtocolTCP)
	}
}

// IngressClass fills in a class's parameters' scope.
func IngressClass(c *networkingv1.IngressClass) {
	if c.Spec.Parameters != nil {
		set(&c.Spec.Parameters.Scope, networkingv1.IngressClassParametersReferenceScopeCluster)
	}
}

// PriorityClass fills in a priority class.
func PriorityClass(c *schedulingv1.PriorityClass) {
	set(&c.PreemptionPolicy, corev1.PreemptLowerPriority)
}

// StorageClass fills in a storage class.
func StorageClass(c *storagev1.StorageClass) {
	set(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
	set(&c.VolumeBindingMode, storagev1.VolumeBindingImmediate)
}

// CSIDriver fills in a driver.
func CSIDriver(d *storagev1.CSIDriver) {
	set(&d.Spec.AttachRequired, true)
	set(&d.Spec.PodInfoOnMount, false)
	set(&d.Spec.StorageCapacity, false)
	set(&d.Spec.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	if len(d.Spec.VolumeLifecycleModes) == 0 {
		d.Spec.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	set(&d.Spec.RequiresRepublish, false)
	set(&d.Spec.SELinuxMount, false)
}

// ValidatingWebhookConfiguration fills in webhooks.
func ValidatingWebhookConfiguration(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		set(&w.FailurePolicy, admissionregistrationv1.Fail)
		set(&w.MatchPolicy, admissionregistrationv1.Equivalent)
		set(&w.NamespaceSelector, metav1.LabelSelector{})
		set(&w.ObjectSelector, metav1.LabelSelector{})
		set(&w.TimeoutSeconds, 10)
		webhook(&w.ClientConfig, w.Rules)
	}
}

// MutatingWebhookConfiguration fills in webhooks.
func MutatingWebhookConfiguration(c *admissionregistrationv1.MutatingWebhookConfiguration) {
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		set(&w.FailurePolicy, admissionregistrationv1.Fail)
		set(&w.MatchPolicy, admissionregistrationv1.Equivalent)
		set(&w.NamespaceSelector, metav1.LabelSelector{})
		set(&w.ObjectSelector, metav1.LabelSelector{})
		set(&w.TimeoutSeconds, 10)
		set(&w.ReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy)
		webhook(&w.ClientConfig, w.Rules)
	}
}

func webhook(c *admissionregistrationv1.WebhookClientConfig, rules []admissionregistrationv1.RuleWithOperations) {
	if c.Service != nil {
		set(&c.Service.Port, 443)
	}
	for i := range rules {
		set(&rules[i].Scope, admissionregistrationv1.AllScopes)
	}
}
