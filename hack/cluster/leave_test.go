//go:build e2e

package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cluster runs this program as the Makefile does; flags given last win. It answers all that was said.
func cluster(t *testing.T, args ...string) (string, error) {
	t.Helper()
	text, err := command(t, args...).CombinedOutput()
	return strings.TrimSpace(string(text)), err
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	words := strings.Fields(os.Getenv("CLUSTER"))
	if len(words) < 5 {
		t.Fatal("CLUSTER does not hold the program and its flags; make e2e runs this test")
	}
	// -out is the first flag, -bin the second.
	out, *binDir = words[2], words[4]
	return exec.Command(words[0], append(words[1:], args...)...)
}

func must(t *testing.T, args ...string) {
	t.Helper()
	if said, err := cluster(t, args...); err != nil {
		t.Fatalf("cluster %s: %v\n%s", strings.Join(args, " "), err, said)
	}
}

// untouched ends the cluster and sees that the machine is as it was.
func untouched(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "census")
	must(t, "census", file)
	t.Cleanup(func() {
		must(t, "down")
		must(t, "same", file)
	})
}

// running are the daemons' pids by name.
func running(t *testing.T) map[string]int {
	t.Helper()
	files, err := filepath.Glob(pidFile("*"))
	if err != nil {
		t.Fatal(err)
	}
	pids := map[string]int{}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".pid")
		pids[name] = pidOf(name)
	}
	return pids
}

func TestNothingIsLeftOfKilledDaemons(t *testing.T) {
	untouched(t)
	must(t, "up")
	pids := running(t)
	if len(pids) < 10 {
		t.Fatalf("four daemons and three on each of two nodes or more should run, not %v", pids)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

// TestNothingIsLeftOfPodsThatBegin ends the cluster while the runtimes make sandboxes.
func TestNothingIsLeftOfPodsThatBegin(t *testing.T) {
	untouched(t)
	must(t, "up")
	begun := len(results(t))
	if said, err := exec.Command(bin("ctl"), "--kubeconfig", adminConfig(), "create", "deployment", "many", "--image=registry.sextant.local/pause:3.10", "--replicas=30").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if err := within(30*time.Second, func() error {
		if n := len(results(t)); n < begun+4 {
			return fmt.Errorf("%d networks of sandboxes were made", n-begun)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// results are what the CNI plugins have answered.
func results(t *testing.T) []string {
	found, err := filepath.Glob("/var/lib/cni/results/sextant-*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestNothingIsLeftOfACrashedStart(t *testing.T) {
	for _, stage := range []string{"network", "etcd", "apiserver", "controller-manager", "node1", "node2"} {
		t.Run(stage, func(t *testing.T) {
			untouched(t)
			cmd := command(t, "up")
			said, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(said)
			for lines.Scan() && !strings.Contains(lines.Text(), stage) {
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Errorf("up was over before %s: %v", stage, err)
			}
			_ = cmd.Wait() // it was killed
		})
	}
}

// A start goes on where a crashed one stopped.
func TestACrashedStartIsCarriedOn(t *testing.T) {
	untouched(t)
	cmd := command(t, "up")
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	for lines.Scan() && !strings.Contains(lines.Text(), "node1") {
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	must(t, "up")
	before := running(t)
	must(t, "up")
	if after := running(t); !maps.Equal(before, after) {
		t.Errorf("a second up changed what stood: %v, then %v", before, after)
	}
}

// foreign makes a folder that looks like another checkout's _out, with the same tools and images.
func foreign(t *testing.T, checkout string) string {
	t.Helper()
	folder := filepath.Join(checkout, "_out")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"tools", "images"} {
		if err := os.Symlink(filepath.Join(out, d), filepath.Join(folder, d)); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestAMachineHasRoomForOneCluster(t *testing.T) {
	untouched(t)
	checkout := t.TempDir()
	other := foreign(t, checkout)
	if err := os.WriteFile(filepath.Join(checkout, "Makefile"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "up")
	before := running(t)
	for _, verb := range [][]string{{"-out", other, "up"}, {"-out", other, "down"}, {"-out", other, "free"}, {"-out", other, "kill", "etcd"}, {"free"}} {
		said, err := cluster(t, verb...)
		if err == nil || strings.Contains(said, "\n") || !strings.Contains(said, out) || !strings.Contains(said, "make -C "+filepath.Dir(out)+" down") {
			t.Errorf("%v beside a standing cluster: %v, %q; want one line saying where it stands and how to end it", verb, err, said)
		}
	}
	if after := running(t); !maps.Equal(before, after) {
		t.Errorf("the standing cluster was harmed: %v, then %v", before, after)
	}
	must(t, "down")
	// The checkout of a standing cluster is gone: whoever comes next can end it.
	if err := os.Remove(filepath.Join(checkout, "Makefile")); err != nil {
		t.Fatal(err)
	}
	must(t, "-out", other, "up")
	if said, err := cluster(t, "up"); err == nil || !strings.Contains(said, other) {
		t.Errorf("up beside a cluster whose checkout is gone: %v, %q", err, said)
	}
	must(t, "down")
	if pids, err := filepath.Glob("/proc/[0-9]*/cmdline"); err != nil {
		t.Error(err)
	} else {
		for _, p := range pids {
			if text, _ := os.ReadFile(p); strings.Contains(string(text), other+"/") {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
				t.Errorf("process %d of the ended cluster runs: %q", pid, text)
			}
		}
	}
}
