package plugins

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authz"
)

var pods = schema.GroupResource{Resource: "pods"}

// TaintNodesByCondition keeps pods off a new node until it has said it is ready.
var TaintNodesByCondition = admission.Plugin{Name: "TaintNodesByCondition", Mutate: func(_ context.Context, r *admission.Request) error {
	n, _ := r.Object.(*corev1.Node)
	if n == nil || r.Verb != admission.Create || r.Sub != "" {
		return nil
	}
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	for _, t := range n.Spec.Taints {
		if t.MatchTaint(&taint) {
			return nil
		}
	}
	n.Spec.Taints = append(n.Spec.Taints, taint)
	return nil
}}

// NodeRestriction lets a kubelet write its own node and the pods on it only.
var NodeRestriction = admission.Plugin{Name: "NodeRestriction", Validate: func(ctx context.Context, r *admission.Request) error {
	node, ok := authz.NodeName(r.User)
	if !ok {
		return nil
	}
	switch obj := r.Object.(type) {
	case *corev1.Node:
		return restrictNode(r, node, obj)
	case *corev1.Pod:
		return restrictPod(r, node, obj)
	case *policyv1.Eviction:
		return ownPod(ctx, r, node)
	case *authenticationv1.TokenRequest:
		return restrictToken(ctx, r, node, obj)
	case *certificatesv1.PodCertificateRequest:
		return restrictPodRequest(ctx, r, node, obj)
	case *coordinationv1.Lease:
		if obj.Namespace != corev1.NamespaceNodeLease || obj.Name != node {
			return fmt.Errorf("node %q is not allowed to write lease %s/%s, only its own in %q", node, obj.Namespace, obj.Name, corev1.NamespaceNodeLease)
		}
	}
	if r.Verb == admission.Delete {
		switch old := r.Old.(type) {
		case *corev1.Pod:
			if old.Spec.NodeName != node {
				return fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", node)
			}
		case *corev1.Node:
			return fmt.Errorf("node %q is not allowed to delete node %q", node, old.Name)
		}
	}
	return nil
}}

func restrictNode(r *admission.Request, node string, n *corev1.Node) error {
	if n.Name != node {
		return fmt.Errorf("node %q is not allowed to modify node %q", node, n.Name)
	}
	old, _ := r.Old.(*corev1.Node)
	var before map[string]string
	if old != nil {
		before = old.Labels
		if r.Sub == "" && !equality.Semantic.DeepEqual(old.Spec.Taints, n.Spec.Taints) {
			return fmt.Errorf("node %q is not allowed to modify taints", node)
		}
		if !equality.Semantic.DeepEqual(old.OwnerReferences, n.OwnerReferences) {
			return fmt.Errorf("node %q is not allowed to modify ownerReferences", node)
		}
	}
	for k, v := range n.Labels {
		if before[k] != v && !mayLabel(k) {
			return fmt.Errorf("node %q is not allowed to set the label %s", node, k)
		}
	}
	for k := range before {
		if _, kept := n.Labels[k]; !kept && !mayLabel(k) {
			return fmt.Errorf("node %q is not allowed to remove the label %s", node, k)
		}
	}
	return nil
}

// mayLabel tells whether a kubelet may set a label: what others rely on to place pods is not its to say, but for the
// facts it knows best.
func mayLabel(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	if !ok || domain != "kubernetes.io" && domain != "k8s.io" && !strings.HasSuffix(domain, ".kubernetes.io") && !strings.HasSuffix(domain, ".k8s.io") {
		return true
	}
	if domain == "kubelet.kubernetes.io" || domain == "node.kubernetes.io" || strings.HasSuffix(domain, ".kubelet.kubernetes.io") || strings.HasSuffix(domain, ".node.kubernetes.io") {
		return true
	}
	return slices.Contains([]string{
		corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable, corev1.LabelInstanceTypeStable, corev1.LabelInstanceType,
		corev1.LabelTopologyRegion, corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion, corev1.LabelFailureDomainBetaZone,
		"beta.kubernetes.io/os", "beta.kubernetes.io/arch",
	}, key)
}

func restrictPod(r *admission.Request, node string, p *corev1.Pod) error {
	if p.Spec.NodeName != node {
		return fmt.Errorf("node %q can only write pods with spec.nodeName set to itself", node)
	}
	if old, _ := r.Old.(*corev1.Pod); old != nil && r.Sub == "status" {
		switch {
		case !equality.Semantic.DeepEqual(old.Labels, p.Labels):
			return fmt.Errorf("node %q cannot update labels through pod status", node)
		case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, p.Status.ResourceClaimStatuses):
			return fmt.Errorf("node %q cannot update resource claim statuses", node)
		}
	}
	if r.Verb != admission.Create || r.Sub != "" {
		return nil
	}
	switch {
	case p.Annotations[corev1.MirrorPodAnnotationKey] == "":
		return fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	case p.Spec.ServiceAccountName != "":
		return fmt.Errorf("node %q can not create pods that reference a service account", node)
	case len(p.OwnerReferences) > 1 || len(p.OwnerReferences) == 1 && (p.OwnerReferences[0].Kind != "Node" || p.OwnerReferences[0].Name != node):
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	}
	if len(p.Spec.ResourceClaims) > 0 || len(p.Spec.ImagePullSecrets) > 0 {
		return fmt.Errorf("node %q can not create pods that reference resource claims or secrets", node)
	}
	if len(p.Spec.EphemeralContainers) > 0 || slices.ContainsFunc(slices.Concat(p.Spec.InitContainers, p.Spec.Containers), readsObjects) {
		return fmt.Errorf("node %q can not create pods that reference secrets or configmaps", node)
	}
	for _, v := range p.Spec.Volumes {
		if v.Secret != nil || v.ConfigMap != nil || v.PersistentVolumeClaim != nil || v.Projected != nil {
			return fmt.Errorf("node %q can not create pods that reference secrets, configmaps or claims", node)
		}
	}
	return nil
}

// readsObjects tells whether a container's environment comes from secrets or config maps.
func readsObjects(c corev1.Container) bool {
	return len(c.EnvFrom) > 0 || slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool {
		return e.ValueFrom != nil && (e.ValueFrom.SecretKeyRef != nil || e.ValueFrom.ConfigMapKeyRef != nil)
	})
}

func ownPod(ctx context.Context, r *admission.Request, node string) error {
	obj, err := r.Env.Get(ctx, pods, r.Namespace, r.Name)
	if err != nil {
		return err
	}
	if obj.(*corev1.Pod).Spec.NodeName != node {
		return fmt.Errorf("node %s can only evict pods with spec.nodeName set to itself", node)
	}
	return nil
}

func restrictToken(ctx context.Context, r *admission.Request, node string, t *authenticationv1.TokenRequest) error {
	ref := t.Spec.BoundObjectRef
	if ref == nil || ref.Kind != "Pod" || ref.APIVersion != "v1" || ref.Name == "" || ref.UID == "" {
		return fmt.Errorf("node requested token not bound to a pod")
	}
	obj, err := r.Env.Get(ctx, pods, r.Namespace, ref.Name)
	if err != nil {
		return err
	}
	if obj.GetUID() != ref.UID {
		return fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record (%s)", ref.UID, obj.GetUID())
	}
	if obj.(*corev1.Pod).Spec.NodeName != node {
		return fmt.Errorf("node requested token bound to a pod scheduled on a different node")
	}
	return nil
}

// restrictPodRequest lets a kubelet ask for certificates of the pods that run on its node, as what they are.
func restrictPodRequest(ctx context.Context, r *admission.Request, node string, c *certificatesv1.PodCertificateRequest) error {
	if r.Verb != admission.Create || r.Sub != "" {
		return fmt.Errorf("nodes are only permitted to create PodCertificateRequests")
	}
	if string(c.Spec.NodeName) != node {
		return fmt.Errorf("PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", c.Spec.NodeName, node)
	}
	obj, err := r.Env.Get(ctx, pods, r.Namespace, c.Spec.PodName)
	if err != nil {
		return err
	}
	p := obj.(*corev1.Pod)
	account := p.Spec.ServiceAccountName
	switch {
	case p.UID != c.Spec.PodUID:
		return fmt.Errorf("PodCertificateRequest for pod %q contains pod UID %q which differs from running pod %q", p.Name, c.Spec.PodUID, p.UID)
	case p.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return fmt.Errorf("pod %q is a mirror pod, which gets no certificate", p.Name)
	case p.Spec.NodeName != node:
		return fmt.Errorf("pod %q is not running on node %q", p.Name, node)
	case account != c.Spec.ServiceAccountName:
		return fmt.Errorf("PodCertificateRequest for pod %q contains service account name %q which differs from running pod %q", p.Name, c.Spec.ServiceAccountName, account)
	}
	owner, err := r.Env.Get(ctx, serviceAccounts, r.Namespace, account)
	if err != nil {
		return err
	}
	if owner.GetUID() != c.Spec.ServiceAccountUID {
		return fmt.Errorf("PodCertificateRequest for pod %q contains service account UID %q which differs from running pod %q", p.Name, c.Spec.ServiceAccountUID, owner.GetUID())
	}
	return nil
}
