package ttlafterfinished

import (
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		for _, j := range golden.Objects[batchv1.Job](t, files["jobs.yaml"]) {
			switch left, over := decide(j, now); {
			case !over:
				fmt.Fprintf(&b, "%s stays\n", j.Name)
			case left > 0:
				fmt.Fprintf(&b, "%s goes in %s\n", j.Name, left)
			default:
				fmt.Fprintf(&b, "%s goes\n", j.Name)
			}
		}
		return b.String()
	})
}
