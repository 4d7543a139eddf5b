package api

import (
	"context"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Slice is a ResourceSlice's name and driver.
type Slice struct{ Name, Driver string }

// slices are the ResourceSlices. Their devices may be thousands and are of no interest to the node.
type slices struct {
	Resource[resourcev1.ResourceSlice, *resourcev1.ResourceSlice]
}

// List answers those which a field selector selects.
func (s slices) List(ctx context.Context, ns, fields string) ([]Slice, error) {
	list := &resourcev1.ResourceSliceList{}
	err := s.rest.Get().NamespaceIfScoped(ns, ns != "").Resource(s.name).VersionedParams(&metav1.ListOptions{FieldSelector: fields}, s.params).Do(ctx).Into(list)
	var out []Slice
	for _, i := range list.Items {
		out = append(out, Slice{i.Name, i.Spec.Driver})
	}
	return out, err
}
