//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestStock runs programs of others as they were published, each with what its own users do first. Their images are on
// every node; their manifests lie in $STOCK.
func TestStock(t *testing.T) {
	if err := importStock(); err != nil {
		t.Fatal(err)
	}
	// One after another: while an aggregated server is away, no namespace can be emptied.
	for _, f := range found(t, "testdata/stock/*.txtar") {
		t.Run("alone", func(t *testing.T) { scripts(t, kubectl, f) })
	}
}

// importStock gives every node the images of _out/stock.
func importStock() error {
	images, err := filepath.Glob(filepath.Join(root, "_out/stock/images/*.tar"))
	if err != nil || len(images) == 0 {
		return fmt.Errorf("no images in _out/stock, which make stock-images fills: %v", err)
	}
	nodes, err := filepath.Glob(filepath.Join(root, "_out/nodes/*/containerd.sock"))
	if err != nil || len(nodes) == 0 {
		return fmt.Errorf("no nodes in _out, which make up starts: %v", err)
	}
	for _, socket := range nodes {
		for _, image := range images {
			args := []string{filepath.Join(root, "_out/tools/bin/ctr"), "-a", socket, "-n", "k8s.io", "images", "import", image}
			if text, err := command(commandLimit, args...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, text)
			}
		}
	}
	return nil
}
