package plugins

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// world is the part of an Env that plugins read: objects by resource. What it lacks panics.
type world struct {
	kind.Env
	objects map[schema.GroupResource][]kind.Object
}

func (w world) Get(_ context.Context, gr schema.GroupResource, namespace, name string) (kind.Object, error) {
	for _, o := range w.objects[gr] {
		if o.GetNamespace() == namespace && o.GetName() == name {
			return o, nil
		}
	}
	return nil, apierrors.NewNotFound(gr, name)
}

func (w world) GetFresh(ctx context.Context, gr schema.GroupResource, namespace, name string) (kind.Object, error) {
	return w.Get(ctx, gr, namespace, name)
}

func (w world) List(_ context.Context, gr schema.GroupResource, namespace string) ([]kind.Object, error) {
	var found []kind.Object
	for _, o := range w.objects[gr] {
		if namespace == "" || o.GetNamespace() == namespace {
			found = append(found, o)
		}
	}
	return found, nil
}

// create asks one plugin about a new object in namespace "a".
func create(p admission.Plugin, w world, plural string, obj runtime.Object) error {
	r := &admission.Request{Verb: admission.Create, Resource: schema.GroupVersionResource{Version: "v1", Resource: plural}, Namespace: "a", Name: "x", Object: obj, Env: w}
	c := admission.Chain{p}
	if err := c.Mutate(context.Background(), r); err != nil {
		return err
	}
	return c.Validate(context.Background(), r)
}

func amounts(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func ranged(items ...corev1.LimitRangeItem) world {
	return world{objects: map[schema.GroupResource][]kind.Object{limitRanges: {
		&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "r"}, Spec: corev1.LimitRangeSpec{Limits: items}},
		&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "b", Name: "r"}, Spec: corev1.LimitRangeSpec{
			Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Max: amounts("cpu", "1m")}}}},
	}}}
}

func onePod(requests, limits corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}}}
}

func TestLimitRangerFills(t *testing.T) {
	w := ranged(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Default: amounts("cpu", "2"), DefaultRequest: amounts("cpu", "1", "memory", "1Gi")})
	p := onePod(amounts("memory", "5Mi"), nil)
	if err := create(LimitRanger, w, "pods", p); err != nil {
		t.Fatal(err)
	}
	c := p.Spec.Containers[0].Resources
	if c.Requests.Cpu().String() != "1" || c.Requests.Memory().String() != "5Mi" || c.Limits.Cpu().String() != "2" {
		t.Errorf("filled to %v", c)
	}
	if got, want := p.Annotations[limitNote], "LimitRanger plugin set: cpu request for container c; cpu limit for container c"; got != want {
		t.Errorf("annotation %q, want %q", got, want)
	}
}

func TestLimitRangerRefuses(t *testing.T) {
	item := func(typ corev1.LimitType, least, most, ratio corev1.ResourceList) corev1.LimitRangeItem {
		return corev1.LimitRangeItem{Type: typ, Min: least, Max: most, MaxLimitRequestRatio: ratio}
	}
	claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage", "5Gi")}}}
	for _, c := range []struct {
		item   corev1.LimitRangeItem
		plural string
		obj    runtime.Object
		want   string // "" is allowed
	}{
		{item("Container", amounts("cpu", "1"), nil, nil), "pods", onePod(amounts("cpu", "1"), nil), ""},
		{item("Container", amounts("cpu", "1"), nil, nil), "pods", onePod(nil, nil), "minimum cpu usage per Container is 1.  No request is specified"},
		{item("Container", amounts("cpu", "1"), nil, nil), "pods", onePod(amounts("cpu", "500m"), nil), "minimum cpu usage per Container is 1, but request is 500m"},
		{item("Container", nil, amounts("cpu", "1"), nil), "pods", onePod(nil, amounts("cpu", "1")), ""},
		{item("Container", nil, amounts("cpu", "1"), nil), "pods", onePod(nil, amounts("cpu", "2")), "maximum cpu usage per Container is 1, but limit is 2"},
		{item("Container", nil, amounts("cpu", "1"), nil), "pods", onePod(nil, nil), "maximum cpu usage per Container is 1.  No limit is specified"},
		{item("Pod", nil, amounts("cpu", "1"), nil), "pods", onePod(nil, amounts("cpu", "2")), "maximum cpu usage per Pod is 1, but limit is 2"},
		{item("Container", nil, nil, amounts("cpu", "2")), "pods", onePod(amounts("cpu", "1"), amounts("cpu", "2")), ""},
		{item("Container", nil, nil, amounts("cpu", "2")), "pods", onePod(amounts("cpu", "1"), amounts("cpu", "3")), "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"},
		{item("PersistentVolumeClaim", nil, amounts("storage", "5Gi"), nil), "persistentvolumeclaims", claim, ""},
		{item("PersistentVolumeClaim", nil, amounts("storage", "1Gi"), nil), "persistentvolumeclaims", claim, "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Gi"},
	} {
		err := create(LimitRanger, ranged(c.item), c.plural, c.obj)
		if c.want == "" && err != nil || c.want != "" && (!apierrors.IsForbidden(err) || !strings.HasSuffix(err.Error(), c.want)) {
			t.Errorf("%+v: answered %v, want %q", c.item, err, c.want)
		}
	}
}

func TestDefaultStorageClassIsTheNewest(t *testing.T) {
	class := func(name, mark string, at int64) kind.Object {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{defaultStorageNote: mark}, CreationTimestamp: metav1.Unix(at, 0)}}
	}
	w := world{objects: map[schema.GroupResource][]kind.Object{storageClasses: {class("old", "true", 1), class("b", "true", 5), class("a", "true", 5), class("no", "false", 9)}}}
	c := &corev1.PersistentVolumeClaim{}
	if err := create(DefaultStorageClass, w, "persistentvolumeclaims", c); err != nil || c.Spec.StorageClassName == nil || *c.Spec.StorageClassName != "a" {
		t.Errorf("class %v, %v", c.Spec.StorageClassName, err)
	}
	c = &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: new("")}}
	if err := create(DefaultStorageClass, w, "persistentvolumeclaims", c); err != nil || *c.Spec.StorageClassName != "" {
		t.Errorf("a claim that wants no class got %q, %v", *c.Spec.StorageClassName, err)
	}
}

func TestRuntimeClass(t *testing.T) {
	w := world{objects: map[schema.GroupResource][]kind.Object{runtimeClasses: {&nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: "vm"}, Overhead: &nodev1.Overhead{PodFixed: amounts("cpu", "250m")},
		Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"vm": "yes"}},
	}}}}
	p := &corev1.Pod{Spec: corev1.PodSpec{RuntimeClassName: new("vm")}}
	if err := create(RuntimeClass, w, "pods", p); err != nil || p.Spec.Overhead.Cpu().String() != "250m" || p.Spec.NodeSelector["vm"] != "yes" {
		t.Errorf("pod became %+v, %v", p.Spec, err)
	}
	for want, spec := range map[string]corev1.PodSpec{
		`RuntimeClass "no" not found`:                         {RuntimeClassName: new("no")},
		"doesn't match RuntimeClass's defined Overhead":       {RuntimeClassName: new("vm"), Overhead: amounts("cpu", "1")},
		"without corresponding RuntimeClass defined Overhead": {Overhead: amounts("cpu", "1")},
		"conflict: runtimeClass.scheduling.nodeSelector[vm]":  {RuntimeClassName: new("vm"), NodeSelector: map[string]string{"vm": "no"}},
	} {
		if err := create(RuntimeClass, w, "pods", &corev1.Pod{Spec: spec}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("answered %v, want %q", err, want)
		}
	}
}
