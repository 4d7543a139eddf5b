package realtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet"
)

// TestClassesOfPods has a kubelet keep memory for better pods, and one which makes no cgroups at all.
func TestClassesOfPods(t *testing.T) {
	s := newSpace(t)
	restart := func(change func(*kubelet.Config)) {
		t.Helper()
		if err := node.stopKubelet(); err != nil {
			t.Fatal(err)
		}
		if err := node.startKubelet(change); err != nil {
			t.Fatal(err)
		}
	}
	defer restart(nil)
	restart(func(c *kubelet.Config) { c.Kubelet.QOSReserved = map[string]string{"memory": "100%"} })
	limit := func(class string) int64 {
		for _, pattern := range []string{"/sys/fs/cgroup/memory/%s/kubepods/%s/memory.limit_in_bytes", "/sys/fs/cgroup/%s/kubepods/%s/memory.max"} {
			raw, err := os.ReadFile(fmt.Sprintf(pattern, filepath.Base(node.dir), class))
			if n, perr := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && perr == nil {
				return n
			}
		}
		return -1
	}
	is := func(what string, want, tolerance int64, get func() int64) {
		t.Helper()
		if err := within(patience, func() error {
			if got := get(); got < want-tolerance || got > want+tolerance {
				return fmt.Errorf("%s is %d, want %d", what, got, want)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	s.create("guaranteed", `{containers: [{name: c, command: [sleep, "600"], resources: {requests: {cpu: 10m, memory: 64Mi}, limits: {cpu: 10m, memory: 64Mi}}}]}`)
	s.create("burstable", `{containers: [{name: c, command: [sleep, "600"], resources: {requests: {memory: 32Mi}}}]}`)
	s.running("guaranteed")
	s.running("burstable")
	// Others' pods ask for memory too, so the difference of the classes counts.
	is("what best-effort pods have less than burstable ones", 32<<20, 64<<20, func() int64 { return limit("burstable") - limit("besteffort") })
	if limit("besteffort") <= 0 || limit("burstable") > 1<<50 {
		t.Errorf("the classes are bounded to %d and %d", limit("burstable"), limit("besteffort"))
	}
	s.gone("guaranteed")
	s.gone("burstable")

	no := false
	restart(func(c *kubelet.Config) {
		c.Kubelet.CgroupsPerQOS, c.Kubelet.EnforceNodeAllocatable = &no, []string{"none"}
	})
	s.create("flat", `{containers: [{name: c, command: [sleep, "600"]}]}`)
	p := s.running("flat")
	found, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/%s/kubepods/*/pod%s", filepath.Base(node.dir), p.UID))
	if len(found) > 0 {
		t.Errorf("the pod has cgroups: %v", found)
	}
	id := strings.TrimPrefix(container(p, "c").ContainerID, "containerd://")
	if found, _ = filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/%s/%s", filepath.Base(node.dir), id)); len(found) == 0 {
		t.Error("the container is not in the root's own cgroup")
	}
	s.gone("flat")
	s.create("over", `{restartPolicy: Never, containers: [{name: c, command: ["true"]}]}`)
	s.ended("over", v1.PodSucceeded)
}
