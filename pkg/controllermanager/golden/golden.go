// Package golden compares what a test shows with what testdata/*.txtar says it showed before.
//
// An archive holds what goes in and one file "plan": what comes out. With -update, "plan" is written anew and its diff is
// reviewed. Nothing runs in parallel.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the plans of testdata anew")

// Updating tells whether answers are to be written anew, for tests that keep theirs in another form.
func Updating() bool { return *update }

// plan is the file of an archive that is the answer.
const plan = "plan"

// Run calls show with the files of every archive in testdata, by name, and compares what it answers.
func Run(t *testing.T, show func(t *testing.T, files map[string]string) string) {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("testdata has no archives: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			at := -1
			for i, f := range a.Files {
				files[f.Name] = string(f.Data)
				if f.Name == plan {
					at = i
				}
			}
			got := show(t, files)
			if got == files[plan] && at >= 0 {
				return
			}
			if !*update {
				t.Fatalf("the plan differs (-update writes it anew)\n--- got\n%s--- want\n%s", got, files[plan])
			}
			if at < 0 {
				a.Files, at = append(a.Files, txtar.File{Name: plan}), len(a.Files)
			}
			a.Files[at].Data = []byte(got)
			if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Objects reads the YAML documents of one file; a field that the type does not have fails the test.
func Objects[T any](t *testing.T, text string) []*T {
	t.Helper()
	var out []*T
	for _, doc := range strings.Split("\n"+text, "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		x := new(T)
		if err := yaml.UnmarshalStrict([]byte(doc), x); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		out = append(out, x)
	}
	return out
}

// Object reads the one YAML document of a file.
func Object[T any](t *testing.T, text string) *T {
	t.Helper()
	all := Objects[T](t, text)
	if len(all) != 1 {
		t.Fatalf("one object is needed, not %d, in\n%s", len(all), text)
	}
	return all[0]
}
