package serviceaccount

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// name is the account of pods that name none.
const name = "default"

// Snapshot is what is decided upon.
type Snapshot struct {
	Namespace *corev1.Namespace
	Have      *corev1.ServiceAccount // nil = there is none
}

// Plan is what is to be done.
type Plan struct {
	Create *corev1.ServiceAccount
}

// String is the plan in words, "" for nothing.
func (p Plan) String() string {
	if p.Create == nil {
		return ""
	}
	return "create " + p.Create.Namespace + "/" + p.Create.Name + "\n"
}

// decide gives an active namespace the account that it lacks; one that ends takes nothing new.
func decide(s Snapshot) Plan {
	if s.Have != nil || s.Namespace.Status.Phase != corev1.NamespaceActive {
		return Plan{}
	}
	return Plan{Create: &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.Namespace.Name}}}
}
