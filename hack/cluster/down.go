package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// down ends everything that `up` started, the containers too, and removes what it made of the machine.
func down() error {
	pids, err := filepath.Glob(filepath.Join(out, "run", "*.pid"))
	if err != nil {
		return err
	}
	// The kubelets go first, so that none of them restarts what is being ended.
	slices.SortStableFunc(pids, func(a, b string) int {
		return strings.Compare(rank(filepath.Base(a)), rank(filepath.Base(b)))
	})
	for i, p := range pids {
		if i > 0 && strings.HasPrefix(filepath.Base(p), "containerd-") && !strings.HasPrefix(filepath.Base(pids[i-1]), "containerd-") {
			if err := endContainers(); err != nil {
				return err
			}
		}
		if err := stop(strings.TrimSuffix(filepath.Base(p), ".pid"), syscall.SIGTERM); err != nil {
			return err
		}
	}
	return errors.Join(endContainers(), unmount(), removeCgroups(), lower(), clean())
}

func rank(name string) string {
	switch {
	case strings.HasPrefix(name, "kubelet-"):
		return "0"
	case strings.HasPrefix(name, "containerd-"):
		return "1"
	case strings.HasPrefix(name, "etcd"):
		return "3"
	}
	return "2"
}

// cgroups are the nodes' groups in every hierarchy, deepest first.
func cgroups() []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/sextant-*", "/sys/fs/cgroup/*/sextant-*"} {
		roots, _ := filepath.Glob(pattern)
		for _, root := range roots {
			_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					found = append(found, path)
				}
				return nil
			})
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	slices.Reverse(found)
	return found
}

// endContainers kills what lives in the nodes' cgroups, and the shims that serve the nodes' sockets.
func endContainers() error {
	for _, dir := range cgroups() {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue // gone between the walk and now
		}
		for _, p := range strings.Fields(string(procs)) {
			if pid, err := strconv.Atoi(p); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, l := range lines {
		data, err := os.ReadFile(l)
		if err != nil {
			continue // the process ended
		}
		args := bytes.Split(data, []byte{0})
		if !strings.Contains(filepath.Base(string(args[0])), "containerd-shim") || !bytes.Contains(data, []byte(filepath.Join(out, "nodes")+"/")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(l))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return nil
}

// unmount takes away every mount below the nodes' folders, the newest first.
func unmount() error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	slices.Reverse(lines)
	for _, l := range lines {
		if f := strings.Fields(l); strings.HasPrefix(f[4], filepath.Join(out, "nodes")+"/") {
			if err := syscall.Unmount(f[4], syscall.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", f[4], err)
			}
		}
	}
	return nil
}

// removeCgroups waits for the kernel to let go of what was killed.
func removeCgroups() error {
	return within(10*time.Second, func() error {
		var errs []error
		for _, dir := range cgroups() {
			if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
			}
		}
		return errors.Join(errs...)
	})
}

// clean forgets the cluster's files; logs stay for whoever wants to know why.
func clean() error {
	for _, d := range []string{"nodes", "pki", "etcd", "run"} {
		if err := os.RemoveAll(filepath.Join(out, d)); err != nil {
			return err
		}
	}
	return nil
}
