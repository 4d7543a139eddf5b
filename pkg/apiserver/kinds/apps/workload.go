package apps

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// containers answers the names and images of a template's containers as a table shows them.
func containers(t corev1.PodTemplateSpec) (names, images string) {
	n, i := make([]string, len(t.Spec.Containers)), make([]string, len(t.Spec.Containers))
	for k, c := range t.Spec.Containers {
		n[k], i[k] = c.Name, c.Image
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

func number(n *int32) int32 {
	if n == nil {
		return 0
	}
	return *n
}

// scale is the scale subresource of a workload with spec.replicas; at finds its parts.
func scale(at func(kind.Object) (spec **int32, status int32, selector *metav1.LabelSelector)) kind.Sub {
	return kind.Sub{Name: "scale", Scale: &kind.Scale{
		Read: func(obj kind.Object) (int32, int32, string) {
			spec, status, selector := at(obj)
			s, err := metav1.LabelSelectorAsSelector(selector)
			if err != nil {
				return number(*spec), status, ""
			}
			return number(*spec), status, s.String()
		},
		Write: func(obj kind.Object, n int32) {
			spec, _, _ := at(obj)
			*spec = &n
		},
	}}
}
