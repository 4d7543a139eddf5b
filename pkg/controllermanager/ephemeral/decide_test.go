package ephemeral

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		have := map[string]*corev1.PersistentVolumeClaim{}
		for _, c := range golden.Objects[corev1.PersistentVolumeClaim](t, files["claims.yaml"]) {
			have[c.Name] = c
		}
		return decide(golden.Object[corev1.Pod](t, files["pod.yaml"]), have).String()
	})
}

// TestOnce makes what is decided and decides again: nothing is made twice.
func TestOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &corev1.Pod{}
		p.Namespace, p.Name, p.UID = "ns", "p", "u"
		for i := range rapid.IntRange(0, 5).Draw(t, "volumes") {
			v := corev1.Volume{Name: string(rune('a' + i))}
			if rapid.Bool().Draw(t, "ephemeral") {
				v.Ephemeral = &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{}}
			}
			p.Spec.Volumes = append(p.Spec.Volumes, v)
		}
		have := map[string]*corev1.PersistentVolumeClaim{}
		for _, c := range decide(p, have).Create {
			have[c.Name] = c
		}
		if again := decide(p, have).String(); again != "" {
			t.Fatal(again)
		}
	})
}
