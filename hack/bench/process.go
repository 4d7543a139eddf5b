package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// daemon is a process of the section.
type daemon struct {
	name string
	cmd  *exec.Cmd
	log  string
	// debug is where it serves /debug/pprof; empty is nowhere.
	debug string
}

// start runs a program; what it says goes to a file beside the profiles, or else of the section's folder.
func (b *bench) start(name, debug string, args ...string) (*daemon, error) {
	d := &daemon{name: name, debug: debug, log: filepath.Join(cmp.Or(b.profiles, b.dir), b.section+"-"+name+".log"), cmd: exec.Command(args[0], args[1:]...)}
	log, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the daemon holds its own copy
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s (`make build` and `make up` build what is needed): %w", name, err)
	}
	return d, nil
}

// stop ends the daemon and waits for it, politely first so that it gives up its lease.
func (d *daemon) stop() {
	kill := time.AfterFunc(10*time.Second, func() { _ = d.cmd.Process.Kill() })
	defer kill.Stop()
	_ = d.cmd.Process.Signal(unix.SIGTERM) // it may have ended
	_ = d.cmd.Wait()                       // its state is of no interest
}

// tail is the end of what the daemon said, for an error.
func (d *daemon) tail() string {
	text, _ := os.ReadFile(d.log) // without it there is just less to tell
	return string(text[max(0, len(text)-2000):])
}

func (d *daemon) cpu() time.Duration { return cpu(d.cmd.Process.Pid) }
func (d *daemon) rss() int           { return memory(d.cmd.Process.Pid, "VmRSS:") }

// anonymous is the part of rss that is not pages of the program file, which daemons of one kind share and the kernel may
// drop.
func (d *daemon) anonymous() int { return memory(d.cmd.Process.Pid, "RssAnon:") }

// cpu answers the CPU time that a process and its children that ended have used.
func cpu(pid int) time.Duration {
	// A process's clock is its number, inverted, with the kind of clock in the low bits: 2 is the scheduler's, in
	// nanoseconds (clock_getcpuclockid(3)).
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano()) + children(pid)
}

// children is the CPU time of a process's children that have ended, in clock ticks of 10 ms.
func children(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name may hold spaces; what follows its closing bracket does not.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.Atoi(fields[13])
	system, _ := strconv.Atoi(fields[14])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory answers one line of /proc/<pid>/status in bytes.
func memory(pid int, name string) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // a process that is gone has none
	for _, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb << 10
		}
	}
	return 0
}

// driver is this process as the one that does bare work.
var driver = &daemon{name: "driver", cmd: &exec.Cmd{Process: self()}}

func self() *os.Process {
	p, err := os.FindProcess(os.Getpid())
	if err != nil {
		panic(err) // we run
	}
	return p
}

// meter tells what the daemon and the servers behind it use while f does n operations; per operation.
func meter(n int, of *daemon, behind []*daemon, f func() error) (cost, error) {
	read := func() (own, others time.Duration) {
		for _, d := range behind {
			others += d.cpu()
		}
		return of.cpu(), others
	}
	own, others := read()
	begun := time.Now()
	if err := f(); err != nil {
		return cost{}, err
	}
	wall := time.Since(begun)
	own2, others2 := read()
	each := time.Duration(n)
	return cost{CPU: (own2 - own) / each, Behind: (others2 - others) / each, Wall: wall / each}, nil
}

// times does f n times in order.
func times(n int, f func(i int) error) func() error {
	return func() error {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
}

// parallel does f n times, by so many workers.
func parallel(n, workers int, f func(i int) error) func() error {
	return func() error {
		next, failed := make(chan int), make(chan error, workers)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		for range workers {
			go func() {
				for i := range next {
					if err := f(i); err != nil {
						cancel()
						failed <- err
						return
					}
				}
				failed <- nil
			}()
		}
	feed:
		for i := range n {
			select {
			case next <- i:
			case <-ctx.Done():
				break feed
			}
		}
		close(next)
		var first error
		for range workers {
			if err := <-failed; first == nil {
				first = err
			}
		}
		return first
	}
}

// await tries until it works.
func await(what string, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not after %s: %w", what, limit, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
