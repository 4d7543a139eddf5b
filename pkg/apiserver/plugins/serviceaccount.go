package plugins

import (
	"context"
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// What a pod finds of its service account.
const (
	tokenPath     = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenVolume   = "kube-api-access-"
	tokenSeconds  = 3607
	rootCAConfig  = "kube-root-ca.crt"
	mirrorPod     = corev1.MirrorPodAnnotationKey
	volumeLetters = "bcdfghjklmnpqrstvwxz2456789"
)

var serviceAccounts = schema.GroupResource{Resource: "serviceaccounts"}

// ServiceAccount gives every pod an identity, and the means to prove it.
var ServiceAccount = admission.Plugin{Name: "ServiceAccount", Mutate: func(ctx context.Context, r *admission.Request) error {
	p := newPod(r)
	if p == nil {
		return nil
	}
	if _, mirror := p.Annotations[mirrorPod]; mirror {
		if p.Spec.ServiceAccountName != "" {
			return fmt.Errorf("a mirror pod may not reference service accounts")
		}
		return nil
	}
	if p.Spec.ServiceAccountName == "" {
		p.Spec.ServiceAccountName = "default"
	}
	p.Spec.DeprecatedServiceAccount = p.Spec.ServiceAccountName
	sa, err := account(ctx, r, p)
	if apierrors.IsNotFound(err) {
		return apierrors.NewForbidden(r.Resource.GroupResource(), r.Name, fmt.Errorf("error looking up service account %s/%s: %w", r.Namespace, p.Spec.ServiceAccountName, err))
	}
	if err != nil {
		return err
	}
	if len(p.Spec.ImagePullSecrets) == 0 {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, sa.ImagePullSecrets...)
	}
	if wants(p, sa) {
		mountToken(p)
	}
	return nil
}, Validate: onlyOwnSecrets}

// account is the pod's; one that was just made counts, though the cache has not heard of it.
func account(ctx context.Context, r *admission.Request, p *corev1.Pod) (*corev1.ServiceAccount, error) {
	obj, err := r.Env.Get(ctx, serviceAccounts, r.Namespace, p.Spec.ServiceAccountName)
	if apierrors.IsNotFound(err) {
		obj, err = r.Env.GetFresh(ctx, serviceAccounts, r.Namespace, p.Spec.ServiceAccountName)
	}
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.ServiceAccount), nil
}

// wants tells whether a pod is to be given its token: the pod's word counts before the account's.
func wants(p *corev1.Pod, sa *corev1.ServiceAccount) bool {
	switch {
	case p.Spec.AutomountServiceAccountToken != nil:
		return *p.Spec.AutomountServiceAccountToken
	case sa.AutomountServiceAccountToken != nil:
		return *sa.AutomountServiceAccountToken
	}
	return true
}

func mountToken(p *corev1.Pod) {
	suffix := make([]byte, 5)
	for i := range suffix {
		suffix[i] = volumeLetters[rand.IntN(len(volumeLetters))]
	}
	name, used := tokenVolume+string(suffix), false
	mount := func(cs []corev1.Container) {
		for i := range cs {
			if mounts(&cs[i]) {
				continue
			}
			used = true
			cs[i].VolumeMounts = append(cs[i].VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenPath})
		}
	}
	mount(p.Spec.InitContainers)
	mount(p.Spec.Containers)
	if !used {
		return
	}
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: new(int32(corev1.ProjectedVolumeSourceDefaultMode)),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(tokenSeconds))}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAConfig}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}})
}

// mounts tells whether a container already has something at the token's place.
func mounts(c *corev1.Container) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == tokenPath {
			return true
		}
	}
	return false
}
