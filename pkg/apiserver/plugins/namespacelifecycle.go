package plugins

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

var namespaces = schema.GroupResource{Resource: "namespaces"}

// immortal are the namespaces without which there is no cluster.
var immortal = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic}

// NamespaceLifecycle lets nothing be made in a namespace that is not there or on its way out.
var NamespaceLifecycle = admission.Plugin{Name: "NamespaceLifecycle", Validate: func(ctx context.Context, r *admission.Request) error {
	if r.Resource.GroupResource() == namespaces {
		if r.Verb == admission.Delete && slices.Contains(immortal, r.Name) {
			return apierrors.NewForbidden(namespaces, r.Name, fmt.Errorf("this namespace may not be deleted"))
		}
		return nil
	}
	if r.Namespace == "" || r.Verb != admission.Create || r.Def.Virtual != nil {
		return nil
	}
	obj, err := r.Env.Get(ctx, namespaces, "", r.Namespace)
	if apierrors.IsNotFound(err) {
		// The cache may be a moment behind whoever made it.
		obj, err = r.Env.GetFresh(ctx, namespaces, "", r.Namespace)
	}
	if err != nil {
		return err
	}
	if obj.(*corev1.Namespace).Status.Phase != corev1.NamespaceTerminating {
		return nil
	}
	if r.Sub != "" {
		return nil // what is there already may still be worked with
	}
	refusal := apierrors.NewForbidden(r.Resource.GroupResource(), r.Name, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", r.Namespace))
	refusal.ErrStatus.Code = http.StatusForbidden
	refusal.ErrStatus.Details.Causes = append(refusal.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", r.Namespace), Field: "metadata.namespace",
	})
	return refusal
}}
