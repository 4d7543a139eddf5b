package disruption

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// owner is how an archive writes an owner.
type owner struct {
	Name    string `json:"name"`
	Scale   int32  `json:"scale"`
	Unknown string `json:"unknown"`
}

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		s := Snapshot{
			Budget: golden.Object[policyv1.PodDisruptionBudget](t, files["budget.yaml"]), Pods: golden.Objects[corev1.Pod](t, files["pods.yaml"]),
			Owners: map[types.UID]Owner{}, Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		}
		for _, o := range golden.Objects[owner](t, files["owners.yaml"]) {
			for _, p := range s.Pods {
				if ref := metav1.GetControllerOf(p); ref != nil && ref.Name == o.Name {
					s.Owners[p.UID] = Owner{UID: ref.UID, Scale: o.Scale, Unknown: o.Unknown}
				}
			}
		}
		p := decide(s)
		if p.Status != nil { // what was written is not written again
			s.Budget.Status = *p.Status
			if again := decide(s); again.Status != nil {
				t.Errorf("it wants to write the same status again: %s", again)
			}
		}
		return p.String()
	})
}
