package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

func loadPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(pem)
	return p, nil
}

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	list, err := s.containerStats(r.Context())
	if err != nil {
		http.Error(w, cri.Text(err), http.StatusInternalServerError)
		return
	}
	cpu, mem := nodeUsage()
	now := metav1.Now()
	out := stats.Summary{Node: stats.NodeStats{NodeName: s.cfg.NodeName, StartTime: metav1.NewTime(bootTime()),
		CPU: &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &cpu}, Memory: &stats.MemoryStats{Time: now, WorkingSetBytes: &mem, UsageBytes: &mem}}, Pods: []stats.PodStats{}}
	for _, p := range s.cfg.Pods.Pods() {
		ps := stats.PodStats{PodRef: stats.PodReference{Name: p.Name, Namespace: p.Namespace, UID: string(p.UID)}, Containers: []stats.ContainerStats{}}
		if p.Status.StartTime != nil {
			ps.StartTime = *p.Status.StartTime
		}
		var cpuSum, memSum uint64
		for _, c := range list[string(p.UID)] {
			one := stats.ContainerStats{Name: c.Attributes.Labels[cri.LabelContainerName], StartTime: ps.StartTime}
			if c.Cpu != nil {
				n := c.Cpu.GetUsageCoreNanoSeconds().GetValue()
				cpuSum += n
				one.CPU = &stats.CPUStats{Time: metav1.NewTime(time.Unix(0, c.Cpu.Timestamp)), UsageCoreNanoSeconds: &n}
				if v := c.Cpu.UsageNanoCores; v != nil {
					one.CPU.UsageNanoCores = &v.Value
				}
			}
			if c.Memory != nil {
				n := c.Memory.GetWorkingSetBytes().GetValue()
				memSum += n
				one.Memory = &stats.MemoryStats{Time: metav1.NewTime(time.Unix(0, c.Memory.Timestamp)), WorkingSetBytes: &n}
			}
			ps.Containers = append(ps.Containers, one)
		}
		ps.CPU = &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &cpuSum}
		ps.Memory = &stats.MemoryStats{Time: now, WorkingSetBytes: &memSum}
		out.Pods = append(out.Pods, ps)
	}
	answer(w, out)
}

// containerStats is the runtime's figures by pod UID.
func (s *Server) containerStats(ctx context.Context) (map[string][]*runtimeapi.ContainerStats, error) {
	r, err := s.cfg.CRI.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
	if err != nil {
		return nil, err
	}
	out := map[string][]*runtimeapi.ContainerStats{}
	for _, c := range r.Stats {
		uid := c.GetAttributes().GetLabels()[cri.LabelPodUID]
		out[uid] = append(out[uid], c)
	}
	return out, nil
}

// nodeUsage is the machine's CPU time, ns, and memory in use, bytes.
func nodeUsage() (cpu, mem uint64) {
	if raw, err := os.ReadFile("/proc/stat"); err == nil {
		var user, nice, system, idle, io, irq, soft, steal uint64
		_, _ = fmt.Sscanf(string(raw), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &io, &irq, &soft, &steal)
		cpu = (user + nice + system + irq + soft + steal) * 10_000_000
	}
	if raw, err := os.ReadFile("/proc/meminfo"); err == nil {
		var total, free uint64
		for _, l := range strings.Split(string(raw), "\n") {
			_, _ = fmt.Sscanf(l, "MemTotal: %d", &total)
			_, _ = fmt.Sscanf(l, "MemAvailable: %d", &free)
		}
		mem = (total - free) << 10
	}
	return cpu, mem
}

func bootTime() time.Time {
	raw, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}
	}
	var up float64
	_, _ = fmt.Sscanf(string(raw), "%f", &up)
	return time.Now().Add(-time.Duration(up * float64(time.Second))).Truncate(time.Second)
}

func (s *Server) resourceMetrics(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	cpu, mem := nodeUsage()
	fmt.Fprintf(w, "# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total %g\n# TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes %d\n", float64(cpu)/1e9, mem)
	s.perContainer(w, r, "container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
}

func (s *Server) cadvisorMetrics(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	s.perContainer(w, r, "container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
}

func (s *Server) perContainer(w http.ResponseWriter, r *http.Request, cpuName, memName string) {
	list, err := s.containerStats(r.Context())
	if err != nil {
		fmt.Fprintln(w, "# TYPE resource_scrape_error gauge\nresource_scrape_error 1")
		return
	}
	var cpu, mem strings.Builder
	for _, cs := range list {
		for _, c := range cs {
			l := c.Attributes.Labels
			labels := fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", l[cri.LabelContainerName], l[cri.LabelPodNamespace], l[cri.LabelPodName])
			if c.Cpu != nil {
				fmt.Fprintf(&cpu, "%s%s %g\n", cpuName, labels, float64(c.Cpu.GetUsageCoreNanoSeconds().GetValue())/1e9)
			}
			if c.Memory != nil {
				fmt.Fprintf(&mem, "%s%s %d\n", memName, labels, c.Memory.GetWorkingSetBytes().GetValue())
			}
		}
	}
	fmt.Fprintf(w, "# TYPE %s counter\n%s# TYPE %s gauge\n%s# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n", cpuName, cpu.String(), memName, mem.String())
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	running, containers := 0, 0
	for _, p := range s.cfg.Pods.Pods() {
		if p.Status.Phase == v1.PodRunning {
			running++
		}
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Running != nil {
				containers++
			}
		}
	}
	fmt.Fprintf(w, "# TYPE kubelet_running_pods gauge\nkubelet_running_pods %d\n", running)
	fmt.Fprintf(w, "# TYPE kubelet_running_containers gauge\nkubelet_running_containers{container_state=\"running\"} %d\n", containers)
	fmt.Fprintf(w, "# TYPE kubelet_node_name gauge\nkubelet_node_name{node=%q} 1\n", s.cfg.NodeName)
	fmt.Fprintf(w, "# TYPE kubernetes_build_info gauge\nkubernetes_build_info{git_version=%q,go_version=%q,platform=\"linux/%s\"} 1\n", s.cfg.Version, runtime.Version(), runtime.GOARCH)
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	fmt.Fprintf(w, "# TYPE go_goroutines gauge\ngo_goroutines %d\n# TYPE go_memstats_heap_alloc_bytes gauge\ngo_memstats_heap_alloc_bytes %d\n", runtime.NumGoroutine(), sample[0].Value.Uint64())
}
