package plugins

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

var quotas = schema.GroupResource{Resource: "resourcequotas"}

// quotaLocks is how many namespaces at most are charged side by side.
const quotaLocks = 64

// ResourceQuota charges a namespace's quotas for what is made in it, and refuses what does not fit. It goes last: what
// is charged has passed everything else. A charge for a write that fails all the same stays until the quota
// controller counts anew.
//
// Writes of one namespace are charged one at a time: they would only conflict on the same quotas.
func ResourceQuota(c Configuration) (admission.Plugin, error) {
	limited, err := readLimited(c)
	if err != nil {
		return admission.Plugin{}, err
	}
	seed := maphash.MakeSeed()
	var locks [quotaLocks]sync.Mutex
	return admission.Plugin{Name: "ResourceQuota", Validate: func(ctx context.Context, r *admission.Request) error {
		m := meterOf(r)
		if m == nil {
			return nil
		}
		objs, err := r.Env.List(ctx, quotas, r.Namespace)
		if err != nil {
			return err
		}
		need, err := limited.need(m, r)
		if err != nil || len(objs) == 0 && need == nil {
			return err
		}
		delta, err := m.delta(r)
		if err != nil {
			return err
		}
		var due []string
		for _, o := range objs {
			q := o.(*corev1.ResourceQuota)
			applies, err := m.applies(q, r.Object)
			if err != nil {
				return err
			}
			if !applies {
				continue
			}
			need.covered(m, q)
			if err := m.missing(q, r.Object); err != nil {
				return fmt.Errorf("failed quota: %s: %w", q.Name, err)
			}
			if limits(q, delta) {
				due = append(due, q.Name)
			}
		}
		if err := need.uncovered(); err != nil || len(due) == 0 {
			return err
		}
		l := &locks[maphash.String(seed, r.Namespace)%quotaLocks]
		l.Lock()
		defer l.Unlock()
		return chargeAll(ctx, r, m, due, delta)
	}}, nil
}

// limits tells whether a quota limits anything of delta.
func limits(q *corev1.ResourceQuota, delta corev1.ResourceList) bool {
	for name := range delta {
		if _, limited := q.Status.Hard[name]; limited {
			return true
		}
	}
	return false
}

// chargeAll charges each quota, or none: those charged before one refuses get theirs back.
func chargeAll(ctx context.Context, r *admission.Request, m *meter, names []string, delta corev1.ResourceList) error {
	for i, name := range names {
		err := change(ctx, r, name, func(q *corev1.ResourceQuota) error { return charge(m, q, delta) })
		if err == nil {
			continue
		}
		for _, paid := range names[:i] {
			back := func(q *corev1.ResourceQuota) error {
				add(q, delta, -1)
				return nil
			}
			if err2 := change(ctx, r, paid, back); err2 != nil {
				return errors.Join(err, err2)
			}
		}
		return err
	}
	return nil
}

// errDry ends a change that is not to be stored.
var errDry = errors.New("dry run")

// change changes a quota as fn says; a dry run only asks fn, a quota that is gone binds nobody.
func change(ctx context.Context, r *admission.Request, name string, fn func(q *corev1.ResourceQuota) error) error {
	_, err := r.Env.Mutate(ctx, quotas, r.Namespace, name, func(obj kind.Object) error {
		if err := fn(obj.(*corev1.ResourceQuota)); err != nil || !r.DryRun {
			return err
		}
		return errDry
	})
	if errors.Is(err, errDry) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// charge adds what is asked to what a quota has counted, or tells what would be too much. Only growth is refused.
func charge(m *meter, q *corev1.ResourceQuota, delta corev1.ResourceList) error {
	var unknown []string
	for _, name := range sortedNames(q.Status.Hard) {
		if _, counted := q.Status.Used[name]; !counted && m.covers(name) {
			unknown = append(unknown, string(name))
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("status unknown for quota: %s, resources: %s", q.Name, strings.Join(unknown, ","))
	}
	var asked, used, most []string
	for _, name := range sortedNames(delta) {
		hard, limited := q.Status.Hard[name]
		more := delta[name]
		if !limited || more.Sign() <= 0 {
			continue
		}
		now := q.Status.Used[name]
		sum := now.DeepCopy()
		sum.Add(more)
		if sum.Cmp(hard) > 0 {
			asked = append(asked, fmt.Sprintf("%s=%s", name, more.String()))
			used = append(used, fmt.Sprintf("%s=%s", name, now.String()))
			most = append(most, fmt.Sprintf("%s=%s", name, hard.String()))
		}
	}
	if len(asked) > 0 {
		return fmt.Errorf("exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name, strings.Join(asked, ","), strings.Join(used, ","), strings.Join(most, ","))
	}
	add(q, delta, 1)
	return nil
}

// add adds the limited part of delta to what a quota has counted, or, with sign -1, takes it off.
func add(q *corev1.ResourceQuota, delta corev1.ResourceList, sign int) {
	if q.Status.Used == nil {
		q.Status.Used = corev1.ResourceList{}
	}
	for name, n := range delta {
		if _, limited := q.Status.Hard[name]; !limited {
			continue
		}
		sum := q.Status.Used[name].DeepCopy()
		if sign < 0 {
			sum.Sub(n)
		} else {
			sum.Add(n)
		}
		q.Status.Used[name] = sum
	}
}

// delta answers what the request uses more, or less, of; nothing stands in it that does not change.
func (m *meter) delta(r *admission.Request) (corev1.ResourceList, error) {
	delta := m.usage(r.Object)
	var negative []string
	for _, name := range sortedNames(delta) {
		if n := delta[name]; n.Sign() < 0 {
			negative = append(negative, string(name))
		}
	}
	if len(negative) > 0 {
		return nil, fmt.Errorf("quota usage is negative for resource(s): %s", strings.Join(negative, ","))
	}
	if r.Verb == admission.Update {
		for name, n := range m.usage(r.Old) {
			d := delta[name]
			d.Sub(n)
			delta[name] = d
		}
	}
	for name, n := range delta {
		if n.IsZero() {
			delete(delta, name)
		}
	}
	return delta, nil
}

// applies tells whether a quota counts an object: it limits something the object uses, and all its scopes match.
func (m *meter) applies(q *corev1.ResourceQuota, obj runtime.Object) (bool, error) {
	if !slices.ContainsFunc(sortedNames(q.Status.Hard), m.covers) {
		return false, nil
	}
	for _, s := range scopesOf(q) {
		if in, err := inScope(obj, s); !in || err != nil {
			return false, err
		}
	}
	return true, nil
}

// scopesOf are all scopes of a quota, however they are written.
func scopesOf(q *corev1.ResourceQuota) (scopes []corev1.ScopedResourceSelectorRequirement) {
	for _, s := range q.Spec.Scopes {
		scopes = append(scopes, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		scopes = append(scopes, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return scopes
}
