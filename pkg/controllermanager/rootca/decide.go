package rootca

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	name        = "kube-root-ca.crt"
	key         = "ca.crt"
	description = "kubernetes.io/description"
	text        = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)

// Snapshot is what is decided upon.
type Snapshot struct {
	Namespace *corev1.Namespace
	Have      *corev1.ConfigMap // nil = there is none
	CA        string            // in PEM form
}

// Plan is what is to be done: one or none of both.
type Plan struct {
	Create, Update *corev1.ConfigMap
}

// String is the plan in words, "" for nothing.
func (p Plan) String() string {
	var b strings.Builder
	if p.Create != nil {
		fmt.Fprintf(&b, "create %s/%s with %v\n", p.Create.Namespace, p.Create.Name, p.Create.Data)
	}
	if p.Update != nil {
		fmt.Fprintf(&b, "update %s/%s with %v\n", p.Update.Namespace, p.Update.Name, p.Update.Data)
	}
	return b.String()
}

// decide makes an active namespace's ConfigMap hold the CA and nothing else; a namespace that ends is left alone.
func decide(s Snapshot) Plan {
	if s.Namespace.Status.Phase != corev1.NamespaceActive {
		return Plan{}
	}
	want := map[string]string{key: s.CA}
	if s.Have == nil {
		return Plan{Create: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.Namespace.Name, Annotations: map[string]string{description: text}}, Data: want,
		}}
	}
	if len(s.Have.Data) == 1 && s.Have.Data[key] == s.CA && s.Have.Annotations[description] != "" {
		return Plan{}
	}
	next := s.Have.DeepCopy()
	next.Data = want
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, description, text)
	return Plan{Update: next}
}
