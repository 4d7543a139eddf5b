package runtime

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
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

// PodsSelected finds the pods that a service's selector is for. The cost is that of the pods it finds, not of those there are.
func PodsSelected(d Deps) func(namespace string, selector map[string]string) []*corev1.Pod {
	find := By(d.Informers.Core().V1().Pods().Informer(), "labels", func(p *corev1.Pod) []string {
		out := make([]string, 0, len(p.Labels))
		for k, v := range p.Labels {
			out = append(out, pair(p.Namespace, k, v))
		}
		return out
	})
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
