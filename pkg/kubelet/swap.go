package kubelet

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
)

// swap is what there is of it, bytes, and who may use it.
type swap struct {
	// counted: the kernel can bound the swap of a cgroup.
	counted, v2, limited bool
	memory, total        int64
}

// readSwap looks at the machine; pods is the cgroup of all pods.
func readSwap(pods string, v2, limited bool) swap {
	s := swap{v2: v2, limited: limited, memory: meminfo("MemTotal"), total: meminfo("SwapTotal")}
	if !v2 {
		_, err := os.Stat(cgroupMount + "/memory/memory.memsw.limit_in_bytes")
		s.counted = err == nil
		return s
	}
	// The root has no such file; the cgroup of all pods has, and that of this process.
	paths := []string{pods}
	if raw, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for _, line := range strings.Split(string(raw), "\n") {
			if path, ok := strings.CutPrefix(line, "0::"); ok {
				paths = append(paths, path)
			}
		}
	}
	for _, path := range paths {
		_, err := os.Stat(cgroupMount + path + "/memory.swap.max")
		s.counted = s.counted || err == nil
	}
	return s
}

// place bounds a container's swap: none at all, or for a container of a burstable pod its share, by its request of memory.
func (s swap) place(pod *v1.Pod, c *v1.Container, r *runtimeapi.LinuxContainerResources) {
	if !s.counted {
		return
	}
	if !s.v2 {
		// Together with memory no more than memory alone.
		r.MemorySwapLimitInBytes = r.MemoryLimitInBytes
		return
	}
	if r.Unified == nil {
		r.Unified = map[string]string{}
	}
	r.Unified["memory.swap.max"] = strconv.FormatInt(s.share(pod, c), 10)
}

func (s swap) share(pod *v1.Pod, c *v1.Container) int64 {
	want, limit := c.Resources.Requests.Memory(), c.Resources.Limits.Memory()
	critical := pod.Spec.Priority != nil && *pod.Spec.Priority >= 2000000000
	if !s.limited || critical || s.memory == 0 || lifecycle.QOS(pod) != v1.PodQOSBurstable || want.IsZero() || want.Cmp(*limit) == 0 {
		return 0
	}
	return int64(float64(want.Value()) / float64(s.memory) * float64(s.total))
}

// refuseSwap tells of swap which the configuration does not want the node to have.
func refuseSwap(fails bool) error {
	raw, err := os.ReadFile("/proc/swaps")
	if err != nil || !fails {
		return nil
	}
	if lines := strings.Split(strings.TrimSpace(string(raw)), "\n"); len(lines) > 1 {
		return fmt.Errorf("running with swap on is not supported, please disable swap or set --fail-swap-on flag to false. /proc/swaps contained: %v", lines)
	}
	return nil
}
