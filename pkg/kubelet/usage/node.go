package usage

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"golang.org/x/sys/unix"
)

// node is the machine's own figures.
func (r *Reader) node() stats.NodeStats {
	now := metav1.Now()
	out := stats.NodeStats{NodeName: r.cfg.NodeName, StartTime: metav1.NewTime(Booted())}
	if used, ok := processorTime(); ok {
		out.CPU = &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &used, UsageNanoCores: r.rate("", now.Time, used)}
	}
	if m := Memory(); m["MemTotal"] > 0 {
		working, usage, free, anon := m["MemTotal"]-m["MemAvailable"], m["MemTotal"]-m["MemFree"], m["MemAvailable"], m["AnonPages"]
		out.Memory = &stats.MemoryStats{Time: now, AvailableBytes: &free, UsageBytes: &usage, WorkingSetBytes: &working, RSSBytes: &anon}
		left, used := m["SwapFree"], m["SwapTotal"]-m["SwapFree"]
		out.Swap = &stats.SwapStats{Time: now, SwapAvailableBytes: &left, SwapUsageBytes: &used}
	}
	out.Network = interfaces(now)
	if most, running, ok := Processes(); ok {
		out.Rlimit = &stats.RlimitStats{Time: now, MaxPID: &most, NumOfRunningProcesses: &running}
	}
	return out
}

// Memory is /proc/meminfo, bytes by name.
func Memory() map[string]uint64 {
	out := map[string]uint64{}
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return out
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		w := strings.Fields(s.Text())
		if len(w) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(w[1], 10, 64); err == nil {
			out[strings.TrimSuffix(w[0], ":")] = n << 10
		}
	}
	return out
}

// Processes are how many there may be, and how many there are.
func Processes() (most, running int64, ok bool) {
	raw, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return 0, 0, false
	}
	most, err = strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	var info unix.Sysinfo_t
	if err != nil || unix.Sysinfo(&info) != nil {
		return 0, 0, false
	}
	return most, int64(info.Procs), true
}

// processorTime is what all processors worked since boot, ns.
func processorTime() (uint64, bool) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	var user, nice, system, idle, io, irq, soft, steal uint64
	if _, err := fmt.Sscanf(string(raw), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &io, &irq, &soft, &steal); err != nil {
		return 0, false
	}
	return (user + nice + system + irq + soft + steal) * 10_000_000, true
}

func Booted() time.Time {
	raw, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}
	}
	var up float64
	if _, err := fmt.Sscanf(string(raw), "%f", &up); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(up * float64(time.Second))).Truncate(time.Second)
}

// interfaces are the node's, but for the loopback and the ends of pods' cables.
func interfaces(now metav1.Time) *stats.NetworkStats {
	raw, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return nil
	}
	first := defaultInterface()
	out := &stats.NetworkStats{Time: now}
	for _, line := range strings.Split(string(raw), "\n") {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 11 || name == "lo" || strings.HasPrefix(name, "veth") {
			continue
		}
		n := func(i int) *uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return &v }
		i := stats.InterfaceStats{Name: name, RxBytes: n(0), RxErrors: n(2), TxBytes: n(8), TxErrors: n(10)}
		if name == first {
			out.InterfaceStats = i
		}
		out.Interfaces = append(out.Interfaces, i)
	}
	return out
}

// defaultInterface is the one of the default route.
func defaultInterface() string {
	raw, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return ""
	}
	for _, line := range strings.Split(string(raw), "\n")[1:] {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "00000000" {
			return f[0]
		}
	}
	return ""
}

// imageFs is the disk images lie on.
func (r *Reader) imageFs(ctx context.Context) *stats.FsStats {
	info, err := r.cfg.CRI.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(info.ImageFilesystems) == 0 {
		return nil
	}
	f := info.ImageFilesystems[0]
	out := disk(f.GetFsId().GetMountpoint())
	if out == nil {
		return nil
	}
	out.UsedBytes, out.InodesUsed = number(f.UsedBytes), number(f.InodesUsed)
	return out
}

// disk is the file system a path lies on, nil when it cannot be read.
func disk(path string) *stats.FsStats {
	var s unix.Statfs_t
	if path == "" || unix.Statfs(path, &s) != nil {
		return nil
	}
	size := uint64(s.Bsize)
	free, total, used := s.Bavail*size, s.Blocks*size, (s.Blocks-s.Bfree)*size
	inodes, inodesFree, inodesUsed := s.Files, s.Ffree, s.Files-s.Ffree
	return &stats.FsStats{Time: metav1.Now(), AvailableBytes: &free, CapacityBytes: &total, UsedBytes: &used, Inodes: &inodes, InodesFree: &inodesFree, InodesUsed: &inodesUsed}
}

// walkAgain is how old a folder's measure may be.
const walkAgain = time.Minute

type walk struct {
	at            time.Time
	bytes, inodes uint64
}

// folder is what lies below a path, and the disk it lies on; nil when there is no such folder.
func (r *Reader) folder(path string) *stats.FsStats {
	out := disk(path)
	if out == nil {
		return nil
	}
	r.mu.Lock()
	w, ok := r.walks[path]
	r.mu.Unlock()
	if !ok || time.Since(w.at) > walkAgain {
		w = measure(path)
		r.mu.Lock()
		r.walks[path] = w
		r.mu.Unlock()
	}
	out.Time, out.UsedBytes, out.InodesUsed = metav1.NewTime(w.at), &w.bytes, &w.inodes
	return out
}

// Measure counts a folder anew.
func (r *Reader) Measure(path string) (bytes, inodes uint64) {
	w := measure(path)
	r.mu.Lock()
	r.walks[path] = w
	r.mu.Unlock()
	return w.bytes, w.inodes
}

// measure adds up what a folder's files take on the disk, each inode once, through no link and onto no other disk.
func measure(path string) walk {
	w := walk{at: time.Now()}
	seen := map[uint64]bool{}
	var dev uint64
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it went while we walked
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if w.inodes == 0 {
			dev = uint64(st.Dev)
		}
		if uint64(st.Dev) != dev {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if st.Nlink > 1 && !d.IsDir() {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		w.inodes++
		w.bytes += uint64(st.Blocks) * 512
		return nil
	})
	return w
}
