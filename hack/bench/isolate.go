package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// nodeIP is the address of the one node of a section, on a bridge of its own network namespace.
const nodeIP = "192.0.2.1"

var errInterrupted = errors.New("interrupted")

// isolated runs one section in new process, mount and network namespaces, and answers its rows. The section's process is
// number one in there: when it ends, the kernel kills whatever it started, and mounts, rules and links go with the
// namespaces. What is left is a folder and cgroups, which are removed here.
func isolated(b *bench, s section) ([]row, error) {
	dir, err := os.MkdirTemp("", "sextant-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a leftover in the temporary folder does no harm
	cmd := exec.Command("/proc/self/exe", append(slices.Clone(os.Args[1:]), "-inside", dir, "-only", s.name)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL, Setpgid: true,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the section: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = cmd.Wait()
	}()
	select {
	case <-ended:
	case <-signals:
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		err = errInterrupted
	}
	if err := removeCgroups(filepath.Base(dir)); err != nil {
		return nil, err
	}
	text, readErr := os.ReadFile(filepath.Join(dir, "rows.json"))
	if readErr != nil {
		return nil, cmp.Or(err, readErr)
	}
	var rows []row
	return rows, errors.Join(err, json.Unmarshal(text, &rows))
}

// inside prepares the namespaces, runs the section and writes its rows.
func inside(b *bench, s section) error {
	b.cgroup, b.section = filepath.Base(b.dir), s.name
	if err := prepare(); err != nil {
		return fmt.Errorf("preparing namespaces: %w", err)
	}
	err := s.run(b)
	text, jsonErr := json.Marshal(b.rows)
	if jsonErr == nil {
		jsonErr = os.WriteFile(filepath.Join(b.dir, "rows.json"), text, 0o644)
	}
	return errors.Join(err, jsonErr)
}

func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// The runtime's shims keep their sockets in /run, and iptables its lock.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "bench0", "type", "bridge"},
		{"addr", "add", nodeIP + "/24", "dev", "bench0"},
		{"link", "set", "bench0", "up"},
		{"route", "add", "default", "dev", "bench0"},
	} {
		if text, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, text)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// removeCgroups waits for the kernel to let go of what was killed; deepest first.
func removeCgroups(name string) error {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		roots, _ := filepath.Glob(pattern + name) // the pattern is a good one
		for _, root := range roots {
			_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					found = append(found, path)
				}
				return nil
			})
		}
	}
	slices.Sort(found)
	slices.Reverse(found)
	deadline := time.Now().Add(10 * time.Second)
	for _, dir := range found {
		for {
			err := syscall.Rmdir(dir)
			if err == nil || errors.Is(err, syscall.ENOENT) {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup %s: %w", dir, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}
