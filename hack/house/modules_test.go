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

// required are the modules of a go.mod: those that are asked for by our own packages, and all.
func required(t *testing.T, dir string) (direct, all []string) {
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
	for _, r := range mod.Require {
		if strings.HasPrefix(r.Path, module) {
			continue
		}
		path := major.ReplaceAllString(r.Path, "")
		all = append(all, path)
		if !r.Indirect {
			direct = append(direct, path)
		}
	}
	return direct, all
}

// major is the end of a path that tells the major version; a page for people may leave it out.
var major = regexp.MustCompile(`/v[0-9]+$`)

// aside is what a line says about which part of a module is used.
var aside = regexp.MustCompile(`\([^)]*\)`)

func TestEveryDependencyHasItsReason(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, libraries, ok := strings.Cut(string(text), "\n## Libraries\n")
	if !ok {
		t.Fatal("docs/dependencies.md has no section of libraries")
	}
	var told []string
	for line := range strings.Lines(libraries) {
		cell := strings.SplitN(line, "|", 4)
		if len(cell) < 4 {
			continue
		}
		for name := range strings.SplitSeq(aside.ReplaceAllString(cell[1], ""), ",") {
			if name = strings.TrimSpace(name); strings.Contains(name, "/") {
				told = append(told, major.ReplaceAllString(name, ""))
			}
		}
		if why := strings.Trim(cell[2], " -|\n"); why == "" && !strings.Contains(line, "---") {
			t.Errorf("docs/dependencies.md: %q gives no reason", line)
		}
	}
	needed, all := required(t, ".")
	direct, more := required(t, "staging/api")
	needed, all = append(needed, direct...), append(all, more...)
	for _, n := range needed {
		if !slices.Contains(told, n) {
			t.Errorf("docs/dependencies.md has no line for %s: a library that nobody can say the reason of stays for ever", n)
		}
	}
	for _, n := range told {
		if !slices.Contains(all, n) {
			t.Errorf("docs/dependencies.md tells of %s, which no go.mod asks for: take the line away, with its reason", n)
		}
	}
}
