package volumebinder

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide shows what becomes of a claim, and of each volume when the claim is the only one there is.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		s := Snapshot{
			Claim:   golden.Object[corev1.PersistentVolumeClaim](t, files["claim.yaml"]),
			Volumes: golden.Objects[corev1.PersistentVolume](t, files["volumes.yaml"]), Classes: golden.Objects[storagev1.StorageClass](t, files["classes.yaml"]),
		}
		text := decideClaim(s).String()
		for _, v := range s.Volumes {
			var claim *corev1.PersistentVolumeClaim
			if r := v.Spec.ClaimRef; r != nil && r.Name == s.Claim.Name {
				claim = s.Claim
			}
			if p := decideVolume(v, claim).String(); p != "" {
				text += "looking at " + v.Name + ": " + p
			}
		}
		return text
	})
}
