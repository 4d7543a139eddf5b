// Package policystatus tells the authors of admission policies which of their expressions cannot hold for the kinds that
// they are for.
//
// The flow: a policy brings its key; which kinds it is for is asked of discovery, their schemas of /openapi/v3; every
// expression is compiled against them, and what CEL says against it goes into the policy's status, once a generation.
//
// Nothing outlives a check: neither schemas nor environments are kept, so that a cluster without policies pays for none.
// Keys are worked on in parallel and share nothing.
package policystatus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apply "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/restmapper"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// manager is who owns the status' fields; upstream's name.
const manager = "validatingadmissionpolicy-status"

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	policies := d.Informers.Admissionregistration().V1().ValidatingAdmissionPolicies()
	return &runtime.Controller{
		Name: "validatingadmissionpolicy-status-controller", Account: "validatingadmissionpolicy-status-controller", Queue: manager, For: "the types of admission policies' expressions",
		Watches: []runtime.Watch{{What: "validatingadmissionpolicies", Informer: policies.Informer(), Keys: runtime.Self}},
		Writes:  []string{"validatingadmissionpolicies/status"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			p, err := policies.Lister().Get(key.Name)
			if apierrors.IsNotFound(err) || err == nil && !due(p) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			s, err := gather(ctx, d.Client.Discovery(), p)
			if err != nil {
				return 0, err
			}
			plan, err := decide(s)
			if err != nil {
				return 0, err
			}
			_, err = d.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().ApplyStatus(ctx, status(p, plan), metav1.ApplyOptions{FieldManager: manager, Force: true})
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			return 0, err
		},
	}
}

// status is what is written; conditions are others'.
func status(p *admissionregistrationv1.ValidatingAdmissionPolicy, plan *Plan) *apply.ValidatingAdmissionPolicyApplyConfiguration {
	checked := apply.TypeChecking()
	for _, w := range plan.Warnings {
		checked.WithExpressionWarnings(apply.ExpressionWarning().WithFieldRef(w.FieldRef).WithWarning(w.Warning))
	}
	return apply.ValidatingAdmissionPolicy(p.Name).WithUID(p.UID).WithStatus(
		apply.ValidatingAdmissionPolicyStatus().WithObservedGeneration(plan.ObservedGeneration).WithTypeChecking(checked))
}

// gather asks for the schemas of the kinds that a policy names.
func gather(ctx context.Context, d discovery.DiscoveryInterface, p *admissionregistrationv1.ValidatingAdmissionPolicy) (Snapshot, error) {
	s := Snapshot{Policy: p}
	asked := resources(p)
	if len(asked) == 0 {
		return s, nil
	}
	groups, err := restmapper.GetAPIGroupResourcesWithContext(ctx, discovery.ToDiscoveryInterfaceWithContext(d))
	if err != nil {
		return s, fmt.Errorf("asking which kinds there are: %w", err)
	}
	documents := map[schema.GroupVersion]document{}
	fetch := func(gv schema.GroupVersion) (document, error) {
		if doc, ok := documents[gv]; ok {
			return doc, nil
		}
		doc, err := schemas(ctx, d, gv)
		documents[gv] = doc
		return doc, err
	}
	for _, kind := range kinds(restmapper.NewDiscoveryRESTMapper(groups), asked) {
		doc, err := fetch(kind.GroupVersion())
		if err != nil {
			return s, err
		}
		if doc.root(kind) != "" {
			s.Kinds = append(s.Kinds, Kind{kind, doc})
		}
	}
	if k := p.Spec.ParamKind; k != nil {
		kind := schema.FromAPIVersionAndKind(k.APIVersion, k.Kind)
		doc, err := fetch(kind.GroupVersion())
		if err != nil {
			return s, err
		}
		s.Params = &Kind{kind, doc}
	}
	return s, nil
}

// schemas asks for the schemas of a group version, nil if nobody serves them.
func schemas(ctx context.Context, d discovery.DiscoveryInterface, gv schema.GroupVersion) (document, error) {
	path := "/openapi/v3/apis/" + gv.String()
	if gv.Group == "" {
		path = "/openapi/v3/api/" + gv.Version
	}
	text, err := d.RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").Do(ctx).Raw()
	if apierrors.IsNotFound(err) || apierrors.IsServiceUnavailable(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the schemas of %s: %w", gv, err)
	}
	doc, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("reading the schemas of %s: %w", gv, err)
	}
	return doc, nil
}

// resources are those that each rule of a policy names; one with a wildcard for its groups or versions names none, and
// neither do wildcards and subresources.
func resources(p *admissionregistrationv1.ValidatingAdmissionPolicy) (out [][]schema.GroupVersionResource) {
	if p.Spec.MatchConstraints == nil {
		return nil
	}
	for _, rule := range p.Spec.MatchConstraints.ResourceRules {
		wild := func(s string) bool { return strings.Contains(s, "*") }
		if slices.ContainsFunc(rule.APIGroups, wild) || slices.ContainsFunc(rule.APIVersions, wild) {
			continue
		}
		var named []schema.GroupVersionResource
		for _, g := range slices.Sorted(slices.Values(rule.APIGroups)) {
			for _, v := range slices.Sorted(slices.Values(rule.APIVersions)) {
				for _, r := range slices.Sorted(slices.Values(rule.Resources)) {
					if !strings.ContainsAny(r, "*/") {
						named = append(named, schema.GroupVersionResource{Group: g, Version: v, Resource: r})
					}
				}
			}
		}
		if len(named) > 0 {
			out = append(out, named)
		}
	}
	return out
}

// most is how many kinds a rule may bring: the one that reaches it is the last.
const most = 10

// kinds are those of the resources that exist, in order.
func kinds(mapper meta.RESTMapper, rules [][]schema.GroupVersionResource) []schema.GroupVersionKind {
	set := map[schema.GroupVersionKind]bool{}
	collect := func() {
		for _, rule := range rules {
			n := 0
			for _, r := range rule {
				found, err := mapper.KindsFor(r)
				if err != nil {
					continue // nobody serves it
				}
				for _, k := range found {
					set[k] = true
					if n++; n == most {
						return
					}
				}
			}
		}
	}
	collect()
	var out []schema.GroupVersionKind
	for k := range set {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b schema.GroupVersionKind) int {
		return strings.Compare(a.Group+"\x00"+a.Version+"\x00"+a.Kind, b.Group+"\x00"+b.Version+"\x00"+b.Kind)
	})
	return out
}
