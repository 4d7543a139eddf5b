package clusterrole

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		roles := golden.Objects[rbacv1.ClusterRole](t, files["roles.yaml"])
		p, err := decide(roles[0], roles)
		if err != nil {
			return err.Error() + "\n"
		}
		if p.Changed {
			roles[0].Rules = p.Rules
			if again, err := decide(roles[0], roles); err != nil || again.Changed {
				t.Errorf("once is not enough: %v %v", again, err)
			}
		}
		return p.String()
	})
}
