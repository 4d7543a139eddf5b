package plugins

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// TestNodeDeclaredFeatureValidator: what a node does not declare is refused to its pods, and nothing else is.
func TestNodeDeclaredFeatureValidator(t *testing.T) {
	w := world{objects: map[schema.GroupResource][]kind.Object{nodes: {
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "new"}, Status: corev1.NodeStatus{DeclaredFeatures: []string{"InPlacePodLevelResourcesVerticalScaling"}}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "old"}},
	}}}
	pod := func(node, own, init, container string) *corev1.Pod {
		cpu := func(s string) corev1.ResourceRequirements {
			if s == "" {
				return corev1.ResourceRequirements{}
			}
			return corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse(s)}}
		}
		size := cpu(own)
		return &corev1.Pod{Spec: corev1.PodSpec{NodeName: node, Resources: &size, InitContainers: []corev1.Container{{Name: "i", Resources: cpu(init)}},
			Containers: []corev1.Container{{Name: "c", Resources: cpu(container)}}}}
	}
	const own, inits = "pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node \"old\"",
		"pod update requires features InPlacePodVerticalScalingInitContainers which are not available on node \"new\""
	for _, c := range []struct {
		what, sub string
		was, now  *corev1.Pod
		want      string
	}{
		{"declared", "resize", pod("new", "1", "1", "1"), pod("new", "2", "1", "1"), ""},
		{"not declared", "resize", pod("old", "1", "1", "1"), pod("old", "2", "1", "1"), own},
		{"not declared, of the pod itself", "", pod("old", "1", "1", "1"), pod("old", "2", "1", "1"), own},
		{"containers only", "resize", pod("old", "1", "1", "1"), pod("old", "1", "1", "2"), ""},
		{"an init container", "resize", pod("new", "1", "1", "1"), pod("new", "1", "2", "1"), inits},
		{"an init container's size in other words", "resize", pod("old", "1", "1000m", "1"), pod("old", "1", "1", "2"), ""},
		{"fewer init containers, which is refused elsewhere", "resize", pod("old", "1", "1", "1"), &corev1.Pod{Spec: corev1.PodSpec{NodeName: "old"}}, ""},
		{"no change", "resize", pod("old", "1", "1", "1"), pod("old", "1", "1", "1"), ""},
		{"no node yet", "resize", pod("", "1", "1", "1"), pod("", "2", "1", "1"), ""},
		{"a node that is gone", "resize", pod("gone", "1", "1", "1"), pod("gone", "2", "1", "1"), `node "gone" not found`},
		{"a status", "status", pod("old", "1", "1", "1"), pod("old", "2", "1", "1"), ""},
	} {
		r := &admission.Request{Verb: admission.Update, Resource: schema.GroupVersionResource{Version: "v1", Resource: "pods"}, Sub: c.sub, Namespace: "a", Name: "x", Object: c.now, Old: c.was, Env: w}
		says(t, c.what, admission.Chain{NodeDeclaredFeatureValidator}.Validate(context.Background(), r), c.want)
	}
}
