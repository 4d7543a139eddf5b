package kubelet

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// pageSizes are the sizes of huge pages a pod and its containers ask for, as resources name them: 2Mi.
func pageSizes(pod *v1.Pod) []string {
	var out []string
	of := func(limits v1.ResourceList) {
		for name := range limits {
			if size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok && !slices.Contains(out, size) {
				out = append(out, size)
			}
		}
	}
	if own := pod.Spec.Resources; own != nil {
		of(own.Limits)
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		of(c.Resources.Limits)
	}
	slices.Sort(out)
	return out
}

// kernelSize is a resource's size of huge pages as the kernel and CRI name it: 2MB for 2Mi.
func kernelSize(size string) string { return strings.TrimSuffix(size, "i") + "B" }

// pageSize is a size in bytes as resources name it.
func pageSize(bytes uint64) string {
	return resource.NewQuantity(int64(bytes), resource.BinarySI).String()
}
