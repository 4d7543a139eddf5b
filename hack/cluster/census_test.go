package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestDifferenceTellsWhatCameAndWhatWent(t *testing.T) {
	got := difference([]string{"link eth0", "link lo", "mount /"}, []string{"link lo", "link sextant0", "mount /"})
	if want := []string{"+ link sextant0", "- link eth0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestInACrowdOnlyOurNameCounts(t *testing.T) {
	before := []string{"cgroup /sys/fs/cgroup/theirs", "crowd", "link lo"}
	after := []string{"cgroup /sys/fs/cgroup/sextant-node1", "cgroup /sys/fs/cgroup/others", "file /run/x.sock", "link lo", "link veth0"}
	if got, want := difference(before, after), []string{"+ cgroup /sys/fs/cgroup/sextant-node1", "+ link veth0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNeighboursComeAndGo(t *testing.T) {
	groups := []string{"cgroup /sys/fs/cgroup/memory/sessions/1", "cgroup /sys/fs/cgroup/memory/sextant-node1", "cgroup /sys/fs/cgroup/memory/sessions"}
	got := apart(slices.Clone(groups), "4:memory:/sessions/7\n3:cpu:/\n0::/alone\n")
	if want := groups[1:]; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Each thing that a cluster could forget has to be seen, or "nothing is left" means nothing.
func TestTheCensusSees(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can make mounts and cgroups; the rest is tested by TestDifferenceTellsWhatCameAndWhatWent")
		return
	}
	out = t.TempDir()
	mount := t.TempDir()
	hierarchy := "/sys/fs/cgroup"
	if all, _ := filepath.Glob(hierarchy + "/memory"); len(all) == 1 {
		hierarchy = all[0]
	}
	group := filepath.Join(hierarchy, filepath.Base(filepath.Dir(out)))
	socket := filepath.Join("/run", filepath.Base(filepath.Dir(out)))
	for want, leave := range map[string]func() (undo func() error, err error){
		"+ mount " + mount: func() (func() error, error) {
			return func() error { return syscall.Unmount(mount, 0) }, syscall.Mount("census", mount, "tmpfs", 0, "size=4k")
		},
		"+ cgroup " + group: func() (func() error, error) {
			return func() error { return syscall.Rmdir(group) }, syscall.Mkdir(group, 0o755)
		},
		"+ file " + socket: func() (func() error, error) {
			return func() error { return os.Remove(socket) }, os.WriteFile(socket, nil, 0o600)
		},
		"+ link census0": func() (func() error, error) {
			return func() error { return sh("ip", "link", "del", "census0") }, sh("ip", "link", "add", "census0", "type", "bridge")
		},
		"+ ip prohibit 203.0.113.77": func() (func() error, error) {
			return func() error { return sh("ip", "route", "del", "prohibit", "203.0.113.77") }, sh("ip", "route", "add", "prohibit", "203.0.113.77")
		},
		"+ nft table inet census": func() (func() error, error) {
			return func() error { return sh("nft", "delete", "table", "inet", "census") }, sh("nft", "add", "table", "inet", "census")
		},
		"+ process ": func() (func() error, error) {
			attr := &os.ProcAttr{Files: []*os.File{nil, nil, nil}}
			p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "kill -STOP $$", filepath.Join(out, "nodes") + "/"}, attr)
			return func() error {
				if err := p.Kill(); err != nil {
					return err
				}
				_, err := p.Wait()
				return err
			}, err
		},
	} {
		before, err := census()
		if err != nil {
			t.Fatal(err)
		}
		undo, err := leave()
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		after, err := census()
		before, after = slices.DeleteFunc(before, isCrowd), slices.DeleteFunc(after, isCrowd)
		if err := undo(); err != nil {
			t.Error(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if diff := difference(before, after); !slices.ContainsFunc(diff, func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("%q was not seen: %q", want, diff)
		}
	}
}

func isCrowd(l string) bool { return l == crowd }

// TestFirstSocket holds the name to one that containerd 2.4 gave.
func TestFirstSocket(t *testing.T) {
	was := out
	t.Cleanup(func() { out = was })
	out = "/tmp/ci/_out"
	const id, want = "d10a207bfac8d858c6d35ce74896240d683ab53eab4fb55198b1537fc9f3f9c5", "/run/containerd/s/ffafbc5ee63d270d00653156d933596cd8f2c6c312234e9e734ab672471fdb25"
	if got := firstSocket("/tmp/ci/_out/nodes/node1/state/io.containerd.runtime.v2.task/k8s.io/" + id); got != want {
		t.Error(got)
	}
}
