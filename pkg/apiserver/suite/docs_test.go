package suite

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of docs/api.md")

const docs = "../../../docs/api.md"

// TestServedAsDocumented holds the table of docs/api.md equal to what the server serves; -update rewrites it.
func TestServedAsDocumented(t *testing.T) {
	t.Parallel()
	s := start(t)
	var b strings.Builder
	b.WriteString("| version | kind | resource | subresources |\n|---|---|---|---|\n")
	for _, r := range table(t, s) {
		var subs []string
		for _, sub := range r.subs {
			_, name, _ := strings.Cut(sub.Name, "/")
			subs = append(subs, name)
		}
		slices.Sort(subs)
		scope := ""
		if !r.Namespaced {
			scope = " (cluster)"
		}
		fmt.Fprintf(&b, "| %s | %s | %s%s | %s |\n", r.gv, r.Kind, r.Name, scope, strings.Join(subs, ", "))
	}
	raw, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	const head, tail = "<!-- served: written by go test ./pkg/apiserver/suite -run Documented -update -->\n", "<!-- end of served -->"
	before, rest, ok := strings.Cut(string(raw), head)
	is, after, closed := strings.Cut(rest, tail)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", docs)
	}
	if is == b.String() {
		return
	}
	if !*update {
		t.Fatalf("%s does not show what is served; go test ./pkg/apiserver/suite -run Documented -update rewrites it", docs)
	}
	if err := os.WriteFile(docs, []byte(before+head+b.String()+tail+after), 0o644); err != nil { //nolint:gosec // a page for all to read
		t.Fatal(err)
	}
}

// TestFaultsAreTried looks for the test that docs/api.md names beside each published fault.
func TestFaultsAreTried(t *testing.T) {
	raw, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(raw), "## Published faults")
	if !ok {
		t.Fatal("docs/api.md lists no faults")
	}
	names := regexp.MustCompile("`(Test[A-Za-z0-9]+)` in `([a-z/]+)`").FindAllStringSubmatch(list, -1)
	if len(names) < 10 {
		t.Errorf("only %d tests are named", len(names))
	}
	for _, n := range names {
		out, err := exec.Command("grep", "-rlE", "^func "+n[1]+`\(`, "../../../"+n[2]).Output()
		if err != nil || len(out) == 0 {
			t.Errorf("%s is named, but is not in %s", n[1], n[2])
		}
	}
}
