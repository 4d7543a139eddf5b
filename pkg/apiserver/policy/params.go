package policy

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// params answers the objects that a policy is evaluated with under a binding, one evaluation each; a nil one is an
// evaluation without.
func (c *Config) params(ctx context.Context, r *admission.Request, k *v1.ParamKind, ref *v1.ParamRef) ([]runtime.Object, error) {
	if k == nil || ref == nil {
		return []runtime.Object{nil}, nil
	}
	gv, err := schema.ParseGroupVersion(k.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("failed to find resource referenced by paramKind: %w", err)
	}
	gvk := gv.WithKind(k.Kind)
	d := c.Row(gvk)
	if d == nil {
		return nil, fmt.Errorf("failed to find resource referenced by paramKind: '%v'", gvk)
	}
	ns := ""
	switch {
	case d.Namespaced && ref.Namespace != "":
		ns = ref.Namespace
	case d.Namespaced && r.Namespace == "":
		return nil, errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
	case d.Namespaced:
		ns = r.Namespace
	case ref.Namespace != "":
		return nil, errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	}
	found, err := selectParams(ctx, r.Env, d, ns, ref)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 && ref.ParameterNotFoundAction != nil && *ref.ParameterNotFoundAction == v1.DenyAction {
		return nil, errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
	}
	out := make([]runtime.Object, len(found))
	for i, o := range found {
		if out[i], err = show(d, o, gvk); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func selectParams(ctx context.Context, env kind.Env, d *kind.Def, ns string, ref *v1.ParamRef) ([]kind.Object, error) {
	gr := d.GroupResource()
	if ref.Name != "" {
		o, err := env.Get(ctx, gr, ns, ref.Name)
		if apierrors.IsNotFound(err) {
			o, err = env.GetFresh(ctx, gr, ns, ref.Name)
		}
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return []kind.Object{o}, err
	}
	s, err := metav1.LabelSelectorAsSelector(ref.Selector)
	if err != nil {
		return nil, err
	}
	all, err := env.List(ctx, gr, ns)
	var out []kind.Object
	for _, o := range all {
		if s.Matches(labels.Set(o.GetLabels())) {
			out = append(out, o)
		}
	}
	return out, err
}

// show makes a map of a hub object in the version that the policy names.
func show(d *kind.Def, o kind.Object, gvk schema.GroupVersionKind) (runtime.Object, error) {
	var m map[string]any
	if d.Loose != nil {
		c, err := d.Loose.To(o, gvk.GroupVersion())
		if err != nil {
			return nil, err
		}
		if m, err = c.(kind.Mapped).Map(); err != nil {
			return nil, err
		}
	} else {
		ver := d.Version(gvk.GroupVersion())
		if ver == nil {
			return nil, fmt.Errorf("%s is not served", gvk)
		}
		c, err := ver.Of(o)
		if err != nil {
			return nil, err
		}
		if m, err = runtime.DefaultUnstructuredConverter.ToUnstructured(c); err != nil {
			return nil, err
		}
	}
	u := &unstructured.Unstructured{Object: m}
	u.SetGroupVersionKind(gvk)
	return u, nil
}
