package house

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// required are the modules that a go.mod asks for by itself.
func required(t *testing.T, dir string) []string {
	t.Helper()
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = filepath.Join(root, dir)
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("read %s/go.mod: %v", dir, err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(text, &mod); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, r := range mod.Require {
		if !r.Indirect && !strings.HasPrefix(r.Path, module) {
			paths = append(paths, r.Path)
		}
	}
	return paths
}

// major is the end of a path that tells the major version; a page for people may leave it out.
var major = regexp.MustCompile(`/v[0-9]+$`)

func TestEveryDependencyHasItsReason(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	// The libraries come first; tools are modules of their own.
	libraries, _, _ := strings.Cut(string(text), "\nTools ")
	var told []string
	for line := range strings.Lines(libraries) {
		cell := strings.SplitN(line, "|", 4)
		if len(cell) < 4 {
			continue
		}
		for name := range strings.SplitSeq(cell[1], ",") {
			if name = strings.TrimSpace(name); strings.Contains(name, "/") {
				told = append(told, major.ReplaceAllString(name, ""))
			}
		}
		if why := strings.Trim(cell[2], " -|\n"); why == "" && !strings.Contains(line, "---") {
			t.Errorf("docs/dependencies.md: %q gives no reason", line)
		}
	}
	needed := append(required(t, "."), required(t, "staging/api")...)
	for i, n := range needed {
		needed[i] = major.ReplaceAllString(n, "")
	}
	for _, n := range needed {
		if !slices.Contains(told, n) {
			t.Errorf("docs/dependencies.md has no line for %s: a library that nobody can say the reason of stays for ever", n)
		}
	}
	for _, n := range told {
		if !slices.Contains(needed, n) {
			t.Errorf("docs/dependencies.md tells of %s, which no go.mod asks for: take the line away, with its reason", n)
		}
	}
}
