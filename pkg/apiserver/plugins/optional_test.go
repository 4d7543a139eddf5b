package plugins

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

func update(p admission.Plugin, w world, plural string, obj, old runtime.Object) error {
	r := &admission.Request{Verb: admission.Update, Resource: schema.GroupVersionResource{Version: "v1", Resource: plural}, Namespace: "a", Name: "x", Object: obj, Old: old, Env: w}
	c := admission.Chain{p}
	if err := c.Mutate(context.Background(), r); err != nil {
		return err
	}
	return c.Validate(context.Background(), r)
}

// says fails the test unless err ends in want, or there is none and none is wanted.
func says(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
		t.Errorf("%s: answered %v, want %q", what, err, want)
	}
}

func TestPersistentVolumeClaimResize(t *testing.T) {
	w := world{objects: map[schema.GroupResource][]kind.Object{storageClasses: {
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "grows"}, AllowVolumeExpansion: new(true)},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "stays"}},
	}}}
	claim := func(class, size string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{
			Spec:   corev1.PersistentVolumeClaimSpec{StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse(size)}}},
			Status: corev1.PersistentVolumeClaimStatus{Phase: phase},
		}
	}
	const cannot = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
	for _, c := range []struct {
		class, was, now string
		phase           corev1.PersistentVolumeClaimPhase
		want            string
	}{
		{"grows", "1Gi", "2Gi", corev1.ClaimBound, ""},
		{"grows", "1Gi", "2Gi", corev1.ClaimPending, "Only bound persistent volume claims can be expanded"},
		{"stays", "1Gi", "2Gi", corev1.ClaimBound, cannot},
		{"none", "1Gi", "2Gi", corev1.ClaimBound, cannot},
		{"stays", "1Gi", "1Gi", corev1.ClaimPending, ""},
	} {
		says(t, c.class, update(PersistentVolumeClaimResize, w, "persistentvolumeclaims", claim(c.class, c.now, c.phase), claim(c.class, c.was, c.phase)), c.want)
	}
}

func TestPodTopologyLabels(t *testing.T) {
	w := world{objects: map[schema.GroupResource][]kind.Object{nodes: {&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{
		corev1.LabelTopologyZone: "z", corev1.LabelTopologyRegion: "r", "other": "o",
	}}}}}}
	b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelTopologyZone: "lie"}}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	r := &admission.Request{Verb: admission.Create, Resource: schema.GroupVersionResource{Version: "v1", Resource: "pods"}, Sub: "binding", Namespace: "a", Name: "x", Object: b, Env: w}
	says(t, "a binding", admission.Chain{PodTopologyLabels}.Mutate(context.Background(), r), "")
	if len(b.Labels) != 2 || b.Labels[corev1.LabelTopologyZone] != "z" || b.Labels[corev1.LabelTopologyRegion] != "r" {
		t.Errorf("the binding has %v", b.Labels)
	}
}

func TestOptionalPlugins(t *testing.T) {
	w := world{objects: map[schema.GroupResource][]kind.Object{namespaces: {&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{selectorNote: "disk=ssd"}}}}}}
	pod := func() *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{ImagePullPolicy: corev1.PullNever, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			"cpu": resource.MustParse("1"), "example.com/gpu": resource.MustParse("1"),
		}}}}}}
	}
	p := pod()
	says(t, "pull", create(AlwaysPullImages, w, "pods", p), "")
	if p.Spec.Containers[0].ImagePullPolicy != corev1.PullAlways {
		t.Error("an image is not always pulled")
	}
	says(t, "selector", create(made(t, PodNodeSelector, ""), w, "pods", p), "")
	if p.Spec.NodeSelector["disk"] != "ssd" {
		t.Errorf("the node selector is %v", p.Spec.NodeSelector)
	}
	p.Spec.NodeSelector["disk"] = "hdd"
	says(t, "another selector", create(made(t, PodNodeSelector, ""), w, "pods", p), "pod node label selector conflicts with its namespace node label selector")
	says(t, "device", create(ExtendedResourceToleration, w, "pods", p), "")
	if len(p.Spec.Tolerations) != 1 || p.Spec.Tolerations[0].Key != "example.com/gpu" {
		t.Errorf("the tolerations are %v", p.Spec.Tolerations)
	}
	p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "zone"}}}}
	says(t, "far", create(LimitPodHardAntiAffinityTopology, w, "pods", p), "has TopologyKey zone but only key kubernetes.io/hostname is allowed")
	says(t, "exists", create(NamespaceExists, w, "pods", p), "")
	says(t, "is missing", create(NamespaceExists, world{}, "pods", p), `namespaces "a" not found`)
	says(t, "denied", create(AlwaysDeny, w, "pods", p), "admission control is denying all modifications")
	s := &corev1.Service{Spec: corev1.ServiceSpec{ExternalIPs: []string{"1.2.3.4"}}}
	says(t, "external", create(DenyServiceExternalIPs, w, "services", s), "Use of external IPs is denied by admission control.")
	says(t, "external before", update(DenyServiceExternalIPs, w, "services", s, s), "")

	names := func(enable, disable []string) (out []string) {
		c, err := New(Config{Enable: enable, Disable: disable, Authz: signers(t, nil)})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range c {
			out = append(out, p.Name)
		}
		return out
	}
	if slices.Contains(names(nil, nil), "AlwaysPullImages") || !slices.Contains(names([]string{"AlwaysPullImages"}, nil), "AlwaysPullImages") {
		t.Error("an optional plugin is there unasked, or is not when asked for")
	}
}
