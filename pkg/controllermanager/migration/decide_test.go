package migration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide takes each migration of an archive as far as it gets without writing, and once more after that.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		for _, m := range golden.Objects[storagemigrationv1.StorageVersionMigration](t, files["migrations.yaml"]) {
			s := Snapshot{Migration: m, Served: m.Spec.Resource.Group != "gone", Version: "100", Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
			for step := decide(s); step.String() != ""; step = decide(s) {
				fmt.Fprintf(&b, "> %s\n%s", m.Name, step)
				if s.Done = step.Write; step.Status != nil {
					m.Status = *step.Status
				}
			}
		}
		return b.String()
	})
}

func TestSince(t *testing.T) {
	for versions, want := range map[[2]string]bool{{"9", "10"}: false, {"10", "10"}: false, {"11", "10"}: true, {"100", "99"}: true, {"x", "10"}: false, {"11", ""}: false} {
		if got := since(versions[0], versions[1]); got != want {
			t.Errorf("%s after %s: %v", versions[0], versions[1], got)
		}
	}
}
