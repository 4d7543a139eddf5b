package realtest

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestPodsOutgrowTheirDisk(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	all := []struct{ name, spec, want string }{
		{"volume", `{volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}], containers: [{name: c, command: [sh, -c, "dd if=/dev/zero of=/v/x bs=1M count=3; sleep 600"], volumeMounts: [{name: v, mountPath: /v}]}]}`,
			`Usage of EmptyDir volume "v" exceeds the limit "1Mi". `},
		{"layer", `{containers: [{name: c, command: [sh, -c, "dd if=/dev/zero of=/x bs=1M count=5; sleep 600"], resources: {limits: {ephemeral-storage: 2Mi}}}]}`,
			`Container c exceeded its local ephemeral storage limit "2Mi". `},
	}
	for _, c := range all {
		s.create(c.name, c.spec)
	}
	for _, c := range all {
		p := s.ended(c.name, v1.PodFailed)
		if p.Status.Reason != "Evicted" || p.Status.Message != c.want {
			t.Errorf("%s: %s %q", c.name, p.Status.Reason, p.Status.Message)
		}
		if condition(p, v1.DisruptionTarget) != v1.ConditionTrue {
			t.Errorf("%s: %v", c.name, p.Status.Conditions)
		}
		s.event(c.name, "Evicted: "+strings.TrimSpace(c.want))
	}
}
