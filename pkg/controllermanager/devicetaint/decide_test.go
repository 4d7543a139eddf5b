package devicetaint

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		s := Snapshot{Claims: golden.Objects[resourcev1.ResourceClaim](t, files["claims.yaml"]), Slices: golden.Objects[resourcev1.ResourceSlice](t, files["slices.yaml"]),
			Rules: golden.Objects[resourcev1.DeviceTaintRule](t, files["rules.yaml"])}
		if told := files["told.yaml"]; told != "" {
			return tell(t, files, s, golden.Objects[resourcev1.DeviceTaintRule](t, told))
		}
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

// tell shows what rules say at a time, in the order of the file.
func tell(t *testing.T, files map[string]string, s Snapshot, rules []*resourcev1.DeviceTaintRule) string {
	var b strings.Builder
	now, err := time.Parse(time.RFC3339, strings.TrimSpace(files["now"]))
	if err != nil {
		t.Fatal(err)
	}
	pods := map[types.UID]*corev1.Pod{}
	for _, p := range golden.Objects[corev1.Pod](t, files["pods.yaml"]) {
		pods[p.UID] = p
	}
	for _, x := range rules {
		evicted := 0
		if n := x.Annotations["evicted"]; n != "" {
			if _, err := fmt.Sscan(n, &evicted); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintf(&b, "%s:\n%s", x.Name, decideRule(RuleSnapshot{Rule: x, Slices: s.Slices, Claims: s.Claims, Pods: pods, Evicted: evicted, Now: now}))
	}
	s.Rules = rules
	for _, p := range golden.Objects[corev1.Pod](t, files["pods.yaml"]) {
		s.Pod = p
		fmt.Fprintf(&b, "%s leaves for %v\n", p.Name, blamed(s, now))
	}
	return b.String()
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
