package kubelet

import "testing"

func TestForeignPods(t *testing.T) {
	for spec, want := range map[string]string{
		"{os: {name: windows}, containers: [{name: c}]}":                        "PodOSNotSupported",
		"{nodeSelector: {kubernetes.io/os: windows}, containers: [{name: c}]}":  "PodOSSelectorNodeLabelDoesNotMatch",
		"{os: {name: linux}, nodeSelector: {kubernetes.io/os: linux}}":          "",
		"{nodeSelector: {tier: test}, containers: [{name: c, image: \"x:1\"}]}": "",
	} {
		got := ""
		if f := foreign(podOf(t, "p", spec)); f != nil {
			got = f.Reason
		}
		if got != want {
			t.Errorf("%s: %q", spec, got)
		}
	}
}
