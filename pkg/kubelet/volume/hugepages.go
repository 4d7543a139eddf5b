package volume

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"golang.org/x/sys/unix"
)

// hugeMedium tells whether an emptyDir is to be of huge pages.
func hugeMedium(m v1.StorageMedium) bool {
	return strings.HasPrefix(string(m), string(v1.StorageMediumHugePages))
}

// hugePages mounts huge pages at dir: of the size the medium names, or else of the only one the pod asks for.
func hugePages(pod *v1.Pod, v *v1.Volume, dir string) error {
	size, err := hugePageSize(pod, v.EmptyDir.Medium)
	if err != nil {
		return err
	}
	opts := fmt.Sprintf("pagesize=%d,mode=0777", size.Value())
	if q := v.EmptyDir.SizeLimit; q != nil && q.Value() > 0 {
		opts += fmt.Sprintf(",size=%d", q.Value())
	}
	if err := unix.Mount("nodev", dir, "hugetlbfs", 0, opts); err != nil {
		return fmt.Errorf("mounting huge pages of %s: %w", size.String(), err)
	}
	return nil
}

func hugePageSize(pod *v1.Pod, m v1.StorageMedium) (resource.Quantity, error) {
	if name, ok := strings.CutPrefix(string(m), string(v1.StorageMediumHugePagesPrefix)); ok {
		return resource.ParseQuantity(name)
	}
	found := map[string]bool{}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			for name := range c.Resources.Requests {
				if size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok {
					found[size] = true
				}
			}
		}
	}
	if len(found) != 1 {
		return resource.Quantity{}, fmt.Errorf("medium %s wants a pod which asks for huge pages of one size, this one asks for %d", m, len(found))
	}
	for size := range found {
		return resource.ParseQuantity(size)
	}
	return resource.Quantity{}, nil
}
