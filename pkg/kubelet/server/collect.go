package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/certificate"
	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

// Gauges are figures of the node which the server is told when it is asked.
type Gauges struct {
	// MirrorPods are the API's stand-ins of static pods.
	MirrorPods int
	// ExclusiveCPUs belong to one container each; SharedMillicores are what the others share.
	ExclusiveCPUs    int
	SharedMillicores int64
	CgroupVersion    int
}

// collector reads off the kubelet what nobody counts.
type collector struct{ s *Server }

// gauges are its families, by name: their help and labels.
var gauges = map[string]struct {
	help   string
	labels []string
}{
	"kubelet_running_pods":                               {"Pods with a running sandbox.", nil},
	"kubelet_running_containers":                         {"Containers, by state.", []string{"container_state"}},
	"kubelet_desired_pods":                               {"Pods the kubelet is asked to run.", []string{"static"}},
	"kubelet_active_pods":                                {"Pods that have not ended.", []string{"static"}},
	"kubelet_mirror_pods":                                {"The API's stand-ins of static pods.", nil},
	"kubelet_working_pods":                               {"Pods the kubelet works on.", []string{"lifecycle", "config", "static"}},
	"kubelet_managed_ephemeral_containers":               {"Ephemeral containers of pods here.", nil},
	"kubelet_pod_in_progress_resizes":                    {"Pods whose change of size is being carried out.", nil},
	"kubelet_cpu_manager_exclusive_cpu_allocation_count": {"CPUs that belong to one container each.", nil},
	"kubelet_cpu_manager_shared_pool_size_millicores":    {"CPUs that containers share.", nil},
	"kubelet_cgroup_version":                             {"The version of cgroups on this machine.", nil},
	"kubelet_certificate_manager_client_ttl_seconds":     {"How long the client certificate is still good for.", nil},
	"kubelet_certificate_manager_server_ttl_seconds":     {"How long the serving certificate is still good for.", nil},
	"kubelet_container_log_filesystem_used_bytes":        {"What a container's logs take on the disk.", []string{"uid", "namespace", "pod", "container"}},
	"kubelet_volume_stats_capacity_bytes":                {"Size of a claimed volume.", claimLabels},
	"kubelet_volume_stats_available_bytes":               {"What is left of a claimed volume.", claimLabels},
	"kubelet_volume_stats_used_bytes":                    {"What is used of a claimed volume.", claimLabels},
	"kubelet_volume_stats_inodes":                        {"Inodes of a claimed volume.", claimLabels},
	"kubelet_volume_stats_inodes_free":                   {"Free inodes of a claimed volume.", claimLabels},
	"kubelet_volume_stats_inodes_used":                   {"Used inodes of a claimed volume.", claimLabels},
	"volume_manager_total_volumes":                       {"Volumes of pods here.", []string{"plugin_name", "state"}},
}

var claimLabels = []string{"namespace", "persistentvolumeclaim"}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for name, g := range gauges {
		out <- prometheus.NewDesc(name, g.help, g.labels, nil)
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	done := map[string]bool{}
	put := func(name string, v float64, labels ...string) {
		// A container that is being restarted is there twice; one metric too many would spoil the whole scrape.
		key := name + "\x00" + strings.Join(labels, "\x00")
		if done[key] {
			return
		}
		done[key] = true
		g := gauges[name]
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, g.help, g.labels, nil), prometheus.GaugeValue, v, labels...)
	}
	pods := c.s.cfg.Pods.Pods()
	c.pods(pods, put)
	g := c.s.cfg.Gauges()
	put("kubelet_mirror_pods", float64(g.MirrorPods))
	put("kubelet_cpu_manager_exclusive_cpu_allocation_count", float64(g.ExclusiveCPUs))
	put("kubelet_cpu_manager_shared_pool_size_millicores", float64(g.SharedMillicores))
	put("kubelet_cgroup_version", float64(g.CgroupVersion))
	for name, file := range map[string]string{"client": "kubelet-client", "server": "kubelet-server"} {
		if left, ok := lasts(certificate.Current(c.s.cfg.CertDir, file)); ok {
			put("kubelet_certificate_manager_"+name+"_ttl_seconds", left.Seconds())
		}
	}
	c.disks(put)
}

// lasts is how long the certificate in a file is still good for.
func lasts(path string) (time.Duration, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if cert, err := x509.ParseCertificate(block.Bytes); block.Type == "CERTIFICATE" && err == nil {
			return time.Until(cert.NotAfter), true
		}
	}
	return 0, false
}

func (c collector) pods(pods []*v1.Pod, put func(string, float64, ...string)) {
	running, debuggers, resizing := 0, 0, 0
	states := map[string]int{"running": 0, "exited": 0}
	desired, active := map[bool]int{}, map[bool]int{}
	working, volumes := map[[3]string]int{}, map[string]int{}
	for _, p := range pods {
		source := p.Annotations["kubernetes.io/config.source"]
		static := source != "" && source != "api"
		ended := p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
		stage, config := "sync", "desired"
		switch {
		case ended:
			stage = "terminated"
		case p.DeletionTimestamp != nil:
			stage = "terminating"
		}
		if source == "runtime" {
			stage, config = "terminating", "runtime_only"
			static = false
		} else {
			desired[static]++
		}
		working[[3]string{stage, config, map[bool]string{true: "true", false: ""}[static]}]++
		if !ended {
			active[static]++
		}
		if c.s.cfg.Pods.SandboxID(string(p.UID)) != "" {
			running++
		}
		debuggers += len(p.Spec.EphemeralContainers)
		for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
			for _, k := range list {
				switch {
				case k.State.Running != nil:
					states["running"]++
				case k.State.Terminated != nil:
					states["exited"]++
				case k.ContainerID == "" && k.State.Waiting != nil && k.State.Waiting.Reason == "CreateContainerError":
					states["created"]++
				}
			}
		}
		for _, cond := range p.Status.Conditions {
			if cond.Type == v1.PodResizeInProgress {
				resizing++
			}
		}
		for i := range p.Spec.Volumes {
			volumes[metrics.Plugin(&p.Spec.Volumes[i])]++
		}
	}
	put("kubelet_running_pods", float64(running))
	put("kubelet_managed_ephemeral_containers", float64(debuggers))
	put("kubelet_pod_in_progress_resizes", float64(resizing))
	for state, n := range states {
		put("kubelet_running_containers", float64(n), state)
	}
	for _, static := range []bool{false, true} {
		text := map[bool]string{true: "true", false: ""}[static]
		put("kubelet_desired_pods", float64(desired[static]), text)
		put("kubelet_active_pods", float64(active[static]), text)
	}
	for _, stage := range []string{"sync", "terminating", "terminated"} {
		for _, config := range []string{"desired", "runtime_only"} {
			for _, static := range []string{"", "true"} {
				put("kubelet_working_pods", float64(working[[3]string{stage, config, static}]), stage, config, static)
			}
		}
	}
	for name, n := range volumes {
		// What a pod here names is made before it starts: both worlds are one.
		put("volume_manager_total_volumes", float64(n), name, "desired_state_of_world")
		put("volume_manager_total_volumes", float64(n), name, "actual_state_of_world")
	}
}

// disks tells of claimed volumes, and of logs.
func (c collector) disks(put func(string, float64, ...string)) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	sum, err := c.s.cfg.Usage.Summary(ctx, true)
	if err != nil {
		return
	}
	told := map[string]bool{}
	for _, p := range sum.Pods {
		for _, k := range p.Containers {
			if k.Logs != nil && k.Logs.UsedBytes != nil {
				put("kubelet_container_log_filesystem_used_bytes", float64(*k.Logs.UsedBytes), p.PodRef.UID, p.PodRef.Namespace, p.PodRef.Name, k.Name)
			}
		}
		for _, v := range p.VolumeStats {
			if v.PVCRef == nil || told[v.PVCRef.Namespace+"/"+v.PVCRef.Name] {
				continue
			}
			told[v.PVCRef.Namespace+"/"+v.PVCRef.Name] = true
			for name, n := range map[string]*uint64{"capacity_bytes": v.CapacityBytes, "available_bytes": v.AvailableBytes, "used_bytes": v.UsedBytes,
				"inodes": v.Inodes, "inodes_free": v.InodesFree, "inodes_used": v.InodesUsed} {
				if n != nil {
					put("kubelet_volume_stats_"+name, float64(*n), v.PVCRef.Namespace, v.PVCRef.Name)
				}
			}
		}
	}
}

// asked is the path a request is counted under.
func asked(path string) (name string, long bool) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "metrics":
		second, _, _ := strings.Cut(rest, "/")
		switch second {
		case "":
			return "metrics", false
		case "cadvisor", "probes", "resource":
			return "metrics/" + second, false
		}
	case "exec", "attach", "portForward", "debug":
		return first, true
	case "containerLogs", "pods", "runningpods", "stats", "configz", "healthz", "logs", "run", "checkpoint":
		return first, false
	}
	return "other", false
}

// streamed is what a stream is counted under.
func streamed(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return strings.ToLower(first)
}
