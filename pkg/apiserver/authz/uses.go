package authz

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// uses tells whether a pod refers to the object that a request names, itself or through its claims.
func (n *Node) uses(ctx context.Context, p *corev1.Pod, a authorizer.Attributes) bool {
	if a.GetResource() == "persistentvolumes" {
		return n.mounts(ctx, p, func(pvc *corev1.PersistentVolumeClaim) bool { return pvc.Spec.VolumeName == a.GetName() })
	}
	if p.Namespace != a.GetNamespace() {
		return false
	}
	switch a.GetResource() {
	case "serviceaccounts":
		return p.Spec.ServiceAccountName == a.GetName()
	case "secrets":
		return slices.Contains(secretsOf(p), a.GetName())
	case "configmaps":
		return slices.Contains(configMapsOf(p), a.GetName())
	case "persistentvolumeclaims":
		return slices.Contains(claimsOf(p), a.GetName())
	case "resourceclaims":
		for _, c := range p.Spec.ResourceClaims {
			if c.ResourceClaimName != nil && *c.ResourceClaimName == a.GetName() {
				return true
			}
		}
		return slices.ContainsFunc(p.Status.ResourceClaimStatuses, func(s corev1.PodResourceClaimStatus) bool {
			return s.ResourceClaimName != nil && *s.ResourceClaimName == a.GetName()
		})
	}
	return false
}

// mounts tells whether one of the pod's claims satisfies f.
func (n *Node) mounts(ctx context.Context, p *corev1.Pod, f func(*corev1.PersistentVolumeClaim) bool) bool {
	for _, name := range claimsOf(p) {
		obj, err := n.env.Get(ctx, pvcsGR, p.Namespace, name)
		if err == nil && f(obj.(*corev1.PersistentVolumeClaim)) {
			return true
		}
	}
	return false
}

// attached tells whether a volume attachment is the node's own.
func (n *Node) attached(ctx context.Context, node string, a authorizer.Attributes) bool {
	if a.GetResource() != "volumeattachments" {
		return false
	}
	obj, err := n.env.Get(ctx, schema.GroupResource{Group: storagev1.GroupName, Resource: "volumeattachments"}, "", a.GetName())
	return err == nil && obj.(*storagev1.VolumeAttachment).Spec.NodeName == node
}

func claimsOf(p *corev1.Pod) []string {
	var names []string
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		}
		if v.Ephemeral != nil {
			names = append(names, p.Name+"-"+v.Name)
		}
	}
	return names
}

func containersOf(p *corev1.Pod) []corev1.Container {
	cs := slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
	for _, e := range p.Spec.EphemeralContainers {
		cs = append(cs, corev1.Container(e.EphemeralContainerCommon))
	}
	return cs
}

func secretsOf(p *corev1.Pod) []string {
	var names []string
	for _, s := range p.Spec.ImagePullSecrets {
		names = append(names, s.Name)
	}
	for _, c := range containersOf(p) {
		for _, e := range c.EnvFrom {
			if e.SecretRef != nil {
				names = append(names, e.SecretRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				names = append(names, e.ValueFrom.SecretKeyRef.Name)
			}
		}
	}
	for _, v := range p.Spec.Volumes {
		switch {
		case v.Secret != nil:
			names = append(names, v.Secret.SecretName)
		case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
			names = append(names, v.CSI.NodePublishSecretRef.Name)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.Secret != nil {
					names = append(names, s.Secret.Name)
				}
			}
		}
	}
	return names
}

func configMapsOf(p *corev1.Pod) []string {
	var names []string
	for _, c := range containersOf(p) {
		for _, e := range c.EnvFrom {
			if e.ConfigMapRef != nil {
				names = append(names, e.ConfigMapRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				names = append(names, e.ValueFrom.ConfigMapKeyRef.Name)
			}
		}
	}
	for _, v := range p.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			names = append(names, v.ConfigMap.Name)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					names = append(names, s.ConfigMap.Name)
				}
			}
		}
	}
	return names
}
