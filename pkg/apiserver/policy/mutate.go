package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	upstream "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/engine"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/match"
	"github.com/sextant-k8s/sextant/staging/api/scheme"
)

// patches are a mutating policy's expressions.
type patches struct {
	conditions matchconditions.Matcher // nil if there are none
	list       []patch.Patcher
	compiler   *cel.CompositedCompiler
	again      bool // to be asked again after others changed the object
}

func compilePatches(p *v1.MutatingAdmissionPolicy) (*patches, error) {
	c, err := match.Composed()
	if err != nil {
		return nil, fmt.Errorf("failed to initialize CEL compiler: %w", err)
	}
	s := &p.Spec
	decl := cel.OptionalVariableDeclarations{HasParams: s.ParamKind != nil, HasAuthorizer: true}
	variables(c, s.Variables, decl)
	out := &patches{conditions: conditions(c, s.MatchConditions, decl, s.FailurePolicy, p.Name), compiler: c, again: s.ReinvocationPolicy == v1.IfNeededReinvocationPolicy}
	decl.HasPatchTypes = true
	for _, m := range s.Mutations {
		switch {
		case m.PatchType == v1.PatchTypeJSONPatch && m.JSONPatch != nil:
			e := &patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}
			out.list = append(out.list, patch.NewJSONPatcher(c.CompileMutatingEvaluator(e, decl, environment.StoredExpressions)))
		case m.PatchType == v1.PatchTypeApplyConfiguration && m.ApplyConfiguration != nil:
			e := &patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}
			out.list = append(out.list, patch.NewApplyConfigurationPatcher(c.CompileMutatingEvaluator(e, decl, environment.StoredExpressions)))
		}
	}
	return out, nil
}

// mutator is the plugin's state.
type mutator struct {
	Config
	catalog[*patches]
	objects upstream.ObjectInterfaces
}

// Mutating is the plugin of MutatingAdmissionPolicies.
func Mutating(c Config) admission.Plugin {
	gr := func(r string) schema.GroupResource { return schema.GroupResource{Group: v1.GroupName, Resource: r} }
	m := &mutator{Config: c, objects: upstream.NewObjectInterfacesFromScheme(scheme.Scheme), catalog: catalog[*patches]{
		policies: gr("mutatingadmissionpolicies"), bindings: gr("mutatingadmissionpolicybindings"),
		readPolicy: func(o kind.Object) (*policy[*patches], error) {
			p := o.(*v1.MutatingAdmissionPolicy)
			return newPolicy(p.Name, p.Spec.ParamKind, p.Spec.FailurePolicy, p.Spec.MatchConstraints, func() (*patches, error) { return compilePatches(p) })
		},
		readBinding: func(o kind.Object) (*binding, error) {
			b := o.(*v1.MutatingAdmissionPolicyBinding)
			return newBinding(b.Name, b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources)
		},
	}}
	return admission.Plugin{Name: "MutatingAdmissionPolicy", Mutate: m.mutate}
}

// memory is what the policies know from the first round to the second.
type memory struct {
	asked, again map[string]bool
	result       runtime.Object
}

func (m *memory) changed() {
	for id := range m.asked {
		m.again[id] = true
	}
	clear(m.asked)
}

func (m *mutator) mutate(ctx context.Context, r *admission.Request) error {
	list, err := m.all(ctx, r.Env)
	if err != nil || len(list) == 0 || match.Exempt(r) || r.Object == nil {
		return err
	}
	const key = "MutatingAdmissionPolicy"
	mem, _ := r.Memory[key].(*memory)
	if mem == nil {
		mem = &memory{asked: map[string]bool{}, again: map[string]bool{}}
		if r.Memory == nil {
			r.Memory = map[string]any{}
		}
		r.Memory[key] = mem
	}
	if r.Again && mem.result != nil && !equality.Semantic.DeepEqual(mem.result, r.Object) {
		mem.changed()
	}
	view := match.New(r)
	for _, p := range list {
		if err := m.apply(ctx, view, p, mem); err != nil {
			return err
		}
	}
	mem.result = r.Object.DeepCopyObject()
	return nil
}

// apply lets one policy change the object under each of its bindings.
func (m *mutator) apply(ctx context.Context, view *match.View, p *policy[*patches], mem *memory) error {
	ok, gvr, gvk, err := p.criteria.Match(ctx, view)
	if err != nil {
		return m.fault(view.R, p, nil, fmt.Errorf("failed to configure policy: %w", err))
	}
	if !ok {
		return nil
	}
	for _, b := range p.bindings {
		if ok, err = b.matches(ctx, view); err == nil && !ok {
			continue
		}
		var params []runtime.Object
		var compiled *patches
		if err == nil {
			params, err = m.params(ctx, view.R, p.paramKind, b.ref)
		}
		if err == nil {
			compiled, err = p.compiled()
		}
		if err != nil {
			if err = m.fault(view.R, p, b, fmt.Errorf("failed to configure binding: %w", err)); err != nil {
				return err
			}
			continue
		}
		ns, err := view.Namespace(ctx)
		if err != nil {
			return err
		}
		for _, param := range params {
			id := p.name + "/" + b.name + "/" + nameOf(param)
			if view.R.Again && !mem.again[id] {
				continue
			}
			begun := time.Now()
			did, err := m.one(ctx, view, compiled, gvr, gvk, param, ns)
			mutated(p.name, b.name, err, time.Since(begun))
			if err != nil {
				if err = m.fault(view.R, p, b, err); err != nil {
					return err
				}
				continue
			}
			if did {
				mem.changed()
				view.R.Reinvoke = true
			}
			if compiled.again {
				mem.asked[id] = true
			}
		}
	}
	return nil
}

func nameOf(o runtime.Object) string {
	if o == nil {
		return ""
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return ""
	}
	return m.GetNamespace() + "/" + m.GetName()
}

// fault is the answer to a policy that cannot be evaluated, nil if that is to be ignored.
func (m *mutator) fault(r *admission.Request, p *policy[*patches], b *binding, err error) error {
	var status *apierrors.StatusError
	if errors.As(err, &status) {
		return status
	}
	if p.ignore {
		return nil
	}
	text := fmt.Sprintf("policy '%s' denied request: %v", p.name, err)
	if b != nil {
		text = fmt.Sprintf("policy '%s' with binding '%s' denied request: %v", p.name, b.name, err)
	}
	return refusal(r, text, "")
}

// one applies a policy's patches one after another and tells whether they changed the object.
func (m *mutator) one(ctx context.Context, view *match.View, c *patches, gvr schema.GroupVersionResource, gvk schema.GroupVersionKind, param runtime.Object, ns *corev1.Namespace) (bool, error) {
	shown, err := view.At(gvk)
	if err != nil {
		return false, err
	}
	ctx = c.compiler.CreateContext(ctx)
	if c.conditions != nil {
		got := c.conditions.Match(ctx, shown, param, m.Authz)
		if got.Error != nil || !got.Matches {
			return false, got.Error
		}
	}
	before, ok := shown.VersionedObject.Object().(*unstructured.Unstructured)
	if !ok || before == nil {
		return false, nil
	}
	types, err := typesOf(view.R.Def)
	if err != nil {
		return false, err
	}
	a := *shown // its object changes with each patch; the view's stays
	for _, p := range c.list {
		out, err := p.Patch(ctx, patch.Request{
			MatchedResource: gvr, VersionedAttributes: &a, ObjectInterfaces: m.objects, Namespace: ns, TypeConverter: types,
			OptionalVariables: cel.OptionalVariableBindings{VersionedParams: param, Authorizer: m.Authz},
		}, celconfig.RuntimeCELCostBudget)
		if err != nil {
			return false, err
		}
		next, err := loose(out, gvk)
		if err != nil {
			return false, err
		}
		a.UpdateObject(next)
	}
	after := a.VersionedObject.Object().(*unstructured.Unstructured)
	if equality.Semantic.DeepEqual(before.Object, after.Object) {
		return false, nil
	}
	return true, view.Replace(gvk, after)
}

// typesOf answers what field merging knows of a kind's versions.
func typesOf(d *kind.Def) (managedfields.TypeConverter, error) {
	if d.Loose != nil {
		return d.Loose.Types()
	}
	return engine.TypeConverter(), nil
}

// loose makes a map of what a patch answered.
func loose(obj runtime.Object, gvk schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	var m map[string]any
	var err error
	switch o := obj.(type) {
	case *unstructured.Unstructured:
		return o, nil
	case kind.Mapped:
		m, err = o.Map()
	default:
		m, err = runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	}
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: m}
	u.SetGroupVersionKind(gvk)
	return u, nil
}
