package kubelet

import (
	"context"
	"errors"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (m *managers) claim(ctx context.Context, namespace, name string) (*resourcev1.ResourceClaim, error) {
	if m.k.client == nil {
		return nil, errors.New("there is no API server to ask for claims")
	}
	return m.k.client.ResourceClaims.Get(ctx, namespace, name)
}

// wipe removes the node's ResourceSlices of drivers which are not here: what they offered nobody can prepare.
func (m *managers) wipe(ctx context.Context, present map[string]bool) error {
	if m.k.client == nil {
		return nil
	}
	offered, err := m.k.client.ResourceSlices.List(ctx, "", "spec.nodeName="+m.k.cfg.NodeName)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range offered {
		if !present[s.Driver] {
			m.k.log.Info("removing a ResourceSlice of a driver which is away", "slice", s.Name, "driver", s.Driver)
			errs = append(errs, m.k.client.ResourceSlices.Delete(ctx, "", s.Name, metav1.DeleteOptions{}))
		}
	}
	return errors.Join(errs...)
}
