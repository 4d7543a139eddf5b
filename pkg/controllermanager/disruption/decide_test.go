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

// Who says that it is taken away is believed for two minutes.
func TestStale(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := metav1.NewTime(now)
	for _, c := range []struct {
		what   string
		change func(p *corev1.Pod, c *corev1.PodCondition)
		says   bool
		left   time.Duration
	}{
		{"a minute ago", func(*corev1.Pod, *corev1.PodCondition) {}, true, time.Minute},
		{"long ago", func(_ *corev1.Pod, c *corev1.PodCondition) {
			c.LastTransitionTime = metav1.NewTime(now.Add(-2 * time.Minute))
		}, true, 0},
		{"it goes", func(p *corev1.Pod, _ *corev1.PodCondition) { p.DeletionTimestamp = &at }, false, 0},
		{"it has ended", func(p *corev1.Pod, _ *corev1.PodCondition) { p.Status.Phase = corev1.PodFailed }, false, 0},
		{"its kubelet says so", func(_ *corev1.Pod, c *corev1.PodCondition) { c.Reason = corev1.PodReasonTerminationByKubelet }, false, 0},
		{"it says so no more", func(_ *corev1.Pod, c *corev1.PodCondition) { c.Status = corev1.ConditionFalse }, false, 0},
		{"it says something else", func(_ *corev1.Pod, c *corev1.PodCondition) { c.Type = corev1.PodReady }, false, 0},
	} {
		p := &corev1.Pod{}
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", LastTransitionTime: metav1.NewTime(now.Add(-time.Minute)),
		}}
		c.change(p, &p.Status.Conditions[0])
		if says, left := stale(p, now); says != c.says || left != c.left {
			t.Errorf("%s: %v, %v left; want %v, %v", c.what, says, left, c.says, c.left)
		}
	}
}
