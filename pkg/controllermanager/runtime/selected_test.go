package runtime

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"pgregory.net/rapid"
)

// TestSelected: services and pods find each other by their index as they would if each looked at all others.
func TestSelected(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		d := Deps{Informers: informers.NewSharedInformerFactory(nil, 0)}
		podsOf, servicesOf := PodsSelected(d), ServicesSelecting(d)
		pods, services := d.Informers.Core().V1().Pods().Informer().GetIndexer(), d.Informers.Core().V1().Services().Informer().GetIndexer()
		set := func(what string) map[string]string {
			return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.SampledFrom([]string{"", "x", "xx", "y"}), 0, 3).Draw(r, what)
		}
		namespace := func() string { return rapid.SampledFrom([]string{"n", "m"}).Draw(r, "namespace") }
		var allPods []*corev1.Pod
		var allServices []*corev1.Service
		for i := range rapid.IntRange(0, 8).Draw(r, "pods") {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), Namespace: namespace(), Labels: set("labels")}}
			allPods = append(allPods, p)
			if err := pods.Add(p); err != nil {
				r.Fatal(err)
			}
		}
		for i := range rapid.IntRange(0, 8).Draw(r, "services") {
			s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), Namespace: namespace()}, Spec: corev1.ServiceSpec{Selector: set("selector")}}
			allServices = append(allServices, s)
			if err := services.Add(s); err != nil {
				r.Fatal(err)
			}
		}
		for _, s := range allServices {
			found := podsOf(s.Namespace, s.Spec.Selector)
			for _, p := range allPods {
				want := p.Namespace == s.Namespace && len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.Labels))
				if slices.Contains(found, p) != want {
					r.Fatalf("service %v finds pod %v: %v", s.Spec.Selector, p.Labels, !want)
				}
				if slices.Contains(servicesOf(p.Namespace, p.Labels), s) != want {
					r.Fatalf("pod %v finds service %v: %v", p.Labels, s.Spec.Selector, !want)
				}
			}
		}
	})
}

// TestMatching: pods and those who select them by whole selectors find each other as if each looked at all others.
func TestMatching(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		d := Deps{Informers: informers.NewSharedInformerFactory(nil, 0)}
		budgets := d.Informers.Policy().V1().PodDisruptionBudgets().Informer()
		podsOf := PodsMatching(d)
		budgetsOf := Selecting(budgets, func(b *policyv1.PodDisruptionBudget) (string, *metav1.LabelSelector) {
			return b.Namespace, b.Spec.Selector
		})
		keys, values := rapid.SampledFrom([]string{"a", "b", "c"}), rapid.SampledFrom([]string{"", "x", "y"})
		namespace := func() string { return rapid.SampledFrom([]string{"n", "m"}).Draw(r, "namespace") }
		selector := func() *metav1.LabelSelector {
			if rapid.IntRange(0, 9).Draw(r, "none") == 0 {
				return nil
			}
			s := &metav1.LabelSelector{MatchLabels: rapid.MapOfN(keys, values, 0, 2).Draw(r, "match")}
			for range rapid.IntRange(0, 2).Draw(r, "expressions") {
				e := metav1.LabelSelectorRequirement{Key: keys.Draw(r, "key"), Operator: rapid.SampledFrom([]metav1.LabelSelectorOperator{"In", "NotIn", "Exists", "DoesNotExist"}).Draw(r, "operator")}
				if e.Operator == "In" || e.Operator == "NotIn" {
					e.Values = rapid.SliceOfN(values, 1, 3).Draw(r, "values")
				}
				s.MatchExpressions = append(s.MatchExpressions, e)
			}
			return s
		}
		var allPods []*corev1.Pod
		for i := range rapid.IntRange(0, 6).Draw(r, "pods") {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), Namespace: namespace(), Labels: rapid.MapOfN(keys, values, 0, 3).Draw(r, "labels")}}
			allPods = append(allPods, p)
			if err := d.Informers.Core().V1().Pods().Informer().GetIndexer().Add(p); err != nil {
				r.Fatal(err)
			}
		}
		for i := range rapid.IntRange(0, 6).Draw(r, "budgets") {
			b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), Namespace: namespace()}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: selector()}}
			if err := budgets.GetIndexer().Add(b); err != nil {
				r.Fatal(err)
			}
			sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
			if err != nil {
				r.Fatal(err)
			}
			found, err := podsOf(b.Namespace, b.Spec.Selector)
			if err != nil {
				r.Fatal(err)
			}
			count := 0
			for _, p := range allPods {
				want := p.Namespace == b.Namespace && sel.Matches(labels.Set(p.Labels))
				if want {
					count++
				}
				if slices.Contains(found, p) != want {
					r.Fatalf("%v finds pod %v: %v", b.Spec.Selector, p.Labels, !want)
				}
				if slices.Contains(budgetsOf(p.Namespace, p.Labels), b) != want {
					r.Fatalf("pod %v finds %v: %v", p.Labels, b.Spec.Selector, !want)
				}
			}
			if len(found) != count {
				r.Fatalf("%v finds %d pods of %d", b.Spec.Selector, len(found), count)
			}
		}
	})
}
