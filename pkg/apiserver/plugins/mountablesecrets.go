package plugins

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// enforceSecrets on a service account leaves its pods only the secrets that the account names.
const enforceSecrets = "kubernetes.io/enforce-mountable-secrets"

// onlyOwnSecrets refuses a pod, or an ephemeral container of one, that refers to a secret its account does not name:
// through a volume or the environment of any container, or to pull images.
func onlyOwnSecrets(ctx context.Context, r *admission.Request) error {
	p, _ := r.Object.(*corev1.Pod)
	later := r.Verb == admission.Update && r.Sub == "ephemeralcontainers"
	if p == nil || !later && (r.Verb != admission.Create || r.Sub != "") || p.Annotations[mirrorPod] != "" || p.Spec.ServiceAccountName == "" {
		return nil
	}
	sa, err := account(ctx, r, p)
	if apierrors.IsNotFound(err) && later {
		return nil // the account went after the pod was made
	}
	if err != nil {
		return err
	}
	if on, err := strconv.ParseBool(sa.Annotations[enforceSecrets]); err != nil || !on {
		return nil
	}
	if why := foreignSecret(p, sa, later); why != "" {
		return apierrors.NewForbidden(r.Resource.GroupResource(), r.Name, fmt.Errorf("%s is not allowed because service account %s does not reference that %s", why, sa.Name, secretNoun(why)))
	}
	return nil
}

func secretNoun(why string) string {
	if len(why) > 5 && why[:5] == "image" {
		return "imagePullSecret"
	}
	return "secret"
}

// foreignSecret answers what of a pod refers to a secret that the account does not name, "" if nothing does.
func foreignSecret(p *corev1.Pod, sa *corev1.ServiceAccount, later bool) string {
	own, pull := map[string]bool{}, map[string]bool{}
	for _, s := range sa.Secrets {
		own[s.Name] = true
	}
	for _, s := range sa.ImagePullSecrets {
		pull[s.Name] = true
	}
	environment := func(kind, name string, env []corev1.EnvVar, from []corev1.EnvFromSource) string {
		for _, e := range env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && !own[e.ValueFrom.SecretKeyRef.Name] {
				return fmt.Sprintf("%s %s with envVar %s referencing secret.secretName=%q", kind, name, e.Name, e.ValueFrom.SecretKeyRef.Name)
			}
		}
		for _, f := range from {
			if f.SecretRef != nil && !own[f.SecretRef.Name] {
				return fmt.Sprintf("%s %s with envFrom referencing secret.secretName=%q", kind, name, f.SecretRef.Name)
			}
		}
		return ""
	}
	for _, c := range p.Spec.EphemeralContainers {
		if why := environment("Ephemeral container", c.Name, c.Env, c.EnvFrom); why != "" {
			return why
		}
	}
	if later {
		return "" // the rest was looked at when the pod was made
	}
	for _, v := range p.Spec.Volumes {
		if v.Secret != nil && !own[v.Secret.SecretName] {
			return fmt.Sprintf("volume with secret.secretName=%q", v.Secret.SecretName)
		}
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.Secret != nil && !own[s.Secret.Name] {
				return fmt.Sprintf("volume with secret.secretName=%q", s.Secret.Name)
			}
		}
	}
	for _, c := range p.Spec.InitContainers {
		if why := environment("init container", c.Name, c.Env, c.EnvFrom); why != "" {
			return why
		}
	}
	for _, c := range p.Spec.Containers {
		if why := environment("container", c.Name, c.Env, c.EnvFrom); why != "" {
			return why
		}
	}
	for i, s := range p.Spec.ImagePullSecrets {
		if !pull[s.Name] {
			return fmt.Sprintf("imagePullSecrets[%d].name=%q", i, s.Name)
		}
	}
	return ""
}
