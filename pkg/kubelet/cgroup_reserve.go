package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
)

// reserve is what share of memory that better pods have asked for is kept from worse ones, 0 to 1; qosReserved says it.
func (c Config) reserve() (float64, error) {
	share := 0.0
	for name, amount := range c.Kubelet.QOSReserved {
		pct, ok := strings.CutSuffix(amount, "%")
		n, err := strconv.ParseFloat(pct, 64)
		if name != string(v1.ResourceMemory) || !ok || err != nil || n < 0 || n > 100 {
			return 0, fmt.Errorf("qosReserved %s %q: want memory, and 0%% to 100%%", name, amount)
		}
		share = n / 100
	}
	return share, nil
}

// classMemory is how much memory the pods of each class may have together, bytes: what there is without what is kept for
// better ones.
func classMemory(all int64, share float64, pods []*v1.Pod) (burstable, besteffort int64) {
	asked := map[v1.PodQOSClass]int64{}
	for _, p := range pods {
		if p.Status.Phase != v1.PodSucceeded && p.Status.Phase != v1.PodFailed {
			asked[lifecycle.QOS(p)] += request(p, v1.ResourceMemory)
		}
	}
	burstable = max(all-int64(share*float64(asked[v1.PodQOSGuaranteed])), 0)
	return burstable, max(burstable-int64(share*float64(asked[v1.PodQOSBurstable])), 0)
}

// bound writes only the memory of a class, less than 0 is any. The kernel refuses less than is in use; that is tried again with
// the next look.
func (c *cgroups) bound(class string, bytes int64) error {
	if c.slices != nil {
		return c.slices.bound(classSlice(class), c.v2, limits{memory: max(bytes, 0)})
	}
	path := filepath.Join(c.root, "kubepods", class)
	file := filepath.Join(cgroupMount, "memory", path, "memory.limit_in_bytes")
	value := strconv.FormatInt(bytes, 10)
	if c.v2 {
		file = filepath.Join(cgroupMount, path, "memory.max")
		if bytes < 0 {
			value = "max"
		}
	}
	return os.WriteFile(file, []byte(value), 0o644)
}

// keepMemory bounds the classes by what better pods have asked for; not at all where nothing is kept for them.
func (k *Kubelet) keepMemory(share float64) {
	burstable, besteffort := int64(-1), int64(-1)
	if share > 0 {
		burstable, besteffort = classMemory(k.allocatable.Memory().Value(), share, k.pods.Pods())
	}
	for class, n := range map[v1.PodQOSClass]int64{v1.PodQOSBurstable: burstable, v1.PodQOSBestEffort: besteffort} {
		if err := k.cgroups.bound(classDir(class), n); err != nil {
			k.cgroups.warn("the memory of a class", err)
		}
	}
}
