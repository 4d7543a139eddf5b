// Package match says which requests a webhook or policy is about, and shows them the request in the version they ask for.
//
// The flow: New makes a View of an admission request; Criteria.Match compares rules and selectors with it and answers under
// which resource and version it matches; View.At shows the objects in that version, as maps, which expressions and
// webhooks read; View.Replace takes a changed one back into the request. A View belongs to one request and one goroutine
// at a time; Criteria never change.
package match

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	upstream "k8s.io/apiserver/pkg/admission"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// View is one request as webhooks and policies see it.
type View struct {
	R *admission.Request
	// Kind is that of the object, in the version asked for: a subresource may have one of its own.
	Kind schema.GroupVersionKind

	sub   *kind.Sub // nil for the object itself
	shown map[schema.GroupVersionKind]*upstream.VersionedAttributes
}

var scaleKind = autoscalingv1.SchemeGroupVersion.WithKind("Scale")

// New makes the view of a request.
func New(r *admission.Request) *View {
	v := &View{R: r, sub: r.Def.Sub(r.Sub), shown: map[schema.GroupVersionKind]*upstream.VersionedAttributes{}}
	gv := r.Resource.GroupVersion()
	v.Kind = gv.WithKind(r.Def.Kind)
	if ver := r.Def.Version(gv); ver != nil {
		v.Kind = r.Def.GVK(ver)
	}
	switch s := v.sub; {
	case s == nil:
	case s.Scale != nil:
		v.Kind = scaleKind
	case s.Action != nil:
		v.Kind = s.Action.GV.WithKind(s.Action.Kind)
	case s.Connect != nil && s.Connect.OptionsKind != "":
		v.Kind = gv.WithKind(s.Connect.OptionsKind)
	}
	return v
}

// whole tells that the request's objects are of the row's kind, not of a subresource's own.
func (v *View) whole() bool {
	return v.sub == nil || v.sub.Aspect != nil
}

// place is a resource and the kind of its objects.
type place struct {
	resource schema.GroupVersionResource
	kind     schema.GroupVersionKind
}

// equivalents are the other places where the same object could have been reached.
func (v *View) equivalents() (out []place) {
	if !v.whole() {
		return nil
	}
	d := v.R.Def
	if d.Loose != nil {
		for _, gv := range d.Loose.Equivalents {
			out = append(out, place{gv.WithResource(d.Resource), gv.WithKind(d.Kind)})
		}
		return out
	}
	for i := range d.Versions {
		if o := &d.Versions[i]; o.GV != v.R.Resource.GroupVersion() {
			out = append(out, place{o.GV.WithResource(d.Resource), d.GVK(o)})
		}
	}
	return out
}

// At shows the request's objects as gvk.
func (v *View) At(gvk schema.GroupVersionKind) (*upstream.VersionedAttributes, error) {
	if a := v.shown[gvk]; a != nil {
		return a, nil
	}
	obj, err := v.show(v.R.Object, gvk)
	if err != nil {
		return nil, err
	}
	old, err := v.show(v.R.Old, gvk)
	if err != nil {
		return nil, err
	}
	asked := v.shown[v.Kind]
	if asked == nil && gvk != v.Kind {
		if asked, err = v.At(v.Kind); err != nil {
			return nil, err
		}
	}
	a := &upstream.VersionedAttributes{VersionedKind: gvk}
	if asked != nil {
		a.Attributes = asked.Attributes
	} else {
		a.Attributes = upstream.NewAttributesRecord(iface(obj), iface(old), v.Kind, v.R.Namespace, v.R.Name, v.R.Resource, v.R.Sub,
			upstream.Operation(v.R.Verb), v.R.Options, v.R.DryRun, v.R.User)
	}
	if obj != nil {
		a.VersionedObject.Set(obj)
	}
	if old != nil {
		a.VersionedOldObject.Set(old)
	}
	v.shown[gvk] = a
	return a, nil
}

// iface keeps a nil pointer from becoming an interface that is not nil.
func iface(u *unstructured.Unstructured) runtime.Object {
	if u == nil {
		return nil
	}
	return u
}

// show answers an object as a map of kind gvk, nil for none.
func (v *View) show(obj runtime.Object, gvk schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	if obj == nil || reflect.ValueOf(obj).IsNil() {
		return nil, nil
	}
	out := obj
	switch hub, isHub := obj.(kind.Object); {
	case isHub && v.whole() && v.R.Def.Loose != nil:
		o, err := v.R.Def.Loose.To(hub.DeepCopyObject().(kind.Object), gvk.GroupVersion())
		if err != nil {
			return nil, fmt.Errorf("failed to convert object version: %w", err)
		}
		out = o
	case isHub && v.whole():
		if ver := v.R.Def.Version(gvk.GroupVersion()); ver != nil {
			o, err := ver.Of(hub)
			if err != nil {
				return nil, fmt.Errorf("failed to convert object version: %w", err)
			}
			out = o
		}
	case isHub && v.sub.Scale != nil:
		if _, is := obj.(*autoscalingv1.Scale); !is {
			out = scaleOf(v.sub.Scale, hub)
		}
	}
	m, err := toMap(out)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: m}
	u.SetGroupVersionKind(gvk)
	return u, nil
}

func toMap(obj runtime.Object) (map[string]any, error) {
	if m, ok := obj.(kind.Mapped); ok {
		all, err := m.Map()
		if err != nil {
			return nil, err
		}
		return runtime.DeepCopyJSON(all), nil
	}
	return runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
}

func scaleOf(s *kind.Scale, obj kind.Object) *autoscalingv1.Scale {
	spec, status, selector := s.Read(obj)
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp()},
		Spec:       autoscalingv1.ScaleSpec{Replicas: spec}, Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}
}

// Replace makes the request's object what u says, which is of kind gvk as At showed it.
func (v *View) Replace(gvk schema.GroupVersionKind, u *unstructured.Unstructured) error {
	r := v.R
	if r.Object == nil {
		return errors.New("there is no object to change")
	}
	hub, err := v.hub(gvk, u)
	if err != nil {
		return err
	}
	reflect.ValueOf(r.Object).Elem().Set(reflect.ValueOf(hub).Elem())
	r.Changed = true
	v.shown = map[schema.GroupVersionKind]*upstream.VersionedAttributes{}
	return nil
}

// hub makes of a map what the request carries.
func (v *View) hub(gvk schema.GroupVersionKind, u *unstructured.Unstructured) (runtime.Object, error) {
	d := v.R.Def
	switch {
	case v.whole() && d.Loose != nil:
		o := d.Storage.New()
		if err := o.(kind.Mapped).SetMap(u.Object); err != nil {
			return nil, err
		}
		o, err := d.Loose.From(o)
		if err != nil {
			return nil, err
		}
		return o, d.Loose.Shape(o)
	case v.whole():
		ver := d.Version(gvk.GroupVersion())
		if ver == nil {
			return nil, fmt.Errorf("%s is not served", gvk)
		}
		o := ver.New()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, o); err != nil {
			return nil, err
		}
		if ver.Default != nil {
			ver.Default(o)
		}
		return ver.Hub(o)
	case v.sub.Scale != nil:
		s := &autoscalingv1.Scale{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, s); err != nil {
			return nil, err
		}
		o := v.R.Object.(kind.Object).DeepCopyObject().(kind.Object)
		v.sub.Scale.Write(o, s.Spec.Replicas)
		return o, nil
	}
	o := reflect.New(reflect.TypeOf(v.R.Object).Elem()).Interface().(runtime.Object)
	return o, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, o)
}

var namespaces = schema.GroupResource{Resource: "namespaces"}

// Namespace answers the namespace that the request is in, nil if it is in none or is about one.
func (v *View) Namespace(ctx context.Context) (*corev1.Namespace, error) {
	if v.R.Namespace == "" || v.R.Resource.GroupResource() == namespaces {
		return nil, nil
	}
	return namespaceOf(ctx, v.R)
}
