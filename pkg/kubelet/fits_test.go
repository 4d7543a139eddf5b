package kubelet

import (
	"os"
	"path/filepath"
	"testing"
)

// TestNoLimitBelowUse: a pod is not killed by taking memory from it.
func TestNoLimitBelowUse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory.current")
	if err := fits(file, 1); err != nil {
		t.Error("nothing is known of the use:", err)
	}
	if err := os.WriteFile(file, []byte("4096\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for limit, ok := range map[int64]bool{0: true, 4096: true, 4095: false} {
		if err := fits(file, limit); (err == nil) != ok {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}
