package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a daemon that outlives this program. Its pid file holds the pid and the start time, so that a pid which
// the machine has since given to somebody else is never signalled.
type process struct {
	name string
	args []string
	// netns is the network namespace it runs in; empty is the host's.
	netns string
}

func pidFile(name string) string { return filepath.Join(out, "run", name+".pid") }

// startTime is field 22 of /proc/<pid>/stat, in clock ticks since boot; empty when there is no such process.
func startTime(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name in parentheses may hold blanks; what follows the last parenthesis starts at field 3.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// pidOf answers the pid of a daemon that runs, or 0.
func pidOf(name string) int {
	data, err := os.ReadFile(pidFile(name))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) != 2 {
		return 0
	}
	pid, err := strconv.Atoi(fields[0])
	if err != nil || startTime(pid) != fields[1] {
		return 0
	}
	return pid
}

func notePid(name string, pid int) error {
	return os.WriteFile(pidFile(name), fmt.Appendf(nil, "%d %s\n", pid, startTime(pid)), 0o644)
}

// start runs the daemon, unless it runs already.
func (p process) start() error {
	if pidOf(p.name) != 0 {
		return nil
	}
	for _, d := range []string{"run", "log"} {
		if err := os.MkdirAll(filepath.Join(out, d), 0o755); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(filepath.Join(out, "log", p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the daemon holds its own copy
	args := p.args
	if p.netns != "" {
		// Only the network is the node's: its mounts must be seen by the runtime and the kubelet alike.
		args = append([]string{"nsenter", "--net=/run/netns/" + p.netns, "--"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	pid := cmd.Process.Pid
	if err := notePid(p.name, pid); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return fmt.Errorf("%s ended at once (%v); see %s", p.name, err, log.Name())
	case <-time.After(300 * time.Millisecond):
		return nil
	}
}

// stop signals the daemon and waits for its end; a daemon that does not heed SIGTERM for ten seconds is killed.
func stop(name string, signal syscall.Signal) error {
	pid := pidOf(name)
	if pid != 0 {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		for deadline := time.Now().Add(10 * time.Second); pidOf(name) != 0; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("kill %s: %w", name, err)
				}
				deadline = time.Now().Add(time.Minute)
			}
		}
	}
	if err := os.Remove(pidFile(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
