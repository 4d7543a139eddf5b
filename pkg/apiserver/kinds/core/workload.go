package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Containers answers the names and images of containers as a table shows them.
func Containers(cs []corev1.Container) (names, images string) {
	n, i := make([]string, len(cs)), make([]string, len(cs))
	for k, c := range cs {
		n[k], i[k] = c.Name, c.Image
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}
