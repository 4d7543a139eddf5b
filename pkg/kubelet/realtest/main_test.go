// Package realtest drives the kubelet against what it meets in life: a containerd and runc of its own, an apiserver with its
// own etcd, the kernel.
//
// Flow: TestMain starts this program again in namespaces of its own (network, mounts, processes), so that whatever a
// test leaves behind goes with them -> a small first process reaps orphans -> one machine for all tests -> each test
// works in its own Kubernetes namespace, most of them at once -> at the end nothing may be left of any pod.
// Only the fuzzer has its kubelet in a process of its own (stage "kubelet"), to kill it.
// What must stand beforehand, `make unit` builds: the runtime in _out/tools/bin, images in _out/images, bin/apiserver.
package realtest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	signals "os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stageVar = "KUBELET_REALTEST_STAGE"
	dirVar   = "KUBELET_REALTEST_DIR"
)

// node is the machine all tests share.
var node *machine

func TestMain(m *testing.M) {
	code, err := 1, error(nil)
	switch os.Getenv(stageVar) {
	case "":
		code, err = outside()
	case "init":
		code, err = first()
	case "kubelet":
		code, err = alone(os.Getenv(dirVar))
	default:
		node, err = boot(os.Getenv(dirVar))
		if err == nil {
			// Tests wait far more than they work.
			flag.Parse()
			err = flag.Set("test.parallel", "12")
		}
		if err == nil {
			code = m.Run()
			if e := node.halt(); e != nil {
				code, err = 1, e
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "realtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// again is this very test run in the next stage.
func again(stage string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageVar+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// alone is a kubelet in a process of its own on the machine that stands already.
func alone(dir string) (int, error) {
	m := &machine{dir: dir}
	if err := m.startKubelet(nil); err != nil {
		return 1, err
	}
	told := make(chan os.Signal, 1)
	signals.Notify(told, syscall.SIGTERM)
	select {
	case err := <-m.done:
		return 1, fmt.Errorf("the kubelet ended: %w", err)
	case <-told:
		return 0, m.stopKubelet()
	}
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// outside makes the namespaces, and removes what no namespace holds: a folder and cgroups.
func outside() (int, error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("these tests make namespaces, mounts and cgroups, and must run as root")
	}
	dir, err := os.MkdirTemp("/tmp", "kubelet")
	if err == nil {
		// Users of pods' own namespaces pass through on their way to their root.
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return 1, err
	}
	cmd := again("init")
	cmd.Env = append(cmd.Env, dirVar+"="+dir)
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS
	code, err := exitCode(cmd.Run())
	for range 50 {
		if removeCgroups("/sys/fs/cgroup", "/"+filepath.Base(dir)) == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if e := os.RemoveAll(dir); err == nil {
		err = e
	}
	return code, err
}

// removeCgroups removes one tree from every hierarchy.
func removeCgroups(mount, tree string) error {
	entries, err := os.ReadDir(mount)
	if err != nil {
		return err
	}
	var errs []error
	remove := func(top string) {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := unix.Rmdir(dirs[i]); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("%s: %w", dirs[i], err))
			}
		}
	}
	remove(mount + tree)
	for _, e := range entries {
		if e.IsDir() {
			remove(filepath.Join(mount, e.Name(), tree))
		}
	}
	return errors.Join(errs...)
}

// first is process 1 of the new namespaces: it gives them their own /proc and takes in orphans, as an init does.
func first() (int, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 1, fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return 1, fmt.Errorf("mounting /proc: %w", err)
	}
	cmd := again("tests")
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, err
		case pid != cmd.Process.Pid:
		case ws.Exited():
			return ws.ExitStatus(), nil
		default:
			return 1, fmt.Errorf("the tests ended by %s", ws.Signal())
		}
	}
}
