package kubelet

import (
	"os"
	"path/filepath"
	"strings"
)

// pods are the UIDs of pods with a cgroup in any hierarchy. A kubelet that died while it made one may have left it in some only,
// and nothing else of that pod anywhere.
func (c *cgroups) pods() map[string]bool {
	out := map[string]bool{}
	for _, ctl := range c.hierarchies() {
		for _, class := range []string{"", "burstable", "besteffort"} {
			dir := filepath.Join(ctl, c.root, "kubepods", class)
			prefix, suffix := "pod", ""
			if c.slices != nil {
				slice := classSlice(class)
				dir, prefix, suffix = filepath.Join(ctl, slicePath(slice)), strings.TrimSuffix(slice, ".slice")+"-pod", ".slice"
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				continue // no pod of that class
			}
			for _, e := range entries {
				name, ours := strings.CutPrefix(e.Name(), prefix)
				if name, ok := strings.CutSuffix(name, suffix); ours && ok && e.IsDir() {
					// Slices are named without dashes, which part them from their parents.
					out[strings.ReplaceAll(name, "_", "-")] = true
				}
			}
		}
	}
	return out
}
