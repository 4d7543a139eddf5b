package attributesclass

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		claims, volumes := golden.Objects[corev1.PersistentVolumeClaim](t, files["claims.yaml"]), golden.Objects[corev1.PersistentVolume](t, files["volumes.yaml"])
		for _, c := range golden.Objects[storagev1.VolumeAttributesClass](t, files["classes.yaml"]) {
			used := slices.ContainsFunc(claims, func(x *corev1.PersistentVolumeClaim) bool { return slices.Contains(byClaim(x), c.Name) }) ||
				slices.ContainsFunc(volumes, func(x *corev1.PersistentVolume) bool { return slices.Contains(byVolume(x), c.Name) })
			if next := decide(c, used); next == nil {
				fmt.Fprintf(&b, "%s stays\n", c.Name)
			} else {
				fmt.Fprintf(&b, "%s gets %v\n", c.Name, next)
			}
		}
		return b.String()
	})
}
