// Package house holds the rules of the house as tests: each fails with the reason for the rule.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/sextant-k8s/sextant"
	root   = "../.."
)

// components are the daemons and the client; nothing else stands in pkg and cmd.
var components = []string{"apiserver", "scheduler", "controllermanager", "kubelet", "proxy", "ctl"}

// pkg is what `go list` tells of one package.
type pkg struct {
	ImportPath string
	Dir        string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// list answers the packages of the root module that match the patterns.
func list(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps=false", "-json=ImportPath,Dir,Imports,Deps,GoFiles"}, patterns...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// componentOf answers whose package a path is: "kubelet" for pkg/kubelet/... and cmd/kubelet.
func componentOf(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 2 || parts[0] != "pkg" && parts[0] != "cmd" {
		return ""
	}
	return strings.ReplaceAll(parts[1], "-", "")
}

func TestComponentsDoNotImportEachOther(t *testing.T) {
	for _, p := range list(t, "./pkg/...", "./cmd/...") {
		own := componentOf(p.ImportPath)
		if !slices.Contains(components, own) {
			t.Errorf("%s: pkg and cmd hold the six components only; what several need goes to staging/api or a library", p.ImportPath)
		}
		for _, i := range p.Deps {
			if c := componentOf(i); c != "" && c != own {
				t.Errorf("%s reaches %s: a component is built, versioned and upgraded alone, so it imports nothing of another", p.ImportPath, i)
			}
		}
	}
}

func TestOnlyTheApiserverTouchesEtcd(t *testing.T) {
	for _, p := range list(t, "./pkg/...", "./cmd/...") {
		if componentOf(p.ImportPath) == "apiserver" {
			continue
		}
		for _, i := range p.Deps {
			if strings.HasPrefix(i, "go.etcd.io/etcd/") {
				t.Errorf("%s reaches %s: everything but the apiserver lives by list and watch", p.ImportPath, i)
				break
			}
		}
	}
}

// readyMade are packages that would be the apiserver if we let them.
var readyMade = []string{
	"k8s.io/apiserver/pkg/server", "k8s.io/apiserver/pkg/endpoints", "k8s.io/apiserver/pkg/registry", "k8s.io/apiserver/pkg/storage",
	"k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver", "k8s.io/kube-aggregator/pkg/apiserver", "k8s.io/kubernetes/",
}

// envelope is a leaf among them: how a stored value is sealed, which must be as upstream seals it to the byte.
const envelope = "k8s.io/apiserver/pkg/storage/value"

func TestTheServerIsOurs(t *testing.T) {
	for _, p := range list(t, "./pkg/...", "./cmd/...") {
		for _, i := range p.Imports {
			for _, r := range readyMade {
				if i == envelope || strings.HasPrefix(i, envelope+"/") {
					continue
				}
				if i == r || strings.HasPrefix(i, strings.TrimSuffix(r, "/")+"/") {
					t.Errorf("%s imports %s: the path from the socket to etcd is what this project exists for", p.ImportPath, i)
				}
			}
		}
	}
}

// sources calls f with every Go file of ours, tests included, relative to the root.
func sources(t *testing.T, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "_out" || d.Name() == "bin" || strings.HasPrefix(d.Name(), ".") && path != root) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			f(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFilesStayShort(t *testing.T) {
	sources(t, func(path string) {
		if strings.HasPrefix(filepath.Base(path), "zz_") {
			return
		}
		if n := lines(t, path); n > 800 {
			t.Errorf("%s has %d lines: over 800 a file holds more than one noun; split it", path, n)
		}
	})
}

func TestFilesAreFormatted(t *testing.T) {
	cmd := exec.Command("gofmt", "-l", "cmd", "pkg", "staging", "hack")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("gofmt: %v\n%s", err, out)
	}
}

func TestEveryPackageIsExplainedOnce(t *testing.T) {
	docs := map[string][]string{}
	sources(t, func(path string) {
		dir := filepath.Dir(path)
		if _, ok := docs[dir]; !ok && !strings.HasSuffix(path, "_test.go") {
			docs[dir] = nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Error(err)
			return
		}
		if f.Doc != nil && !strings.HasSuffix(path, "_test.go") {
			docs[dir] = append(docs[dir], filepath.Base(path))
		}
	})
	for dir, files := range docs {
		if len(files) != 1 {
			t.Errorf("%s has its package doc in %v: a newcomer reads the flow and who may call what in exactly one place", dir, files)
		}
	}
}

// junk are names that say nothing of what a package holds.
var junk = []string{"util", "utils", "common", "helpers", "helper", "shared", "misc", "types", "base"}

func TestPackagesAreNamedForWhatTheyHold(t *testing.T) {
	sources(t, func(path string) {
		if name := filepath.Base(filepath.Dir(path)); slices.Contains(junk, name) {
			t.Errorf("%s: a package named %q becomes everybody's drawer; put the function beside its user", path, name)
		}
	})
}

// impure are packages whose facts a decision gets as data.
var impure = []string{"os", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand", "log/slog"}

func TestDecisionsArePure(t *testing.T) {
	sources(t, func(path string) {
		name := filepath.Base(path)
		if !strings.HasPrefix(name, "decide") || strings.HasSuffix(name, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Error(err)
			return
		}
		for _, i := range f.Imports {
			if p := strings.Trim(i.Path.Value, `"`); slices.Contains(impure, p) {
				t.Errorf("%s imports %s: a decision is data in and data out, so that a golden test can show it", path, p)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "time" || x.Name == "metav1") && slices.Contains([]string{"Now", "Since", "Until", "After", "Sleep"}, sel.Sel.Name) {
				t.Errorf("%s uses %s.%s: the time comes in through the snapshot", path, x.Name, sel.Sel.Name)
			}
			return true
		})
	})
}

func TestEveryComponentSaysHowItIsBuilt(t *testing.T) {
	for _, c := range components {
		dir := filepath.Join(root, "pkg", c)
		if matches, _ := filepath.Glob(filepath.Join(dir, "*")); len(matches) == 0 {
			continue // it has not been started
		}
		n := 0
		if matches, _ := filepath.Glob(filepath.Join(dir, "DESIGN.md")); len(matches) == 1 {
			n = lines(t, matches[0])
		}
		if n == 0 || n > 200 {
			t.Errorf("pkg/%s/DESIGN.md has %d lines: those who change a component read purpose, flow and invariants in under 200", c, n)
		}
	}
}

func TestMainsAreStories(t *testing.T) {
	mains, _ := filepath.Glob(filepath.Join(root, "cmd", "*", "*.go"))
	for _, m := range mains {
		if n := lines(t, m); n > 80 {
			t.Errorf("%s has %d lines: a main is flags, config, Run; the rest belongs to its component", m, n)
		}
	}
}
