package realtest

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet"
	"github.com/sextant-k8s/sextant/pkg/kubelet/plugins"
)

// restart runs the kubelet with another configuration; drain forgets the managers' state first, as who changes a policy must.
func restart(t *testing.T, drain bool, change func(*kubelet.Config)) {
	t.Helper()
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	if drain {
		for _, f := range []string{"cpu_manager_state", "memory_manager_state"} {
			if err := os.Remove(node.path("kubelet/" + f)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := node.startKubelet(change); err != nil {
		t.Fatal(err)
	}
}

func TestExclusiveCPUs(t *testing.T) {
	n := runtime.NumCPU()
	if n < 2 {
		t.Fatal("this test needs two CPUs")
	}
	s := newSpace(t)
	static := func(c *kubelet.Config) {
		k := &c.Kubelet
		k.CPUManagerPolicy, k.ReservedSystemCPUs = "static", "0"
		pids := int64(300)
		k.PodPidsLimit = &pids
		k.TopologyManagerPolicy = kubeletv1beta1.SingleNumaNodeTopologyManagerPolicy
		k.MemoryManagerPolicy = kubeletv1beta1.StaticMemoryManagerPolicy
		k.ReservedMemory = []kubeletv1beta1.MemoryReservation{{NumaNode: 0, Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("10Mi")}}}
	}
	restart(t, true, static)
	defer restart(t, true, nil)
	all, most := fmt.Sprintf("0-%d", n-1), n-1
	allowed := func(pod, want string) {
		t.Helper()
		s.shows(pod, want, "sh", "-c", "grep Cpus_allowed_list /proc/self/status | cut -f2")
	}
	s.create("shared", `{containers: [{name: c, command: [sleep, "600"]}]}`)
	s.ready("shared")
	allowed("shared", all)
	spec := fmt.Sprintf(`{initContainers: [{name: i, command: [sh, -c, "grep Cpus_allowed_list /proc/self/status"], resources: {limits: {cpu: "%[1]d", memory: 32Mi}}}],
containers: [{name: c, command: [sleep, "600"], resources: {limits: {cpu: "%[1]d", memory: 64Mi}}}]}`, most)
	s.create("own", spec)
	p := s.ready("own")
	mine := "1"
	if most > 1 {
		mine = fmt.Sprintf("1-%d", most)
	}
	allowed("own", mine)
	allowed("shared", "0")
	if got := s.logs("own", &v1.PodLogOptions{Container: "i"}); !strings.HasSuffix(got, "\t"+mine+"\n") {
		t.Errorf("the init container ran on %q, want %s", got, mine)
	}
	for _, c := range []string{"", "c"} {
		if q := node.cgroup(t, p, "cpu.cfs_quota_us", c); q != "-1" {
			t.Errorf("%q is held back on CPUs of its own: %s", c, q)
		}
	}
	if got := node.cgroup(t, p, "pids.max", ""); got != "300" {
		t.Error("the pod may have processes:", got)
	}
	if got := node.cgroup(t, p, "cpuset.mems", "c"); got != "0" {
		t.Error("memory of nodes", got)
	}
	s.create("late", strings.ReplaceAll(spec, fmt.Sprintf("cpu: \"%d\"", most), "cpu: \"1\""))
	if p := s.ended("late", v1.PodFailed); p.Status.Reason != "TopologyAffinityError" || p.Status.Message != "Pod was rejected: Resources cannot be allocated with Topology locality" {
		t.Errorf("%s: %s", p.Status.Reason, p.Status.Message)
	}
	conn, err := plugins.Dial(node.path("kubelet/pod-resources/kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r, err := podresources.NewPodResourcesListerClient(conn).Get(context.Background(), &podresources.GetPodResourcesRequest{PodName: "own", PodNamespace: s.name})
	if err != nil || len(r.PodResources.Containers[0].CpuIds) != most || r.PodResources.Containers[0].Memory[0].Size != 64<<20 {
		t.Error(r, err)
	}
	restart(t, false, static)
	allowed("own", mine)
	s.gone("own")
	allowed("shared", all)
	node, err := node.admin.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
	if err != nil || node.Status.Allocatable.Cpu().Value() != int64(most) {
		t.Error(node.Status.Allocatable, err)
	}
}
