package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// file is the desired content of one path of a volume.
type file struct {
	data []byte
	mode int32
}

type files map[string]file

func mode(own, def *int32) int32 {
	switch {
	case own != nil:
		return *own
	case def != nil:
		return *def
	}
	return 0o644
}

// pick chooses the keys a volume shows; nil items are all of them.
func pick(data map[string][]byte, items []v1.KeyToPath, def *int32, optional *bool, what string) (files, error) {
	out := files{}
	if items == nil {
		for k, v := range data {
			out[k] = file{v, mode(nil, def)}
		}
		return out, nil
	}
	for _, it := range items {
		v, ok := data[it.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return nil, fmt.Errorf("%s references non-existent key: %s", what, it.Key)
		}
		out[it.Path] = file{v, mode(it.Mode, def)}
	}
	return out, nil
}

func (m *Manager) configMap(ctx context.Context, ns, name string, items []v1.KeyToPath, def *int32, optional *bool) (files, error) {
	data := map[string][]byte{}
	cm, err := m.cfg.Objects.ConfigMap(ctx, ns, name)
	if err != nil {
		if !apierrors.IsNotFound(err) || optional == nil || !*optional {
			return nil, err
		}
	} else {
		for k, v := range cm.Data {
			data[k] = []byte(v)
		}
		for k, v := range cm.BinaryData {
			data[k] = v
		}
	}
	return pick(data, items, def, optional, "configmap")
}

func (m *Manager) secret(ctx context.Context, ns, name string, items []v1.KeyToPath, def *int32, optional *bool) (files, error) {
	var data map[string][]byte
	s, err := m.cfg.Objects.Secret(ctx, ns, name)
	if err != nil {
		if !apierrors.IsNotFound(err) || optional == nil || !*optional {
			return nil, err
		}
	} else {
		data = s.Data
	}
	return pick(data, items, def, optional, "secret")
}

func (m *Manager) downward(pod *v1.Pod, items []v1.DownwardAPIVolumeFile, def *int32) (files, error) {
	out := files{}
	for _, it := range items {
		var v string
		var err error
		switch {
		case it.FieldRef != nil:
			v, err = m.cfg.Field(pod, it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			v, err = m.cfg.Resource(it.ResourceFieldRef, pod)
		}
		if err != nil {
			return nil, err
		}
		out[it.Path] = file{[]byte(v), mode(it.Mode, def)}
	}
	return out, nil
}

func (m *Manager) projected(ctx context.Context, pod *v1.Pod, volume string, p *v1.ProjectedVolumeSource) (files, error) {
	out := files{}
	for i := range p.Sources {
		var part files
		var err error
		switch s := &p.Sources[i]; {
		case s.ConfigMap != nil:
			part, err = m.configMap(ctx, pod.Namespace, s.ConfigMap.Name, s.ConfigMap.Items, p.DefaultMode, s.ConfigMap.Optional)
		case s.Secret != nil:
			part, err = m.secret(ctx, pod.Namespace, s.Secret.Name, s.Secret.Items, p.DefaultMode, s.Secret.Optional)
		case s.DownwardAPI != nil:
			part, err = m.downward(pod, s.DownwardAPI.Items, p.DefaultMode)
		case s.ServiceAccountToken != nil:
			var t string
			if t, err = m.token(ctx, pod, s.ServiceAccountToken); err == nil {
				part = files{s.ServiceAccountToken.Path: {[]byte(t), secretMode(pod, p)}}
			}
		case s.ClusterTrustBundle != nil:
			var text []byte
			if text, err = m.trust(ctx, s.ClusterTrustBundle); err == nil {
				part = files{s.ClusterTrustBundle.Path: {text, secretMode(pod, p)}}
			}
		case s.PodCertificate != nil:
			part, err = m.podCertificate(ctx, pod, volume, i, s.PodCertificate, secretMode(pod, p))
		default:
			err = errors.New("this projection is not served by this kubelet")
		}
		if err != nil {
			return nil, err
		}
		for k, f := range part {
			out[k] = f
		}
	}
	return out, nil
}

// secretMode is who may read what proves a pod's identity: a container which runs as somebody else must read its own.
func secretMode(pod *v1.Pod, p *v1.ProjectedVolumeSource) int32 {
	switch {
	case fsGroup(pod) != nil:
		return 0o640
	case runsAs(pod):
		return 0o600
	}
	return mode(nil, p.DefaultMode)
}

// runsAs tells whether all containers run as one and the same given user.
func runsAs(pod *v1.Pod) bool { return owner(pod) >= 0 }

// owner is the one user all containers run as, -1 when they differ or none is given.
func owner(pod *v1.Pod) int64 {
	user := int64(-1)
	for _, c := range append(append([]v1.Container(nil), pod.Spec.InitContainers...), pod.Spec.Containers...) {
		u := int64(-1)
		if p := pod.Spec.SecurityContext; p != nil && p.RunAsUser != nil {
			u = *p.RunAsUser
		}
		if s := c.SecurityContext; s != nil && s.RunAsUser != nil {
			u = *s.RunAsUser
		}
		if u < 0 || user >= 0 && u != user {
			return -1
		}
		user = u
	}
	return user
}

// token answers a token bound to the pod; a new one is asked for after four fifths of its life, or a day.
func (m *Manager) token(ctx context.Context, pod *v1.Pod, p *v1.ServiceAccountTokenProjection) (string, error) {
	key := string(pod.UID) + "/" + p.Audience + "/" + p.Path
	m.mu.Lock()
	t, ok := m.tokens[key]
	m.mu.Unlock()
	now := time.Now()
	if ok && now.Before(t.made.Add(min(t.expires.Sub(t.made)*4/5, 24*time.Hour))) {
		return t.text, nil
	}
	req := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{ExpirationSeconds: p.ExpirationSeconds,
		BoundObjectRef: &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	r, err := m.cfg.Objects.Token(ctx, pod.Namespace, account, req)
	if err != nil {
		if ok && now.Before(t.expires) {
			return t.text, nil
		}
		return "", fmt.Errorf("failed to fetch token: %w", err)
	}
	if strings.TrimSpace(r.Status.Token) == "" {
		return "", errors.New("failed to fetch token: the server sent none")
	}
	m.mu.Lock()
	m.tokens[key] = token{r.Status.Token, now, r.Status.ExpirationTimestamp.Time}
	m.mu.Unlock()
	return r.Status.Token, nil
}
