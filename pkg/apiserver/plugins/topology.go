package plugins

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

var nodes = schema.GroupResource{Resource: "nodes"}

// topology are the labels of a node that its pods get too.
var topology = []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion}

// PodTopologyLabels tells a pod where its node stands: through the binding that gives it the node, or when it is made with one.
var PodTopologyLabels = admission.Plugin{Name: "PodTopologyLabels", Mutate: func(ctx context.Context, r *admission.Request) error {
	if r.Verb != admission.Create || r.Resource.GroupResource() != pods {
		return nil
	}
	var m *metav1.ObjectMeta
	node := ""
	switch o := r.Object.(type) {
	case *corev1.Binding:
		if r.Sub == "binding" && (o.Target.Kind == "" || o.Target.Kind == "Node") {
			m, node = &o.ObjectMeta, o.Target.Name
		}
	case *corev1.Pod:
		if r.Sub == "" {
			m, node = &o.ObjectMeta, o.Spec.NodeName
		}
	}
	if node == "" {
		return nil
	}
	obj, err := r.Env.Get(ctx, nodes, "", node)
	if apierrors.IsNotFound(err) {
		return nil // it will be missed elsewhere
	}
	if err != nil {
		return err
	}
	for _, l := range topology {
		if v, ok := obj.GetLabels()[l]; ok {
			metav1.SetMetaDataLabel(m, l, v)
		}
	}
	return nil
}}
