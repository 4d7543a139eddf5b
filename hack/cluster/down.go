package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// down ends everything that `up` started, the containers too, and removes what it made of the machine.
func down() error {
	if err := takeOver(); err != nil {
		return err
	}
	if err := adoptLost(); err != nil {
		return err
	}
	pids, err := filepath.Glob(filepath.Join(out, "run", "*.pid"))
	if err != nil {
		return err
	}
	// The kubelets go first, so that none of them restarts what is being ended; then the runtimes, so that what they know
	// of their containers stays to be read.
	slices.SortStableFunc(pids, func(a, b string) int {
		return strings.Compare(rank(filepath.Base(a)), rank(filepath.Base(b)))
	})
	for _, p := range pids {
		if err := stop(strings.TrimSuffix(filepath.Base(p), ".pid"), syscall.SIGTERM); err != nil {
			return err
		}
	}
	return errors.Join(endContainers(), unmount(), removeCgroups(), removeTraces(), lower(), clean(), lowerBridge())
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
	for _, pattern := range []string{"/sys/fs/cgroup/" + spaces + "*", "/sys/fs/cgroup/*/" + spaces + "*"} {
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

// endContainers kills what lives in the nodes' cgroups, and the shims that serve the nodes' sockets, until nobody is found: who is
// being started when the runtime ends comes up all the same.
func endContainers() error {
	return within(10*time.Second, func() error {
		pids, err := living()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err == nil && len(pids) > 0 {
			err = fmt.Errorf("processes of the nodes' containers do not end: %v", pids)
		}
		return err
	})
}

// living are the processes in the nodes' cgroups, and the shims.
func living() ([]int, error) {
	var pids []int
	for _, dir := range cgroups() {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue // gone between the walk and now
		}
		for _, p := range strings.Fields(string(procs)) {
			if pid, err := strconv.Atoi(p); err == nil && startTime(pid) != "" {
				pids = append(pids, pid)
			}
		}
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
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
			pids = append(pids, pid)
		}
	}
	return pids, err
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

// adoptLost writes the pid files that a crash between the start of a daemon and the note of its pid left out.
func adoptLost() error {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, l := range lines {
		data, err := os.ReadFile(l)
		if err != nil {
			continue // the process ended
		}
		words := strings.Split(string(data), "\x00")
		daemon := filepath.Base(words[0])
		if !slices.Contains([]string{"etcd", "apiserver", "scheduler", "controller-manager", "containerd", "kubelet", "proxy"}, daemon) ||
			!slices.ContainsFunc(words, func(w string) bool {
				return strings.HasPrefix(w, filepath.Join(out, "etcd")) || strings.HasPrefix(w, filepath.Join(out, "pki")+"/") || strings.HasPrefix(w, filepath.Join(out, "nodes")+"/")
			}) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(l)))
		if err != nil {
			return err
		}
		if known, err := ownPids(); err != nil || slices.Contains(known, pid) {
			if err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Join(out, "run"), 0o755); err != nil {
			return err
		}
		if err := notePid(fmt.Sprintf("%s-lost-%d", daemon, pid), pid); err != nil {
			return err
		}
	}
	return nil
}

// ownPids are the processes with pid files that run.
func ownPids() ([]int, error) {
	files, err := filepath.Glob(filepath.Join(out, "run", "*.pid"))
	var pids []int
	for _, f := range files {
		if pid := pidOf(strings.TrimSuffix(filepath.Base(f), ".pid")); pid != 0 {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// removeTraces takes away what the runtime keeps outside of the nodes' folders and forgets when it is killed: the
// sockets of shims, and what the CNI plugins answered for each sandbox.
func removeTraces() error {
	bundles, err := filepath.Glob(filepath.Join(out, "nodes", "*", "state", "io.containerd.runtime.v2.task", "k8s.io", "*"))
	if err != nil {
		return err
	}
	left, err := deafSockets()
	if err != nil {
		return err
	}
	for _, b := range bundles {
		// A shim listens before it is noted where.
		left = append(left, firstSocket(b))
		for _, name := range []string{"address", "bootstrap.json"} {
			data, err := os.ReadFile(filepath.Join(b, name))
			if err != nil {
				continue // containerd 1.x writes the one, 2.x the other
			}
			left = append(left, shimSocket.FindAllString(string(data), -1)...)
		}
	}
	sandboxes, err := filepath.Glob(filepath.Join(out, "nodes", "*", "*", "io.containerd.*", "sandboxes", "*"))
	if err != nil {
		return err
	}
	results, err := filepath.Glob("/var/lib/cni/results/*")
	if err != nil {
		return err
	}
	for _, r := range results {
		// Of a sandbox that was being made there may be nothing but the answer, which names a network namespace in the node's folder.
		data, _ := os.ReadFile(r) // gone is as good as somebody else's
		if bytes.Contains(data, []byte(filepath.Join(out, "nodes")+"/")) ||
			slices.ContainsFunc(append(sandboxes, bundles...), func(s string) bool { return strings.Contains(r, "-"+filepath.Base(s)+"-") }) {
			left = append(left, r)
		}
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Folders go when nobody else keeps anything in them.
	for _, d := range []string{"/run/containerd/s", "/run/containerd/runc/k8s.io", "/run/containerd/runc", "/run/containerd", "/var/lib/cni/results", "/var/lib/cni"} {
		_ = os.Remove(d)
	}
	return nil
}

// deafSockets are those of shims, made since the nodes came, on which nobody listens any more. Of a sandbox that was given up while it
// was being made there may be nothing else.
func deafSockets() ([]string, error) {
	nodes, err := os.Stat(filepath.Join(out, "nodes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob("/run/containerd/s/*")
	var deaf []string
	for _, path := range paths {
		if made, err := os.Stat(path); err != nil || made.ModTime().Before(nodes.ModTime()) {
			continue // gone, or somebody else's
		}
		c, err := net.Dial("unix", path)
		if err == nil {
			_ = c.Close()
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			deaf = append(deaf, path)
		}
	}
	return deaf, err
}

// shimSocket is where a shim listens.
var shimSocket = regexp.MustCompile(`/run/containerd/s/[0-9a-f]+`)

// firstSocket is where the shim of a sandbox listens, whose bundle is in a node's folder: its name is a sum of whom it serves.
func firstSocket(bundle string) string {
	n := node{name: filepath.Base(filepath.Join(bundle, "../../../.."))}
	return fmt.Sprintf("/run/containerd/s/%x", sha256.Sum256([]byte(filepath.Join(n.socket(), "k8s.io", filepath.Base(bundle)))))
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
	for _, d := range []string{"nodes", "pki", "etcd", "run", "volumes", "admin.kubeconfig"} {
		if err := os.RemoveAll(filepath.Join(out, d)); err != nil {
			return err
		}
	}
	return nil
}
