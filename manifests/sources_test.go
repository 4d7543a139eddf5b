package manifests

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// source is what the Go files of a daemon tell without being built.
type source struct {
	flags    map[string]bool // names without dashes
	endings  map[string]bool // of flags whose names are put together, prefix + "-ending"
	literals map[string]bool // every string literal
}

// sources are the daemons that the manifests start, each with the folders of its code.
var sources = map[string]func() (source, error){
	"apiserver":          sync.OnceValues(func() (source, error) { return read("../cmd/apiserver", "../pkg/apiserver") }),
	"scheduler":          sync.OnceValues(func() (source, error) { return read("../cmd/scheduler", "../pkg/scheduler") }),
	"controller-manager": sync.OnceValues(func() (source, error) { return read("../cmd/controller-manager", "../pkg/controllermanager") }),
	"kubelet":            sync.OnceValues(func() (source, error) { return read("../cmd/kubelet", "../pkg/kubelet") }),
	"proxy":              sync.OnceValues(func() (source, error) { return read("../cmd/proxy", "../pkg/proxy") }),
	"etcd": sync.OnceValues(func() (source, error) {
		dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "go.etcd.io/etcd/server/v3/embed").Output()
		if err != nil {
			return source{}, err
		}
		return read(strings.TrimSpace(string(dir)))
	}),
}

func sourceOf(t *testing.T, daemon string) source {
	t.Helper()
	load, ok := sources[daemon]
	if !ok {
		t.Fatalf("%s is none of the daemons", daemon)
	}
	s, err := load()
	if err != nil {
		t.Fatalf("read the sources of %s: %v", daemon, err)
	}
	if len(s.flags) == 0 {
		t.Fatalf("found no flag in the sources of %s: look where it defines them now", daemon)
	}
	return s
}

// read collects the flags from calls like f.StringVar(&x, "name", ...), in all files but tests.
func read(dirs ...string) (source, error) {
	s := source{flags: map[string]bool{}, endings: map[string]bool{}, literals: map[string]bool{}}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, s.visit)
			return nil
		})
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s source) visit(n ast.Node) bool {
	if text, ok := literal(n); ok {
		s.literals[text] = true
	}
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) < 3 {
		return true
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !strings.HasSuffix(strings.TrimSuffix(method.Sel.Name, "P"), "Var") {
		return true
	}
	if name, ok := literal(call.Args[1]); ok {
		s.flags[name] = true
	}
	if sum, ok := call.Args[1].(*ast.BinaryExpr); ok {
		if ending, ok := literal(sum.Y); ok {
			s.endings[ending] = true
		}
	}
	return true
}

// has tells whether the daemon has a flag.
func (s source) has(flag string) bool {
	for ending := range s.endings {
		if prefix, ok := strings.CutSuffix(flag, ending); ok && s.literals[prefix] {
			return true
		}
	}
	return s.flags[flag]
}

func literal(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// checkFlags holds a command line against the daemon's flags.
func checkFlags(t *testing.T, daemon string, args []string) {
	t.Helper()
	if len(args) == 0 {
		t.Errorf("%s is started without any flag", daemon)
	}
	known, seen := sourceOf(t, daemon), map[string]bool{}
	for _, arg := range args {
		name, value, ok := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		switch {
		case !strings.HasPrefix(arg, "--") || !ok || value == "":
			t.Errorf("%s: %q is not written --flag=value", daemon, arg)
		case !known.has(name):
			t.Errorf("%s has no flag --%s", daemon, name)
		case seen[name]:
			t.Errorf("%s gets --%s twice: a list would hold both values", daemon, name)
		}
		seen[name] = true
	}
}
