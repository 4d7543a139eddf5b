package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// settle is how long the kernel may take to let go of what was ended.
const settle = 20 * time.Second

// census is what is on the machine that a cluster might leave behind: one line each, "<what> <which>", sorted. Other
// people's processes come and go, so of processes it holds only those that the folder's cluster started.
func census() ([]string, error) {
	var all []string
	for _, part := range []func() ([]string, error){processes, links, mounts, groups, traffic, files, knobs} {
		lines, err := part()
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	slices.Sort(all)
	return all, nil
}

func writeCensus(file string) error {
	lines, err := census()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// sameCensus fails with every difference to the file that is still there when the machine has settled.
func sameCensus(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	return within(settle, func() error {
		after, err := census()
		if err != nil {
			return err
		}
		if diff := difference(before, after); len(diff) > 0 {
			return fmt.Errorf("the machine is not as it was:\n%s", strings.Join(diff, "\n"))
		}
		return nil
	})
}

// crowd is the line of a census that was taken while somebody else's containers ran.
const crowd = "crowd"

// difference tells what came (+) and what went (-). In a crowd, files and cgroups count only with our nodes' name in them.
func difference(before, after []string) []string {
	if slices.Contains(before, crowd) || slices.Contains(after, crowd) {
		theirs := func(l string) bool {
			return l == crowd || (strings.HasPrefix(l, "file ") || strings.HasPrefix(l, "cgroup ")) && !strings.Contains(l, spaces)
		}
		before, after = slices.DeleteFunc(slices.Clone(before), theirs), slices.DeleteFunc(slices.Clone(after), theirs)
	}
	var diff []string
	for _, l := range after {
		if !slices.Contains(before, l) {
			diff = append(diff, "+ "+l)
		}
	}
	for _, l := range before {
		if !slices.Contains(after, l) {
			diff = append(diff, "- "+l)
		}
	}
	return diff
}

// runtimes are programs that start containers.
var runtimes = []string{"containerd", "containerd-shim-runc-v2", "crio", "dockerd", "kubelet"}

// processes are those that name the folder in their command or live in a node's cgroup.
func processes() ([]string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, d := range dirs {
		command, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		group, _ := os.ReadFile(filepath.Join(d, "cgroup")) // a process that has ended reads as nothing
		daemon := bytes.Contains(command, []byte(filepath.Join(out, "nodes")+"/")) || bytes.Contains(command, []byte(filepath.Join(out, "pki")+"/"))
		if daemon || bytes.Contains(group, []byte("/"+spaces)) {
			lines = append(lines, "process "+filepath.Base(d)+" "+strings.ReplaceAll(string(command), "\x00", " "))
			continue
		}
		if name, _, _ := bytes.Cut(command, []byte{0}); slices.Contains(runtimes, filepath.Base(string(name))) && !slices.Contains(lines, crowd) {
			lines = append(lines, crowd)
		}
	}
	return lines, nil
}

// links are the network's devices.
func links() ([]string, error) {
	return names("link", "/sys/class/net/*")
}

func names(what, pattern string) ([]string, error) {
	found, err := filepath.Glob(pattern)
	for i, f := range found {
		found[i] = what + " " + filepath.Base(f)
	}
	return found, err
}

// mounts are all of this mount namespace; named network namespaces are among them.
func mounts() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	var lines []string
	for l := range strings.Lines(string(data)) {
		if f := strings.Fields(l); len(f) > 4 {
			lines = append(lines, "mount "+f[4])
		}
	}
	return lines, err
}

// groups are the cgroups of every hierarchy, but for those beside this process's own where that is not at the root: whoever
// started it there starts and ends others too.
func groups() ([]string, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	lines, err := walk("cgroup", "/sys/fs/cgroup", func(d fs.DirEntry) bool { return d.IsDir() })
	return apart(lines, string(own)), err
}

// apart leaves out the groups in folders that hold a group of own, which is written as in /proc/<pid>/cgroup.
func apart(groups []string, own string) []string {
	for l := range strings.Lines(own) {
		if f := strings.SplitN(strings.TrimSpace(l), ":", 3); len(f) == 3 && path.Dir(f[2]) != "/" {
			groups = slices.DeleteFunc(groups, func(g string) bool { return strings.Contains(g, path.Dir(f[2])+"/") })
		}
	}
	return groups
}

// files are what lies where container runtimes, kubelets and their plugins keep things. Empty folders do not count.
func files() ([]string, error) {
	var lines []string
	for _, root := range []string{
		"/run", "/dev/shm", "/etc/cni", "/etc/kubernetes", "/var/lib/cni", "/var/lib/containerd", "/var/lib/etcd", "/var/lib/kubelet",
		"/var/log/containers", "/var/log/pods",
	} {
		found, err := walk("file", root, func(d fs.DirEntry) bool { return !d.IsDir() })
		if err != nil {
			return nil, err
		}
		lines = append(lines, found...)
	}
	return lines, nil
}

func walk(what, root string, counts func(fs.DirEntry) bool) ([]string, error) {
	var lines []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone since it was listed
		case err != nil:
			return err
		case counts(d):
			lines = append(lines, what+" "+path)
		}
		return nil
	})
	return lines, err
}

// passing is what changes in tables by itself: counters, times to live.
var passing = regexp.MustCompile(`\[\d+:\d+\]|expires \d+sec|counter packets \d+ bytes \d+`)

// traffic is what steers packets: routes, their rules, and the tables of both iptables and of nftables.
func traffic() ([]string, error) {
	var lines []string
	for _, command := range []string{
		"ip route show table all", "ip -6 route show table all", "ip rule", "ip -6 rule",
		"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save", "nft list ruleset",
	} {
		words := strings.Fields(command)
		if _, err := exec.LookPath(words[0]); err != nil {
			continue
		}
		text, err := exec.Command(words[0], words[1:]...).Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", command, err)
		}
		for l := range strings.Lines(string(text)) {
			l = strings.TrimSpace(passing.ReplaceAllString(l, ""))
			// Tables and chains that the kernel has from the start come into sight once somebody looks at them.
			if l == "" || strings.HasPrefix(l, "#") || strings.HasPrefix(l, "*") || l == "COMMIT" || strings.HasSuffix(l, " ACCEPT") && strings.HasPrefix(l, ":") {
				continue
			}
			lines = append(lines, words[0]+" "+l)
		}
	}
	return lines, nil
}

// knobs are the kernel's settings that daemons turn.
func knobs() ([]string, error) {
	var lines []string
	for _, pattern := range []string{
		"net/ipv4/ip_forward", "net/ipv4/conf/all/*", "net/ipv4/conf/default/*", "net/ipv6/conf/all/forwarding", "net/bridge/*",
		"net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_tcp_*", "vm/overcommit_memory", "vm/panic_on_oom",
		"kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_max*", "fs/inotify/*",
	} {
		found, err := filepath.Glob("/proc/sys/" + pattern)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if value, err := os.ReadFile(f); err == nil { // some can only be written
				lines = append(lines, "sysctl "+f+" "+strings.TrimSpace(string(value)))
			}
		}
	}
	return lines, nil
}
