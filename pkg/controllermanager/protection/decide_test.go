package protection

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		show := func(name string, list []string) {
			if list == nil {
				fmt.Fprintf(&b, "%s stays\n", name)
			} else {
				fmt.Fprintf(&b, "%s gets %v\n", name, list)
			}
		}
		pods := golden.Objects[corev1.Pod](t, files["pods.yaml"])
		for _, c := range golden.Objects[corev1.PersistentVolumeClaim](t, files["claims.yaml"]) {
			show("claim "+c.Name, decideClaim(c, pods))
		}
		for _, v := range golden.Objects[corev1.PersistentVolume](t, files["volumes.yaml"]) {
			show("volume "+v.Name, decideVolume(v))
		}
		return b.String()
	})
}
