package usage

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Figure is one number of a cgroup, by the name under which it is known.
type Figure struct {
	Name  string
	Value float64
	// Labels are more than those of its container, names and values by turns.
	Labels []string
}

// Counters reads what the runtime does not tell from a cgroup's own files: at is its folder under a controller of version 1, or on
// version 2 always the same. What a kernel does not count is left out.
func Counters(at func(controller string) string, v2 bool) []Figure {
	r := reading{at: at}
	if v2 {
		r.unified()
	} else {
		r.hierarchies()
	}
	pids := strings.Fields(r.text("cpu", "cgroup.procs"))
	r.add("container_processes", float64(len(pids)))
	if n, ok := r.number("pids", "pids.current"); ok {
		r.add("container_threads", n)
	}
	if n, ok := r.number("pids", "pids.max"); ok {
		r.add("container_threads_max", n)
	} else {
		r.add("container_threads_max", 0) // any number
	}
	open := 0
	for _, pid := range pids {
		if names, err := os.ReadDir("/proc/" + pid + "/fd"); err == nil {
			open += len(names)
		}
	}
	r.add("container_file_descriptors", float64(open))
	return r.out
}

type reading struct {
	at  func(string) string
	out []Figure
}

func (r *reading) add(name string, v float64, labels ...string) {
	r.out = append(r.out, Figure{name, v, labels})
}

func (r *reading) text(controller, file string) string {
	raw, err := os.ReadFile(filepath.Join(r.at(controller), file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func (r *reading) number(controller, file string) (float64, bool) {
	n, err := strconv.ParseFloat(r.text(controller, file), 64)
	return n, err == nil
}

// table reads lines of a name and a number.
func (r *reading) table(controller, file string) map[string]float64 {
	out := map[string]float64{}
	for _, line := range strings.Split(r.text(controller, file), "\n") {
		name, text, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			out[name] = n
		}
	}
	return out
}

// copied tells the numbers of a table which are there, each times so much.
func (r *reading) copied(from map[string]float64, times float64, names ...string) {
	for i := 0; i+1 < len(names); i += 2 {
		if v, ok := from[names[i+1]]; ok {
			r.add(names[i], v*times)
		}
	}
}

// faults tells page faults, of the cgroup alone and with all below it.
func (r *reading) faults(from map[string]float64, own, all string) {
	for kind, name := range map[string]string{"pgfault": "pgfault", "pgmajfault": "pgmajfault"} {
		if v, ok := from[own+name]; ok {
			r.add("container_memory_failures_total", v, "failure_type", kind, "scope", "container")
		}
		if v, ok := from[all+name]; ok {
			r.add("container_memory_failures_total", v, "failure_type", kind, "scope", "hierarchy")
		}
	}
}

// most is the size from which a limit of memory is none.
const most = float64(1 << 62)

func (r *reading) hierarchies() {
	const tick = 1.0 / 100
	r.copied(r.table("cpuacct", "cpuacct.stat"), tick, "container_cpu_user_seconds_total", "user", "container_cpu_system_seconds_total", "system")
	held := r.table("cpu", "cpu.stat")
	if quota, ok := r.number("cpu", "cpu.cfs_quota_us"); ok && quota > 0 {
		r.add("container_spec_cpu_quota", quota)
		r.copied(held, 1, "container_cpu_cfs_periods_total", "nr_periods", "container_cpu_cfs_throttled_periods_total", "nr_throttled")
		r.copied(held, 1e-9, "container_cpu_cfs_throttled_seconds_total", "throttled_time")
	}
	for name, file := range map[string]string{"container_spec_cpu_period": "cpu.cfs_period_us", "container_spec_cpu_shares": "cpu.shares"} {
		if n, ok := r.number("cpu", file); ok {
			r.add(name, n)
		}
	}
	m := r.table("memory", "memory.stat")
	r.copied(m, 1, "container_memory_cache", "total_cache", "container_memory_rss", "total_rss", "container_memory_mapped_file", "total_mapped_file", "container_memory_swap", "total_swap",
		"container_memory_total_active_file_bytes", "total_active_file", "container_memory_total_inactive_file_bytes", "total_inactive_file")
	r.faults(m, "", "total_")
	for name, file := range map[string]string{"container_memory_max_usage_bytes": "memory.max_usage_in_bytes", "container_memory_failcnt": "memory.failcnt",
		"container_memory_kernel_usage": "memory.kmem.usage_in_bytes", "container_spec_memory_limit_bytes": "memory.limit_in_bytes",
		"container_spec_memory_reservation_limit_bytes": "memory.soft_limit_in_bytes", "container_spec_memory_swap_limit_bytes": "memory.memsw.limit_in_bytes"} {
		if n, ok := r.number("memory", file); ok {
			if n >= most {
				n = 0
			}
			r.add(name, n)
		}
	}
	if n, ok := r.table("memory", "memory.oom_control")["oom_kill"]; ok {
		r.add("container_oom_events_total", n)
	}
	for file, names := range map[string][2]string{"blkio.throttle.io_service_bytes": {"container_fs_reads_bytes_total", "container_fs_writes_bytes_total"},
		"blkio.throttle.io_serviced": {"container_fs_reads_total", "container_fs_writes_total"}} {
		for _, line := range strings.Split(r.text("blkio", file), "\n") {
			// <major>:<minor> Read <number>
			w := strings.Fields(line)
			if len(w) != 3 || w[1] != "Read" && w[1] != "Write" {
				continue
			}
			if n, err := strconv.ParseFloat(w[2], 64); err == nil {
				r.add(names[map[string]int{"Read": 0, "Write": 1}[w[1]]], n, "device", device(w[0]))
			}
		}
	}
}

func (r *reading) unified() {
	c := r.table("", "cpu.stat")
	r.copied(c, 1e-6, "container_cpu_user_seconds_total", "user_usec", "container_cpu_system_seconds_total", "system_usec")
	if quota, period, ok := strings.Cut(r.text("", "cpu.max"), " "); ok {
		if n, err := strconv.ParseFloat(quota, 64); err == nil {
			r.add("container_spec_cpu_quota", n)
			r.copied(c, 1, "container_cpu_cfs_periods_total", "nr_periods", "container_cpu_cfs_throttled_periods_total", "nr_throttled")
			r.copied(c, 1e-6, "container_cpu_cfs_throttled_seconds_total", "throttled_usec")
		}
		if n, err := strconv.ParseFloat(period, 64); err == nil {
			r.add("container_spec_cpu_period", n)
		}
	}
	if n, ok := r.number("", "cpu.weight"); ok {
		// The inverse of how shares become a weight.
		r.add("container_spec_cpu_shares", 2+(n-1)*262142/9999)
	}
	m := r.table("", "memory.stat")
	r.copied(m, 1, "container_memory_cache", "file", "container_memory_rss", "anon", "container_memory_mapped_file", "file_mapped", "container_memory_kernel_usage", "kernel",
		"container_memory_total_active_file_bytes", "active_file", "container_memory_total_inactive_file_bytes", "inactive_file")
	r.faults(m, "", "")
	for name, file := range map[string]string{"container_memory_max_usage_bytes": "memory.peak", "container_memory_swap": "memory.swap.current", "container_spec_memory_limit_bytes": "memory.max",
		"container_spec_memory_reservation_limit_bytes": "memory.low", "container_spec_memory_swap_limit_bytes": "memory.swap.max"} {
		if n, ok := r.number("", file); ok {
			r.add(name, n)
		} else if strings.HasPrefix(name, "container_spec_") && r.text("", file) == "max" {
			r.add(name, 0)
		}
	}
	events := r.table("", "memory.events")
	r.copied(events, 1, "container_memory_failcnt", "max", "container_oom_events_total", "oom_kill")
	for _, line := range strings.Split(r.text("", "io.stat"), "\n") {
		// <major>:<minor> rbytes=1 wbytes=2 rios=3 wios=4
		w := strings.Fields(line)
		if len(w) < 2 {
			continue
		}
		for _, pair := range w[1:] {
			name, text, _ := strings.Cut(pair, "=")
			n, err := strconv.ParseFloat(text, 64)
			known := map[string]string{"rbytes": "container_fs_reads_bytes_total", "wbytes": "container_fs_writes_bytes_total", "rios": "container_fs_reads_total", "wios": "container_fs_writes_total"}[name]
			if known != "" && err == nil {
				r.add(known, n, "device", device(w[0]))
			}
		}
	}
}

// device is the name of one by its numbers.
func device(numbers string) string {
	text, err := os.ReadFile("/sys/dev/block/" + numbers + "/uevent")
	if err == nil {
		for _, line := range strings.Split(string(text), "\n") {
			if name, ok := strings.CutPrefix(line, "DEVNAME="); ok {
				return "/dev/" + name
			}
		}
	}
	return numbers
}

// Packets reads the network of a process: by interface, received and sent packets and those that were dropped.
func Packets(pid string) []Figure {
	raw, err := os.ReadFile("/proc/" + pid + "/net/dev")
	if err != nil {
		return nil
	}
	r := reading{}
	for _, line := range strings.Split(string(raw), "\n") {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 12 || name == "lo" {
			continue
		}
		for i, family := range map[int]string{0: "receive_bytes", 1: "receive_packets", 2: "receive_errors", 3: "receive_packets_dropped",
			8: "transmit_bytes", 9: "transmit_packets", 10: "transmit_errors", 11: "transmit_packets_dropped"} {
			if n, err := strconv.ParseFloat(f[i], 64); err == nil {
				r.add("container_network_"+family+"_total", n, "interface", name)
			}
		}
	}
	return r.out
}
