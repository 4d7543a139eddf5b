package runtime

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// Preferred answers the version under which the apiserver likes best to serve a resource's group; false if it has no such group.
func Preferred(d discovery.ServerGroupsInterface, r schema.GroupResource) (schema.GroupVersionResource, bool, error) {
	if r.Group == "" {
		return r.WithVersion("v1"), true, nil
	}
	groups, err := d.ServerGroups()
	if err != nil {
		return schema.GroupVersionResource{}, false, fmt.Errorf("asking for the API groups: %w", err)
	}
	for _, g := range groups.Groups {
		if g.Name == r.Group {
			return r.WithVersion(g.PreferredVersion.Version), true, nil
		}
	}
	return schema.GroupVersionResource{}, false, nil
}
