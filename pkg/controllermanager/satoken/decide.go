package satoken

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// step is what becomes of a secret.
type step int

const (
	stay step = iota
	fill
	drop
)

// String is the step in words.
func (s step) String() string { return [...]string{"stays", "is filled", "goes"}[s] }

// decide says what becomes of a token's secret; account is the one of its name, nil if there is none.
func decide(s *corev1.Secret, account *corev1.ServiceAccount, ca []byte) step {
	if s.Type != corev1.SecretTypeServiceAccountToken || s.DeletionTimestamp != nil || s.Annotations[corev1.ServiceAccountNameKey] == "" {
		return stay
	}
	uid := types.UID(s.Annotations[corev1.ServiceAccountUIDKey])
	switch {
	case account == nil, uid != "" && uid != account.UID:
		return drop
	case uid == "", len(s.Data[corev1.ServiceAccountTokenKey]) == 0, string(s.Data[corev1.ServiceAccountNamespaceKey]) != account.Namespace,
		len(ca) > 0 && !bytes.Equal(s.Data[corev1.ServiceAccountRootCAKey], ca):
		return fill
	}
	return stay
}

// filled is the data of a token's secret.
func filled(have map[string][]byte, account *corev1.ServiceAccount, ca []byte, token string) map[string][]byte {
	out := maps.Clone(have)
	if out == nil {
		out = map[string][]byte{}
	}
	out[corev1.ServiceAccountTokenKey], out[corev1.ServiceAccountNamespaceKey] = []byte(token), []byte(account.Namespace)
	if len(ca) > 0 {
		out[corev1.ServiceAccountRootCAKey] = ca
	}
	return out
}

// The labels in which the apiserver notes when a token was last used, and we since when it is not valid any more.
const (
	usedLabel    = "kubernetes.io/legacy-token-last-used"
	invalidLabel = "kubernetes.io/legacy-token-invalid-since"
)

// Usage is what is known of the use of tokens.
type Usage struct {
	Secrets  []*corev1.Secret
	Accounts []*corev1.ServiceAccount
	Pods     []*corev1.Pod
	Since    time.Time // when tracking began
	Period   time.Duration
	Now      time.Time
}

// Unused is which tokens are given up.
type Unused struct {
	Invalidate, Delete []*corev1.Secret
	Date               string // of today
}

// String shows the plan as tests do.
func (u Unused) String() string {
	var b strings.Builder
	for _, s := range u.Invalidate {
		b.WriteString("invalidate " + s.Name + "\n")
	}
	for _, s := range u.Delete {
		b.WriteString("delete " + s.Name + "\n")
	}
	return b.String()
}

// decideUnused answers the tokens that nobody has used for a whole period: first they are marked as not valid, after
// another period they go. Only those that were made by themselves do, which their account names, and none that a pod mounts.
func decideUnused(u Usage) Unused {
	out := Unused{Date: u.Now.Format(time.DateOnly)}
	edge := u.Now.Add(-u.Period)
	if u.Since.After(edge) {
		return out // tracking has not seen a whole period
	}
	made, mounted := map[string]bool{}, map[string]bool{}
	for _, a := range u.Accounts {
		for _, ref := range a.Secrets {
			made[a.Namespace+"/"+ref.Name+"/"+string(a.UID)] = true
		}
	}
	for _, p := range u.Pods {
		for _, v := range p.Spec.Volumes {
			if v.Secret != nil {
				mounted[p.Namespace+"/"+v.Secret.SecretName] = true
			}
		}
	}
	for _, s := range u.Secrets {
		name := s.Namespace + "/" + s.Name
		if s.Type != corev1.SecretTypeServiceAccountToken || s.DeletionTimestamp != nil || s.CreationTimestamp.After(edge) || mounted[name] ||
			!made[name+"/"+s.Annotations[corev1.ServiceAccountUIDKey]] {
			continue
		}
		if used, err := time.Parse(time.DateOnly, s.Labels[usedLabel]); err == nil && used.After(edge) || err != nil && s.Labels[usedLabel] != "" {
			continue
		}
		since, marked := s.Labels[invalidLabel]
		if !marked {
			out.Invalidate = append(out.Invalidate, s)
			continue
		}
		if at, err := time.Parse(time.DateOnly, since); err == nil && !at.After(edge) {
			out.Delete = append(out.Delete, s)
		}
	}
	order := func(a, b *corev1.Secret) int { return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) }
	slices.SortFunc(out.Invalidate, order)
	slices.SortFunc(out.Delete, order)
	return out
}
