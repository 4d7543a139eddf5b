package realtest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// ask reads a path of the kubelet through the apiserver, as metrics servers do.
func (m *machine) ask(path string) (string, error) {
	raw, err := m.admin.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/" + nodeName + "/proxy" + path).DoRaw(context.Background())
	return string(raw), err
}

func TestUsage(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `{volumes: [{name: v, emptyDir: {}}], containers: [{name: c, command: [sh, -c, "dd if=/dev/zero of=/v/x bs=1M count=3; while true; do :; done"], resources: {limits: {cpu: 100m}, requests: {cpu: 1m}}, volumeMounts: [{name: v, mountPath: /v}]}]}`)
	s.ready("p")
	var sum stats.Summary
	err := within(patience, func() error {
		raw, err := node.ask("/stats/summary")
		if err == nil {
			err = json.Unmarshal([]byte(raw), &sum)
		}
		if err != nil {
			return err
		}
		for _, p := range sum.Pods {
			if p.PodRef.Namespace != s.name {
				continue
			}
			if len(p.Containers) != 1 || p.Containers[0].CPU == nil || p.Containers[0].CPU.UsageNanoCores == nil || *p.Containers[0].CPU.UsageNanoCores == 0 ||
				p.Memory == nil || *p.Memory.WorkingSetBytes == 0 || p.Network == nil || p.EphemeralStorage == nil || *p.EphemeralStorage.UsedBytes < 3<<20 || len(p.VolumeStats) != 1 {
				return fmt.Errorf("pod: %s", raw)
			}
			return nil
		}
		return fmt.Errorf("the pod is not in %s", raw)
	})
	if err != nil {
		t.Error(err)
	}
	if n := sum.Node; n.CPU == nil || *n.CPU.UsageCoreNanoSeconds == 0 || n.Memory == nil || *n.Memory.AvailableBytes == 0 || n.Fs == nil || *n.Fs.CapacityBytes == 0 || n.Runtime.ImageFs == nil || n.Rlimit == nil {
		t.Errorf("%+v", n)
	}
	for path, want := range map[string][]string{
		"/metrics/resource": {fmt.Sprintf("container_cpu_usage_seconds_total{container=\"c\",namespace=%q,pod=\"p\"} ", s.name), fmt.Sprintf("container_memory_working_set_bytes{container=\"c\",namespace=%q,pod=\"p\"} ", s.name),
			fmt.Sprintf("container_start_time_seconds{container=\"c\",namespace=%q,pod=\"p\"} ", s.name), "node_cpu_usage_seconds_total ", "node_memory_working_set_bytes ", fmt.Sprintf("pod_cpu_usage_seconds_total{namespace=%q,pod=\"p\"} ", s.name), "resource_scrape_error 0"},
		"/metrics/cadvisor": {"machine_cpu_cores ", "container_memory_working_set_bytes{container=\"c\",id=\"/kubepods/pod", "container_network_receive_bytes_total{container=\"\",", "container_cpu_usage_seconds_total{container=\"\",cpu=\"total\",id=\"/\","},
		"/metrics":          {"kubelet_running_pods ", "kubernetes_build_info{", "kubelet_node_name{node=\"n1\"} 1"},
		"/configz":          {`"kubeletconfig":{"`, `"maxPods":110`},
		"/pods":             {`"kind":"PodList"`, s.name},
	} {
		text, err := node.ask(path)
		if err != nil {
			t.Error(path, err)
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s lacks %s:\n%s", path, w, text[:min(len(text), 4000)])
			}
		}
	}
}
