package match

import (
	"context"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// Rule is which operations on which resources; Names narrows it to objects, none is all.
type Rule struct {
	admissionregistrationv1.RuleWithOperations
	Names []string
}

// Criteria is which requests are meant.
type Criteria struct {
	Rules, Excluded []Rule
	// Exact asks for the very resource and version that a rule names; else the same object reached elsewhere counts too.
	Exact              bool
	Namespaces, Labels labels.Selector
}

// NewCriteria reads selectors; nil ones select all.
func NewCriteria(rules, excluded []Rule, policy *admissionregistrationv1.MatchPolicyType, ns, object *metav1.LabelSelector) (*Criteria, error) {
	c := &Criteria{Rules: rules, Excluded: excluded, Exact: policy != nil && *policy == admissionregistrationv1.Exact, Namespaces: labels.Everything(), Labels: labels.Everything()}
	var err error
	if ns != nil {
		if c.Namespaces, err = metav1.LabelSelectorAsSelector(ns); err != nil {
			return nil, err
		}
	}
	if object != nil {
		c.Labels, err = metav1.LabelSelectorAsSelector(object)
	}
	return c, err
}

// Plain makes rules that are about all names.
func Plain(rules []admissionregistrationv1.RuleWithOperations) []Rule {
	out := make([]Rule, len(rules))
	for i, r := range rules {
		out[i] = Rule{RuleWithOperations: r}
	}
	return out
}

// Named makes rules of a policy's.
func Named(rules []admissionregistrationv1.NamedRuleWithOperations) []Rule {
	out := make([]Rule, len(rules))
	for i, r := range rules {
		out[i] = Rule{r.RuleWithOperations, r.ResourceNames}
	}
	return out
}

// Match tells whether a request is meant, and under which resource and kind.
func (c *Criteria) Match(ctx context.Context, v *View) (ok bool, gvr schema.GroupVersionResource, gvk schema.GroupVersionKind, err error) {
	found, ok := c.where(v)
	if !ok {
		return false, gvr, gvk, nil
	}
	if ok, err = c.inNamespace(ctx, v.R); !ok || err != nil {
		return false, gvr, gvk, err
	}
	if !c.Labels.Empty() && !hasLabels(c.Labels, v.R.Object) && !hasLabels(c.Labels, v.R.Old) {
		return false, gvr, gvk, nil
	}
	return true, found.resource, found.kind, nil
}

// where answers the first place that a rule names. What is excluded anywhere is not meant.
func (c *Criteria) where(v *View) (place, bool) {
	here := place{v.R.Resource, v.Kind}
	others := v.equivalents()
	if c.Exact {
		others = nil
	}
	for _, p := range append([]place{here}, others...) {
		if slices.ContainsFunc(c.Excluded, func(r Rule) bool { return r.matches(v.R, p.resource) }) {
			return place{}, false
		}
	}
	if len(c.Rules) == 0 {
		return here, true
	}
	for _, p := range append([]place{here}, others...) {
		if slices.ContainsFunc(c.Rules, func(r Rule) bool { return r.matches(v.R, p.resource) }) {
			return p, true
		}
	}
	return place{}, false
}

func (r *Rule) matches(req *admission.Request, gvr schema.GroupVersionResource) bool {
	if len(r.Names) > 0 && !slices.Contains(r.Names, req.Name) {
		return false
	}
	op := admissionregistrationv1.OperationType(req.Verb)
	return r.scope(req) && (slices.Contains(r.Operations, op) || slices.Contains(r.Operations, admissionregistrationv1.OperationAll)) &&
		either(r.APIGroups, gvr.Group) && either(r.APIVersions, gvr.Version) && slices.ContainsFunc(r.Resources, func(want string) bool {
		res, sub, _ := strings.Cut(want, "/")
		return (res == "*" || res == gvr.Resource) && (sub == req.Sub || sub == "*")
	})
}

func either(list []string, s string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, s)
}

func (r *Rule) scope(req *admission.Request) bool {
	if r.Scope == nil || *r.Scope == admissionregistrationv1.AllScopes {
		return true
	}
	within := req.Namespace != "" && req.Resource.GroupResource() != namespaces
	return within == (*r.Scope == admissionregistrationv1.NamespacedScope)
}

func hasLabels(s labels.Selector, obj runtime.Object) bool {
	o, ok := obj.(metav1.Object)
	return ok && s.Matches(labels.Set(o.GetLabels()))
}

// inNamespace compares the labels of the request's namespace. A namespace is judged by its own; what is in none is in.
func (c *Criteria) inNamespace(ctx context.Context, r *admission.Request) (bool, error) {
	if c.Namespaces.Empty() {
		return true, nil
	}
	if r.Resource.GroupResource() == namespaces && (r.Sub == "" || r.Sub == "status" || r.Sub == "finalize") {
		if ns, ok := r.Object.(*corev1.Namespace); ok {
			return c.Namespaces.Matches(labels.Set(ns.Labels)), nil
		}
		if ns, ok := r.Old.(*corev1.Namespace); ok {
			return c.Namespaces.Matches(labels.Set(ns.Labels)), nil
		}
	}
	if r.Namespace == "" {
		return true, nil
	}
	ns, err := namespaceOf(ctx, r)
	if err != nil {
		return false, err
	}
	return c.Namespaces.Matches(labels.Set(ns.Labels)), nil
}

// namespaceOf answers the request's namespace; one that the cache does not know yet is asked of etcd.
func namespaceOf(ctx context.Context, r *admission.Request) (*corev1.Namespace, error) {
	obj, err := r.Env.Get(ctx, namespaces, "", r.Namespace)
	if apierrors.IsNotFound(err) {
		obj, err = r.Env.GetFresh(ctx, namespaces, "", r.Namespace)
	}
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Namespace), nil
}

// exempt are the resources that webhooks and policies are never asked about: else nobody could take a bad one away.
var exempt = []string{
	"validatingwebhookconfigurations", "mutatingwebhookconfigurations", "validatingadmissionpolicies", "validatingadmissionpolicybindings",
	"mutatingadmissionpolicies", "mutatingadmissionpolicybindings",
}

// Exempt tells whether a request is about the configuration of admission itself.
func Exempt(r *admission.Request) bool {
	return r.Resource.Group == admissionregistrationv1.GroupName && slices.Contains(exempt, r.Resource.Resource)
}
