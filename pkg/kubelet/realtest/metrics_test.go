package realtest

import (
	"context"
	"strings"
	"testing"
)

// cadvisorNames are what dashboards ask of containers, beside what TestUsage reads.
const cadvisorNames = `container_cpu_usage_seconds_total container_cpu_user_seconds_total container_cpu_system_seconds_total container_cpu_cfs_periods_total
container_cpu_cfs_throttled_periods_total container_cpu_cfs_throttled_seconds_total container_spec_cpu_period container_spec_cpu_quota container_spec_cpu_shares
container_memory_working_set_bytes container_memory_usage_bytes container_memory_rss container_memory_cache container_memory_max_usage_bytes
container_memory_failcnt container_memory_failures_total container_memory_mapped_file container_spec_memory_limit_bytes
container_processes container_threads container_file_descriptors container_start_time_seconds container_last_seen`

// podNames are told of a pod's network.
const podNames = `container_network_receive_bytes_total container_network_receive_packets_total container_network_receive_packets_dropped_total
container_network_receive_errors_total container_network_transmit_bytes_total container_network_transmit_packets_total container_network_transmit_packets_dropped_total
container_network_transmit_errors_total`

// TestMetrics reads the kubelet's metrics as Prometheus does: what has happened is counted.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `{containers: [{name: c, command: [sleep, "600"], resources: {limits: {cpu: 200m, memory: 32Mi}}, readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}}]}`)
	s.ready("p")
	read := func(path string) string {
		raw, err := node.admin.CoreV1().RESTClient().Get().Resource("nodes").Name(nodeName).SubResource("proxy").Suffix(path).DoRaw(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	has := func(text, family string, labels ...string) {
		t.Helper()
		for _, line := range strings.Split(text, "\n") {
			rest, ok := strings.CutPrefix(line, family)
			if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
				continue
			}
			all := true
			for _, l := range labels {
				all = all && strings.Contains(rest, l)
			}
			if all {
				return
			}
		}
		t.Errorf("no %s %v", family, labels)
	}
	pod := []string{`namespace="` + s.name + `"`, `pod="p"`}
	cadvisor := read("metrics/cadvisor")
	for _, name := range strings.Fields(cadvisorNames) {
		has(cadvisor, name, append(pod, `container="c"`, `image="`+image+`"`)...)
	}
	for _, name := range strings.Fields(podNames) {
		has(cadvisor, name, append(pod, `interface="eth0"`)...)
	}
	for _, name := range []string{"machine_cpu_cores", "machine_memory_bytes", "machine_swap_bytes"} {
		has(cadvisor, name, `boot_id="`)
	}
	probes := read("metrics/probes")
	has(probes, "prober_probe_total", append(pod, `container="c"`, `probe_type="Readiness"`, `result="successful"`)...)
	has(probes, "prober_probe_duration_seconds_count", pod...)
	own := read("metrics")
	for _, name := range []string{"kubelet_running_pods", "kubelet_pleg_relist_duration_seconds_count", "kubelet_pod_start_sli_duration_seconds_count", "kubelet_node_startup_duration_seconds",
		"kubelet_started_pods_total", "process_resident_memory_bytes", "go_goroutines", "kubelet_pod_status_sync_duration_seconds_count", "kubelet_containers_per_pod_count_count"} {
		has(own, name)
	}
	has(own, "kubelet_runtime_operations_total", `operation_type="run_podsandbox"`)
	has(own, "kubelet_runtime_operations_duration_seconds_bucket", `operation_type="start_container"`)
	has(own, "kubelet_started_containers_total", `container_type="container"`)
	has(own, "kubelet_pod_worker_duration_seconds_count", `operation_type="create"`)
	has(own, "kubelet_cgroup_manager_duration_seconds_count", `operation_type="create"`)
	has(own, "kubelet_running_containers", `container_state="running"`)
	has(own, "kubelet_http_requests_total", `path="metrics/cadvisor"`, `long_running="false"`)
	has(own, "rest_client_requests_total", `code="200"`)
	has(own, "kubelet_active_pods", `static=""`)
}
