//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sextant-k8s/sextant/hack/ports"
)

// scriptLimit is how long one script may take on a machine that is busy with others.
const scriptLimit = 4 * time.Minute

// environmentKey is where the names of a script's variables are kept for our commands.
type environmentKey struct{}

// scripts runs testscript scripts, each in a namespace of its own, which is also its kubeconfig's. In a script `kubectl` is the
// client under test, `ctl` ours; $IMAGE, $PAUSE and $NAMESPACE are set, in YAML files too, and [ctl] tells which client it is. Besides testscript's own
// commands there are `until`, `code`, `types`, `port` and `certificate`.
func scripts(t *testing.T, with client, files ...string) {
	t.Helper()
	bin := t.TempDir()
	for name, target := range map[string]string{
		"kubectl": with.path, "ctl": ctl.path, "scheduler": filepath.Join(root, "bin/scheduler"), "wget": filepath.Join(root, "_out/images/wget"),
		"helm": filepath.Join(root, "_out/tools/bin/helm"),
	} {
		if err := os.Symlink(target, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Files:              files,
		Deadline:           time.Now().Add(scriptLimit),
		RequireUniqueNames: true,
		Condition:          func(name string) (bool, error) { return name == with.name, nil },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"until": until, "code": code, "types": types, "port": port, "certificate": certificate,
		},
		Setup: func(env *testscript.Env) error {
			t := env.T().(testing.TB)
			env.Values[testOf{}] = t
			namespace := "e2e-" + path.Base(t.Name()) + "-" + with.name
			if err := makeNamespace(namespace); err != nil {
				return err
			}
			t.Cleanup(func() { leaveNamespace(t, namespace) })
			kubeconfig := filepath.Join(env.WorkDir, ".kubeconfig")
			if err := configure(kubeconfig, namespace); err != nil {
				return err
			}
			image, err := testImage()
			if err != nil {
				return err
			}
			pause, err := pauseImage()
			if err != nil {
				return err
			}
			for _, v := range [][2]string{
				{"PATH", bin + ":" + os.Getenv("PATH")}, {"KUBECONFIG", kubeconfig}, {"KUBECACHEDIR", cacheDir}, {"KUBERC", "off"},
				{"NAMESPACE", namespace}, {"IMAGE", image}, {"PAUSE", pause}, {"KUBE_EDITOR", "false"}, {"STOCK", filepath.Join(root, "_out/stock")},
			} {
				env.Setenv(v[0], v[1])
			}
			var names []string
			for _, v := range env.Vars {
				name, _, _ := strings.Cut(v, "=")
				names = append(names, name)
			}
			env.Values[environmentKey{}] = names
			return fill(env.WorkDir, strings.NewReplacer("$IMAGE", image, "$PAUSE", pause, "$NAMESPACE", namespace))
		},
	})
}

// fill sets the names in a script's YAML files.
func fill(dir string, names *strings.Replacer) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := os.WriteFile(f, []byte(names.Replace(string(text))), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// configure writes the administrator's kubeconfig with another namespace.
func configure(file, namespace string) error {
	config, err := clientcmd.LoadFromFile(filepath.Join(root, "_out/admin.kubeconfig"))
	if err != nil {
		return err
	}
	config.Contexts[config.CurrentContext].Namespace = namespace
	return clientcmd.WriteToFile(*config, file)
}

// prepare is a command in the script's environment: of the variables it began with, what they are now.
func prepare(ts *testscript.TestScript, args []string) *exec.Cmd {
	cmd := command(commandLimit, args...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), nil
	for _, name := range ts.Value(environmentKey{}).([]string) {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	if args[0] == filepath.Base(args[0]) {
		for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
			if at := filepath.Join(dir, args[0]); runnable(at) {
				cmd.Path, cmd.Err = at, nil
				break
			}
		}
	}
	return cmd
}

func runnable(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil
}

// until repeats a command until it succeeds and its output matches, or, negated, until that is no longer so:
//
//	until 30s '^3$' kubectl get deployment web -o jsonpath={.status.replicas}
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: [!] until limit pattern command...")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for deadline := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		cmd := prepare(ts, args[2:])
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		holds := err == nil && pattern.Match(stdout.Bytes())
		if late := time.Now().After(deadline); holds != neg || late {
			_, _ = ts.Stdout().Write(stdout.Bytes())
			_, _ = ts.Stderr().Write(stderr.Bytes())
			if holds == neg {
				ts.Fatalf("not within %s: %q, negated %t; last: %v\n%s%s", limit, args[1], neg, err, stdout.Bytes(), stderr.Bytes())
			}
			return
		}
	}
}

// code runs a command that must end with this exit code:
//
//	code 7 kubectl exec box -- sh -c 'exit 7'
func code(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: code number command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	cmd := prepare(ts, args[1:])
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d\n%s%s", got, want, cmd.Stdout, cmd.Stderr)
	}
}

// types runs a command at a terminal of 41 rows and 113 columns, waits for the prompt, and types the text, whose \n are
// returns. Its output is all that stood on the screen once the command ended by itself, which must be with success:
//
//	types '# ' 'stty size; exit\n' kubectl exec -it box -- sh
func types(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 || neg {
		ts.Fatalf("usage: types prompt text command...")
	}
	seen, err := typed(prepare(ts, args[2:]), args[0], strings.ReplaceAll(args[1], `\n`, "\n"))
	_, _ = io.WriteString(ts.Stdout(), seen)
	if err != nil {
		ts.Fatalf("%v; on the screen: %s", err, seen)
	}
}

func typed(cmd *exec.Cmd, prompt, text string) (string, error) {
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 41, Cols: 113})
	if err != nil {
		return "", err
	}
	defer screen.Close()
	var seen strings.Builder
	in := bufio.NewReader(screen)
	for !strings.Contains(seen.String(), prompt) {
		b, err := in.ReadByte()
		if err != nil {
			return seen.String(), fmt.Errorf("no %q before the end: %w", prompt, errors.Join(err, cmd.Wait()))
		}
		seen.WriteByte(b)
	}
	if _, err := io.WriteString(screen, text); err != nil {
		return seen.String(), err
	}
	_, _ = io.Copy(&seen, in) // a terminal whose other end closed reads as an error
	return strings.ReplaceAll(seen.String(), "\r\n", "\n"), cmd.Wait()
}

// testOf is where a script's commands find its test.
type testOf struct{}

// port sets variables to ports of the host that nobody listens on.
func port(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		ts.Setenv(name, strconv.Itoa(ports.Free(ts.Value(testOf{}).(testing.TB))))
	}
}
