//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestVerbs runs every script with either client, all at once: each keeps to its own namespace.
func TestVerbs(t *testing.T) {
	files := found(t, "testdata/verbs/*.txtar")
	eachClient(t, func(t *testing.T, with client) {
		t.Parallel()
		scripts(t, with, files...)
	})
}

// TestNodeVerbs runs what changes nodes: no two of it at once, nothing else beside it, and no pods left of what ran before.
func TestNodeVerbs(t *testing.T) {
	files := found(t, "testdata/nodes/*.txtar")
	eachClient(t, func(t *testing.T, with client) {
		for _, f := range files {
			t.Run("quiet", func(t *testing.T) {
				c := newClusterWith(t, with, "e2e-quiet-"+strings.TrimSuffix(filepath.Base(f), ".txtar")+"-"+with.name)
				t.Cleanup(func() {
					c.kubectl("uncordon", "node2")
					_, _ = c.tries(commandLimit, "taint", "node", "node2", "dedicated-") // it is there only if the script failed
				})
				c.within(40*time.Second, "pods of other tests are gone", func() error {
					if left := c.kubectl("get", "pods", "-A", "-o", "name", "--field-selector=metadata.namespace!=kube-system"); strings.Contains(left, "pod/") {
						return fmt.Errorf("%s", left)
					}
					return nil
				})
				// Scripts run side by side with their siblings; alone, there are none.
				t.Run("alone", func(t *testing.T) { scripts(t, with, f) })
			})
		}
	})
}

func found(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	return files
}
