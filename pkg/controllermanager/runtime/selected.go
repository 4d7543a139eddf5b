package runtime

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
)

// Services and their pods find each other by one pair of the selector: the one with the longest value, since that is
// likelier to be one service's own than "tier: web". What the pair finds is then held to the whole selector, so that the
// choice costs time at most.

// telling answers the pair of a selector by which services are indexed and pods are looked up, "" if it has none.
func telling(namespace string, selector map[string]string) string {
	var key, value string
	for k, v := range selector {
		if key == "" || len(v) > len(value) || len(v) == len(value) && k < key {
			key, value = k, v
		}
	}
	if key == "" {
		return ""
	}
	return pair(namespace, key, value)
}

func pair(namespace, key, value string) string { return namespace + "/" + key + "=" + value }

// podsByPair finds the pods that have a pair.
func podsByPair(d Deps) func(pair string) []*corev1.Pod {
	return By(d.Informers.Core().V1().Pods().Informer(), "labels", func(p *corev1.Pod) []string {
		out := make([]string, 0, len(p.Labels))
		for k, v := range p.Labels {
			out = append(out, pair(p.Namespace, k, v))
		}
		return out
	})
}

// PodsSelected finds the pods that a service's selector is for. The cost is that of the pods it finds, not of those there are.
func PodsSelected(d Deps) func(namespace string, selector map[string]string) []*corev1.Pod {
	find := podsByPair(d)
	return func(namespace string, selector map[string]string) []*corev1.Pod {
		if len(selector) == 0 {
			return nil
		}
		sel := labels.SelectorFromSet(selector)
		return slices.DeleteFunc(find(telling(namespace, selector)), func(p *corev1.Pod) bool { return !sel.Matches(labels.Set(p.Labels)) })
	}
}

// ServicesSelecting finds the services whose selector is for a pod with some labels. Those without a selector are for none.
func ServicesSelecting(d Deps) func(namespace string, of map[string]string) []*corev1.Service {
	find := By(d.Informers.Core().V1().Services().Informer(), "selector", func(s *corev1.Service) []string {
		if t := telling(s.Namespace, s.Spec.Selector); t != "" {
			return []string{t}
		}
		return nil
	})
	return func(namespace string, of map[string]string) (out []*corev1.Service) {
		for k, v := range of {
			for _, s := range find(pair(namespace, k, v)) {
				if labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(of)) {
					out = append(out, s)
				}
			}
		}
		return out
	}
}

// needed answers pairs of which whatever a selector is for has one; ok is false if it cannot be told so.
func needed(namespace string, s *metav1.LabelSelector) (pairs []string, ok bool) {
	if s == nil {
		return nil, true // it is for nothing
	}
	if t := telling(namespace, s.MatchLabels); t != "" {
		return []string{t}, true
	}
	for _, e := range s.MatchExpressions {
		if e.Operator != metav1.LabelSelectorOpIn {
			continue
		}
		for _, v := range e.Values {
			if p := pair(namespace, e.Key, v); !slices.Contains(pairs, p) {
				pairs = append(pairs, p)
			}
		}
		return pairs, true
	}
	return nil, false
}

// PodsMatching finds the pods that a selector is for. It costs what a pair of the selector finds; the whole namespace is looked at only
// for one that names no value.
func PodsMatching(d Deps) func(namespace string, s *metav1.LabelSelector) ([]*corev1.Pod, error) {
	find, pods := podsByPair(d), d.Informers.Core().V1().Pods().Lister()
	return func(namespace string, s *metav1.LabelSelector) (out []*corev1.Pod, err error) {
		sel, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			return nil, fmt.Errorf("reading a selector: %w", err)
		}
		pairs, ok := needed(namespace, s)
		if !ok {
			return pods.Pods(namespace).List(sel)
		}
		for _, p := range pairs {
			for _, pod := range find(p) {
				if sel.Matches(labels.Set(pod.Labels)) {
					out = append(out, pod)
				}
			}
		}
		return out, nil
	}
}

// Selecting finds the objects of a kind whose selector is for a pod with some labels; of answers an object's. One whose selector cannot
// be read is for none.
func Selecting[T any](informer cache.SharedIndexInformer, of func(*T) (namespace string, s *metav1.LabelSelector)) func(namespace string, set map[string]string) []*T {
	anything := func(namespace string) string { return namespace + "/" } // no pair is this: keys of labels are not empty
	find := By(informer, "selector", func(t *T) []string {
		namespace, s := of(t)
		pairs, ok := needed(namespace, s)
		if !ok {
			return []string{anything(namespace)}
		}
		return pairs
	})
	return func(namespace string, set map[string]string) (out []*T) {
		try := func(key string) {
			for _, t := range find(key) {
				_, s := of(t)
				if sel, err := metav1.LabelSelectorAsSelector(s); err == nil && sel.Matches(labels.Set(set)) {
					out = append(out, t)
				}
			}
		}
		try(anything(namespace))
		for k, v := range set {
			try(pair(namespace, k, v))
		}
		return out
	}
}
