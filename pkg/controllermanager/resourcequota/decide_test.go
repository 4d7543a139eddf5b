package resourcequota

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		s := Snapshot{
			Quota: golden.Object[corev1.ResourceQuota](t, files["quota.yaml"]), Pods: golden.Objects[corev1.Pod](t, files["pods.yaml"]),
			Services: golden.Objects[corev1.Service](t, files["services.yaml"]), Claims: golden.Objects[corev1.PersistentVolumeClaim](t, files["claims.yaml"]),
			Counts: map[string]int64{}, Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		}
		for line := range strings.Lines(files["counts"]) {
			name, n := "", int64(0)
			if _, err := fmt.Sscan(line, &name, &n); err != nil {
				t.Fatal(err)
			}
			s.Counts[name] = n
		}
		p := decide(s)
		if p.Status != nil {
			s.Quota.Status = *p.Status
			if again := decide(s).String(); again != "" {
				t.Errorf("once is not enough: %s", again)
			}
		}
		return p.String()
	})
}
