package lifecycle

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

// TestFixed: containers write to what is theirs, never to the files that the kubelet makes of objects.
func TestFixed(t *testing.T) {
	yes := true
	claim := func(readOnly bool) v1.VolumeSource {
		return v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c", ReadOnly: readOnly}}
	}
	for name, c := range map[string]struct {
		source v1.VolumeSource
		want   bool
	}{
		"config map":      {v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{}}, true},
		"secret":          {v1.VolumeSource{Secret: &v1.SecretVolumeSource{}}, true},
		"downward":        {v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{}}, true},
		"projected":       {v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{}}, true},
		"empty directory": {v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}, false},
		"host path":       {v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/"}}, false},
		"claim":           {claim(false), false},
		"read-only claim": {claim(true), true},
		"driver":          {v1.VolumeSource{CSI: &v1.CSIVolumeSource{}}, false},
		"read-only CSI":   {v1.VolumeSource{CSI: &v1.CSIVolumeSource{ReadOnly: &yes}}, true},
	} {
		pod := &v1.Pod{Spec: v1.PodSpec{Volumes: []v1.Volume{{Name: "other"}, {Name: "v", VolumeSource: c.source}}}}
		if got := fixed(pod, "v"); got != c.want {
			t.Errorf("%s: fixed is %v, want %v", name, got, c.want)
		}
	}
}
