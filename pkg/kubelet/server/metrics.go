package server

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
	"github.com/sextant-k8s/sextant/pkg/kubelet/usage"
)

// families writes metrics in the text format, each family's samples together.
type families struct {
	order []string
	text  map[string]*strings.Builder
}

// add appends one sample; help and type are written with the first. A zero time is left out.
func (f *families) add(kind, name, help string, value float64, at time.Time, labels ...string) {
	b := f.text[name]
	if b == nil {
		b = &strings.Builder{}
		if f.text == nil {
			f.text = map[string]*strings.Builder{}
		}
		f.text[name] = b
		f.order = append(f.order, name)
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	b.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(labels[i])
		b.WriteByte('=')
		b.WriteString(strconv.Quote(labels[i+1]))
	}
	if len(labels) > 0 {
		b.WriteByte('}')
	}
	b.WriteByte(' ')
	b.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
	if !at.IsZero() {
		b.WriteByte(' ')
		b.WriteString(strconv.FormatInt(at.UnixMilli(), 10))
	}
	b.WriteByte('\n')
}

func (f *families) send(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	for _, n := range f.order {
		fmt.Fprint(w, f.text[n])
	}
}

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	only := flag(r.URL.Query(), "only_cpu_and_memory")
	out, err := s.cfg.Usage.Summary(r.Context(), !only)
	if err != nil {
		http.Error(w, cri.Text(err), http.StatusInternalServerError)
		return
	}
	answer(w, out)
}

// resourceMetrics is what autoscalers and `top` read.
func (s *Server) resourceMetrics(w http.ResponseWriter, r *http.Request) {
	var f families
	failed := 0.0
	sum, err := s.cfg.Usage.Summary(r.Context(), false)
	if err != nil {
		failed = 1
	} else {
		cpu := func(name, help string, c *stats.CPUStats, labels ...string) {
			if c != nil && c.UsageCoreNanoSeconds != nil {
				f.add("counter", name, "[STABLE] "+help, float64(*c.UsageCoreNanoSeconds)/1e9, c.Time.Time, labels...)
			}
		}
		mem := func(name, help string, m *stats.MemoryStats, labels ...string) {
			if m != nil && m.WorkingSetBytes != nil {
				f.add("gauge", name, "[STABLE] "+help, float64(*m.WorkingSetBytes), m.Time.Time, labels...)
			}
		}
		swap := func(name, help string, m *stats.SwapStats, labels ...string) {
			if m != nil && m.SwapUsageBytes != nil {
				f.add("gauge", name, "[ALPHA] "+help, float64(*m.SwapUsageBytes), m.Time.Time, labels...)
			}
		}
		for _, p := range sum.Pods {
			for _, c := range p.Containers {
				labels := []string{"container", c.Name, "namespace", p.PodRef.Namespace, "pod", p.PodRef.Name}
				cpu("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", c.CPU, labels...)
				mem("container_memory_working_set_bytes", "Current working set of the container in bytes", c.Memory, labels...)
				f.add("gauge", "container_start_time_seconds", "[STABLE] Start time of the container since unix epoch in seconds", float64(c.StartTime.UnixNano())/1e9, time.Time{}, labels...)
				swap("container_swap_usage_bytes", "Current amount of the container swap usage in bytes.", c.Swap, labels...)
			}
			labels := []string{"namespace", p.PodRef.Namespace, "pod", p.PodRef.Name}
			cpu("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", p.CPU, labels...)
			mem("pod_memory_working_set_bytes", "Current working set of the pod in bytes", p.Memory, labels...)
			swap("pod_swap_usage_bytes", "Current amount of the pod swap usage in bytes.", p.Swap, labels...)
		}
		cpu("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", sum.Node.CPU)
		mem("node_memory_working_set_bytes", "Current working set of the node in bytes", sum.Node.Memory)
		swap("node_swap_usage_bytes", "Current swap usage of the node in bytes.", sum.Node.Swap)
	}
	f.add("gauge", "resource_scrape_error", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise", failed, time.Time{})
	f.send(w)
}

// cadvisorMetrics are the same figures, and more of them, under the names dashboards know.
func (s *Server) cadvisorMetrics(w http.ResponseWriter, r *http.Request) {
	var f families
	failed := 0.0
	sum, err := s.cfg.Usage.Summary(r.Context(), false)
	if err != nil {
		failed = 1
	} else {
		s.cadvisorNode(&f, sum.Node)
		pods := map[string]*v1.Pod{}
		for _, p := range s.cfg.Pods.Pods() {
			pods[string(p.UID)] = p
		}
		for _, p := range sum.Pods {
			s.cadvisorPod(&f, p, pods[p.PodRef.UID])
		}
	}
	f.add("gauge", "container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", failed, time.Time{})
	f.send(w)
}

func (s *Server) cadvisorNode(f *families, n stats.NodeStats) {
	id := []string{"container", "", "id", "/", "image", "", "name", "", "namespace", "", "pod", ""}
	figures(f, n.CPU, n.Memory, id)
	m := s.cfg.System()
	machine := []string{"boot_id", m.BootID, "machine_id", m.MachineID, "system_uuid", m.SystemUUID}
	for name, v := range s.cfg.Machine() {
		f.add("gauge", name, "A figure of the machine.", v, time.Time{}, machine...)
	}
	f.add("gauge", "machine_scrape_error", "1 if there was an error while getting machine metrics, 0 otherwise.", 0, time.Time{})
	f.add("gauge", "cadvisor_version_info", "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.", 1, time.Time{},
		"cadvisorRevision", "", "cadvisorVersion", "", "dockerVersion", "", "kernelVersion", m.KernelVersion, "osVersion", m.OSImage)
}

// figures are the figures which nodes, pods and containers have alike; labels are in the order of their names.
func figures(f *families, c *stats.CPUStats, m *stats.MemoryStats, labels []string) {
	if c != nil && c.UsageCoreNanoSeconds != nil {
		with := append([]string{labels[0], labels[1], "cpu", "total"}, labels[2:]...)
		f.add("counter", "container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", float64(*c.UsageCoreNanoSeconds)/1e9, c.Time.Time, with...)
	}
	if m == nil {
		return
	}
	for _, g := range []struct {
		name, help string
		v          *uint64
	}{{"container_memory_working_set_bytes", "Current working set in bytes.", m.WorkingSetBytes}, {"container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", m.UsageBytes}} {
		if g.v != nil {
			f.add("gauge", g.name, g.help, float64(*g.v), m.Time.Time, labels...)
		}
	}
}

// counters tells the kernel's own figures of a cgroup, and of the network of what runs in it when that is asked for.
func (s *Server) counters(f *families, pod *v1.Pod, container string, network bool, labels []string) {
	if s.cfg.Cgroup == nil || pod == nil {
		return
	}
	at, v2 := s.cfg.Cgroup(pod, container)
	all := usage.Counters(at, v2)
	if network {
		text, err := os.ReadFile(filepath.Join(at("cpu"), "cgroup.procs"))
		if pid, _, ok := strings.Cut(string(text), "\n"); err == nil && ok {
			all = append(all, usage.Packets(pid)...)
		}
	}
	for _, g := range all {
		kind := "gauge"
		if strings.HasSuffix(g.Name, "_total") || g.Name == "container_memory_failcnt" {
			kind = "counter"
		}
		f.add(kind, g.Name, "By the kernel's count.", g.Value, time.Time{}, merged(labels, g.Labels)...)
	}
}

// merged are two lists of labels as one, in the order of their names.
func merged(a, b []string) []string {
	var out []string
	for len(a) > 1 || len(b) > 1 {
		if len(b) < 2 || len(a) > 1 && a[0] < b[0] {
			out, a = append(out, a[0], a[1]), a[2:]
		} else {
			out, b = append(out, b[0], b[1]), b[2:]
		}
	}
	return out
}

func (s *Server) cadvisorPod(f *families, p stats.PodStats, pod *v1.Pod) {
	id := "/kubepods/pod" + p.PodRef.UID
	figures(f, p.CPU, p.Memory, []string{"container", "", "id", id, "image", "", "name", "", "namespace", p.PodRef.Namespace, "pod", p.PodRef.Name})
	if pod != nil && !pod.Spec.HostNetwork {
		if sandbox := s.cfg.Pods.SandboxID(p.PodRef.UID); sandbox != "" {
			s.counters(f, pod, sandbox, true, []string{"container", "", "id", id + "/" + sandbox, "image", "", "name", sandbox, "namespace", p.PodRef.Namespace, "pod", p.PodRef.Name})
		}
	}
	for _, c := range p.Containers {
		cid, image := "", ""
		if pod != nil {
			for _, cs := range append(append([]v1.ContainerStatus(nil), pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...) {
				if cs.Name == c.Name {
					_, cid, _ = strings.Cut(cs.ContainerID, "://")
					image = cs.Image
				}
			}
		}
		labels := []string{"container", c.Name, "id", id + "/" + cid, "image", image, "name", cid, "namespace", p.PodRef.Namespace, "pod", p.PodRef.Name}
		figures(f, c.CPU, c.Memory, labels)
		s.counters(f, pod, cid, false, labels)
		f.add("gauge", "container_start_time_seconds", "Start time of the container since unix epoch in seconds.", float64(c.StartTime.Unix()), time.Time{}, labels...)
		f.add("gauge", "container_last_seen", "Last time a container was seen by the exporter", float64(time.Now().Unix()), time.Time{}, labels...)
		if c.Rootfs != nil && c.Rootfs.UsedBytes != nil {
			with := append([]string{labels[0], labels[1], "device", ""}, labels[2:]...)
			f.add("gauge", "container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", float64(*c.Rootfs.UsedBytes), c.Rootfs.Time.Time, with...)
		}
	}
}
