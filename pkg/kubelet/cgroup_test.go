package kubelet

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// podOf reads a pod's spec.
func podOf(t *testing.T, uid, spec string) *v1.Pod {
	t.Helper()
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: uid, Namespace: "ns", UID: "uid-" + "x"}}
	p.UID = "uid-x"
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCgroups writes to the kernel what there is of it: version 1 on most hosts of tests, version 2 in the guest of
// `go run ./hack/vm -run TestCgroups ./pkg/kubelet`.
func TestCgroups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("cgroups are root's; run the tests as root")
	}
	root := fmt.Sprintf("/kubelet-test-%d", os.Getpid())
	c := newCgroups(root, "cgroupfs", slog.New(slog.DiscardHandler))
	c.pids, c.period = 77, 50000
	t.Cleanup(func() {
		for _, ctl := range c.hierarchies() {
			if err := removeDirs(filepath.Join(ctl, root)); err != nil {
				t.Error(err)
			}
		}
	})
	read := func(controller, path, file string) string {
		t.Helper()
		if c.v2 {
			controller = ""
		}
		raw, err := os.ReadFile(filepath.Join(cgroupMount, controller, path, file))
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(raw))
	}
	pod := podOf(t, "p", "{containers: [{name: c, resources: {requests: {cpu: 500m, memory: 16Mi}, limits: {cpu: 1, memory: 32Mi}}}]}")
	if err := c.Create(pod); err != nil {
		t.Fatal(err)
	}
	if all := c.pods(); len(all) != 1 || !all[string(pod.UID)] {
		t.Error("pods with a cgroup:", all)
	}
	path := c.path(pod)
	if path != root+"/kubepods/burstable/poduid-x" {
		t.Error(path)
	}
	check := func(quota, memory string) {
		t.Helper()
		if c.v2 {
			if got := read("", path, "cpu.max"); got != quota+" 50000" {
				t.Error("cpu.max", got)
			}
			if got := read("", path, "memory.max"); got != memory {
				t.Error("memory.max", got)
			}
			if got := read("", path, "cpu.weight"); got != "20" {
				t.Error("cpu.weight", got)
			}
			return
		}
		if got := read("cpu", path, "cpu.cfs_quota_us") + " " + read("cpu", path, "cpu.cfs_period_us") + " " + read("cpu", path, "cpu.shares"); got != quota+" 50000 512" {
			t.Error(got)
		}
		if got := read("memory", path, "memory.limit_in_bytes"); got != memory {
			t.Error(got)
		}
	}
	check("50000", "33554432")
	if got := read("pids", path, "pids.max"); got != "77" {
		t.Error("pids.max", got)
	}
	pod.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("16Mi")}
	if err := c.Resize(pod, true); err != nil {
		t.Fatal(err)
	}
	check("100000", "33554432")
	if err := c.Resize(pod, false); err != nil {
		t.Fatal(err)
	}
	check("100000", "16777216")
	// Everything pods may use together, and the classes.
	k := &Kubelet{cgroups: c, log: c.log}
	k.cfg.Kubelet.SystemReserved = map[string]string{"memory": "64Mi", "cpu": "100m", "pid": "1000"}
	k.cfg.Kubelet.MaxPods = 10
	k.facts = &facts{k: k}
	capacity, _ := k.facts.resources()
	k.boundPods()
	file := "memory.limit_in_bytes"
	if c.v2 {
		file = "memory.max"
	}
	left := (capacity.Memory().Value() - 64<<20) / 4096 * 4096
	if got := read("memory", root+"/kubepods", file); got != fmt.Sprint(left) {
		t.Errorf("all pods may use %s bytes, want %d", got, left)
	}
	if c.v2 {
		// The guest's kernel counts swap, so nobody gets any by chance.
		s := readSwap(root+"/kubepods", true, true)
		if !s.counted {
			t.Error("swap is not counted")
		}
	}
	if err := c.weight("burstable", 2048); err != nil {
		t.Fatal(err)
	}
	if !c.exists(root + "/kubepods/besteffort") {
		t.Error("a class has no cgroup")
	}
	// A reservation bounds the cgroup it names, which must be there.
	k.cfg.Kubelet.EnforceNodeAllocatable, k.cfg.Kubelet.SystemReservedCgroup = []string{"system-reserved"}, root+"/system"
	if err := k.enforce(); err == nil || !strings.Contains(err.Error(), "there is no cgroup") {
		t.Error(err)
	}
	c.ensure(root + "/system")
	if err := k.enforce(); err != nil {
		t.Error(err)
	}
	if got := read("memory", root+"/system", file); got != fmt.Sprint(64<<20) {
		t.Error("the system may use", got)
	}
	if err := c.Destroy("uid-x"); err != nil || c.exists(path) {
		t.Error("the pod's cgroup stays:", err)
	}
}

func TestEnforced(t *testing.T) {
	for words, want := range map[string]string{
		"[]": "", "[pods]": "", "[none]": "", "[none, pods]": "enforceNodeAllocatable: none stands alone",
		"[all]":             `enforceNodeAllocatable "all": want none, or pods, system-reserved, kube-reserved, system-reserved-compressible, kube-reserved-compressible`,
		"[system-reserved]": "enforceNodeAllocatable system-reserved: give systemReservedCgroup too",
		"[kube-reserved-compressible, kube-reserved]": "enforceNodeAllocatable: give kube-reserved or kube-reserved-compressible, not both",
		"[kube-reserved]": "",
	} {
		_, _, err := load(t, "{staticPodPath: /x, kubeReservedCgroup: /k, enforceNodeAllocatable: "+words+"}")
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v", words, err)
		}
	}
	if _, _, err := load(t, "{staticPodPath: /x, memorySwap: {swapBehavior: Unlimited}}"); err == nil {
		t.Error("an unknown swapBehavior was taken")
	}
	if _, _, err := load(t, "{staticPodPath: /x, reservedSystemCPUs: two}"); err == nil {
		t.Error("reservedSystemCPUs are not CPUs and were taken")
	}
}

func TestSwapShare(t *testing.T) {
	s := swap{counted: true, v2: true, limited: true, memory: 1000 << 20, total: 100 << 20}
	for spec, want := range map[string]int64{
		"{containers: [{name: c, resources: {requests: {memory: 100Mi}}}]}":                          10 << 20,
		"{containers: [{name: c, resources: {requests: {memory: 100Mi}, limits: {memory: 100Mi}}}]}": 0,
		"{containers: [{name: c}]}": 0,
		"{containers: [{name: c, resources: {requests: {cpu: 1, memory: 100Mi}, limits: {cpu: 1, memory: 100Mi}}}]}":       0,
		"{priority: 2000000000, containers: [{name: c, resources: {requests: {memory: 100Mi}, limits: {memory: 200Mi}}}]}": 0,
	} {
		p := podOf(t, "p", spec)
		if got := s.share(p, &p.Spec.Containers[0]); got != want {
			t.Errorf("%s: %d", spec, got)
		}
	}
	s.limited = false
	p := podOf(t, "p", "{containers: [{name: c, resources: {requests: {memory: 100Mi}}}]}")
	if got := s.share(p, &p.Spec.Containers[0]); got != 0 {
		t.Error("NoSwap gives", got)
	}
}
