package devicetaint

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		s := Snapshot{Claims: golden.Objects[resourcev1.ResourceClaim](t, files["claims.yaml"]), Slices: golden.Objects[resourcev1.ResourceSlice](t, files["slices.yaml"]),
			Rules: golden.Objects[resourcev1.DeviceTaintRule](t, files["rules.yaml"])}
		for _, s.Pod = range golden.Objects[corev1.Pod](t, files["pods.yaml"]) {
			if at, leaves := decide(s); leaves {
				fmt.Fprintf(&b, "%s leaves at %s\n", s.Pod.Name, at.UTC().Format(time.TimeOnly))
			} else {
				fmt.Fprintf(&b, "%s stays\n", s.Pod.Name)
			}
		}
		return b.String()
	})
}

// TestTolerates wants more tolerations for ever never to drive anybody out, and no toleration to keep nobody.
func TestTolerates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		taint := resourcev1.DeviceTaint{Key: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key"), Value: rapid.SampledFrom([]string{"", "x"}).Draw(t, "value"), Effect: resourcev1.DeviceTaintEffectNoExecute}
		if _, leaves := until(taint, nil); !leaves {
			t.Fatal("nothing is tolerated")
		}
		list := []resourcev1.DeviceToleration{{Operator: resourcev1.DeviceTolerationOpExists}}
		for range rapid.IntRange(0, 3).Draw(t, "more") {
			list = append(list, resourcev1.DeviceToleration{Key: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "tolerated"), Operator: resourcev1.DeviceTolerationOpExists})
		}
		if _, leaves := until(taint, list); leaves {
			t.Fatal("everything is tolerated")
		}
	})
}
