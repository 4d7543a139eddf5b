//go:build e2e

package e2e

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// typed runs kubectl at a terminal, types the text, and answers all that stood on the screen once kubectl ended by
// itself. It waits for the prompt first when one is named.
func (c cluster) typed(prompt, text string, args ...string) string {
	c.t.Helper()
	cmd := c.command(c.kubectlArgs(args...)...)
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 41, Cols: 113})
	if err != nil {
		c.t.Fatal(err)
	}
	defer screen.Close()
	watchdog := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	var seen strings.Builder
	in := bufio.NewReader(screen)
	for !strings.Contains(seen.String(), prompt) {
		b, err := in.ReadByte()
		if err != nil {
			c.t.Fatalf("%v: no %q before the end: %s", args, prompt, seen.String())
		}
		seen.WriteByte(b)
	}
	if _, err := io.WriteString(screen, text); err != nil {
		c.t.Fatal(err)
	}
	_, _ = io.Copy(&seen, in) // a terminal whose other end closed reads as an error
	if err := cmd.Wait(); err != nil {
		c.t.Errorf("%v: %v: %s", args, err, seen.String())
	}
	return seen.String()
}

// box starts a pod with a shell command.
func (c cluster) box(name, script string, more ...string) {
	c.t.Helper()
	c.kubectl(append(append([]string{"run", name, "--image=" + c.image()}, more...), "--", "sh", "-c", script)...)
	c.kubectl("wait", "--for=condition=Ready", "pod/"+name, "--timeout=30s")
}

func TestTerminals(t *testing.T) {
	c := newCluster(t, "e2e-tty")
	c.box("box", "sleep 1000")
	if said := c.typed("# ", "stty size; echo sum=$((20+3)); exit\n", "exec", "-it", "box", "--", "sh"); !strings.Contains(said, "41 113") || !strings.Contains(said, "sum=23") {
		t.Errorf("exec -it: %q", said)
	}
	said := c.typed("ready", "word\n", "run", "once", "--rm", "-it", "--restart=Never", "--image="+c.image(), "--", "sh", "-c", "sleep 2; echo ready; read x; echo got-$x")
	if !strings.Contains(said, "got-word") || !strings.Contains(said, `pod "once" deleted`) {
		t.Errorf("run --rm -it: %q", said)
	}
	// With --stdin kubectl run would attach by itself.
	c.box("talk", "while read x; do echo got-$x; [ $x = end ] && exit 0; done", "--restart=Never", "--override-type=strategic",
		`--overrides={"spec":{"containers":[{"name":"talk","stdin":true,"tty":true}]}}`)
	if said := c.typed("", "one\nend\n", "attach", "-it", "talk"); !strings.Contains(said, "got-one") || !strings.Contains(said, "got-end") {
		t.Errorf("attach: %q", said)
	}
}

func TestLogsAndFiles(t *testing.T) {
	c := newCluster(t, "e2e-files")
	c.box("box", "echo hello; echo trouble >&2; sleep 1000")
	if said := c.kubectl("logs", "box"); !strings.Contains(said, "hello") || !strings.Contains(said, "trouble") {
		t.Errorf("logs: %q", said)
	}
	there, back := filepath.Join(t.TempDir(), "there"), filepath.Join(t.TempDir(), "back")
	want := strings.Repeat("0123456789abcdef\n", 1<<16)
	if err := os.WriteFile(there, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	c.kubectl("cp", there, "box:/tmp/there")
	c.kubectl("cp", "box:/tmp/there", back)
	if got, err := os.ReadFile(back); err != nil || string(got) != want {
		t.Errorf("a copied file came back with %d bytes, %v; want %d", len(got), err, len(want))
	}
}

func TestPortForward(t *testing.T) {
	c := newCluster(t, "e2e-forward")
	c.box("web-box", "httpd -f -p 80 -h /etc")
	cmd := c.command(c.kubectlArgs("port-forward", "pod/web-box", ":80")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	watchdog := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("port-forward said %q: %v", line, err)
	}
	address := strings.TrimPrefix(strings.Fields(line)[2], "http://")
	for range 3 {
		if err := answers("http://" + address + "/hostname"); err != nil {
			t.Error(err)
		}
	}
	if resp, err := http.Get("http://" + address + "/none"); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("a file that is not there: %v, %v", resp, err)
	}
}
