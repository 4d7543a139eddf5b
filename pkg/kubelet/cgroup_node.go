package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
)

// enforced are the words of enforceNodeAllocatable, checked.
func (c Config) enforced() ([]string, error) {
	k := c.Kubelet
	words := k.EnforceNodeAllocatable
	if words == nil {
		words = []string{"pods"}
	}
	for _, w := range words {
		kind, compressible := strings.CutSuffix(w, "-compressible")
		switch {
		case w == "none" && len(words) > 1:
			return nil, errors.New("enforceNodeAllocatable: none stands alone")
		case kind == "system-reserved" && k.SystemReservedCgroup == "":
			return nil, fmt.Errorf("enforceNodeAllocatable %s: give systemReservedCgroup too", w)
		case kind == "kube-reserved" && k.KubeReservedCgroup == "":
			return nil, fmt.Errorf("enforceNodeAllocatable %s: give kubeReservedCgroup too", w)
		case compressible && slices.Contains(words, kind):
			return nil, fmt.Errorf("enforceNodeAllocatable: give %s or %s, not both", kind, w)
		case kind != "system-reserved" && kind != "kube-reserved" && w != "pods" && w != "none":
			return nil, fmt.Errorf("enforceNodeAllocatable %q: want none, or pods, system-reserved, kube-reserved, system-reserved-compressible, kube-reserved-compressible", w)
		}
	}
	if k.CgroupsPerQOS != nil && !*k.CgroupsPerQOS && !slices.Equal(words, []string{"none"}) && len(words) > 0 {
		return nil, errors.New("cgroupsPerQOS false: set enforceNodeAllocatable to [none] too")
	}
	return words, nil
}

// amounts reads a reservation's quantities.
func amounts(m map[string]string) v1.ResourceList {
	out := v1.ResourceList{}
	for name, text := range m {
		if q, err := resource.ParseQuantity(text); err == nil {
			out[v1.ResourceName(name)] = q // Load refuses others
		}
	}
	return out
}

// budget is what a reservation, or what is left of the node, comes to as limits of a cgroup.
func budget(l v1.ResourceList, compressible bool) limits {
	out := limits{}
	if q, ok := l[v1.ResourceCPU]; ok {
		out.shares = max(q.MilliValue()*1024/1000, 2)
	}
	if compressible {
		return out
	}
	out.memory, out.pids = l.Memory().Value(), 0
	if q, ok := l["pid"]; ok {
		out.pids = q.Value()
	}
	for name, q := range l {
		if size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok && q.Value() > 0 {
			if out.pages == nil {
				out.pages = map[string]int64{}
			}
			out.pages[kernelSize(size)] = q.Value()
		}
	}
	return out
}

// enforce bounds all pods together to what the node has for them, and what is reserved to its reservation. A cgroup of a
// reservation must be there: whoever runs in it made it.
func (k *Kubelet) enforce() error {
	words, err := k.cfg.enforced()
	if err != nil {
		return err
	}
	kc := k.cfg.Kubelet
	for _, w := range words {
		kind, compressible := strings.CutSuffix(w, "-compressible")
		path, m := "", map[string]string(nil)
		switch kind {
		case "pods":
			k.boundPods()
			continue
		case "system-reserved":
			path, m = kc.SystemReservedCgroup, kc.SystemReserved
		case "kube-reserved":
			path, m = kc.KubeReservedCgroup, kc.KubeReserved
		default:
			continue
		}
		if !k.cgroups.exists(path) {
			return fmt.Errorf("enforceNodeAllocatable %s: there is no cgroup %s; make it, or leave the word out", w, path)
		}
		if err := k.cgroups.set(path, budget(amounts(m), compressible), false); err != nil {
			return fmt.Errorf("enforceNodeAllocatable %s: %w", w, err)
		}
	}
	return nil
}

// boundPods gives the cgroup of all pods what the node has but for its reservations. What is to stay free of memory is not
// taken off: evicting pods in time is better than killing in them.
func (k *Kubelet) boundPods() {
	capacity, _ := k.facts.resources()
	left := maps.Clone(capacity)
	for _, m := range []map[string]string{k.cfg.Kubelet.SystemReserved, k.cfg.Kubelet.KubeReserved} {
		for name, q := range amounts(m) {
			if have, ok := left[name]; ok {
				have.Sub(q)
				left[name] = have
			}
		}
	}
	if k.cgroups.slices != nil {
		for _, class := range []string{"", "burstable", "besteffort"} {
			l := limits{}
			if class == "" {
				l = budget(left, false)
			}
			if err := k.cgroups.slices.ensure(classSlice(class), k.cgroups.v2, l); err != nil {
				k.cgroups.warn("the slices of all pods", err)
			}
		}
		return
	}
	path := filepath.Join(k.cgroups.root, "kubepods")
	k.cgroups.ensure(path)
	if err := k.cgroups.set(path, budget(left, false), false); err != nil {
		k.log.Warn("bounding all pods together", "err", err)
	}
	for _, class := range []v1.PodQOSClass{v1.PodQOSBurstable, v1.PodQOSBestEffort} {
		k.cgroups.ensure(filepath.Join(path, classDir(class)))
	}
}

func (c *cgroups) exists(path string) bool {
	for _, ctl := range c.controllers() {
		if _, err := os.Stat(filepath.Join(ctl, path)); err == nil {
			return true
		}
	}
	return false
}

// weigh keeps the cgroups of the classes at what their pods ask for, until ctx ends: the best-effort ones get what nobody
// else wants, the burstable ones their requests together.
func (k *Kubelet) weigh(ctx context.Context, changed <-chan struct{}) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	last := int64(0)
	share, err := k.cfg.reserve()
	if err != nil {
		k.log.Error("what is kept for better pods", "err", err) // Load refuses such a configuration
	}
	for first := true; ; first = false {
		if share > 0 || first {
			k.keepMemory(share)
		}
		shares := burstableShares(k.pods.Pods())
		if shares != last {
			for class, n := range map[v1.PodQOSClass]int64{v1.PodQOSBestEffort: 2, v1.PodQOSBurstable: shares} {
				if err := k.cgroups.weight(classDir(class), n); err != nil {
					k.cgroups.warn("the shares of a class", err)
				}
			}
			last = shares
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			// Many pods often come at once.
			time.Sleep(100 * time.Millisecond)
		case <-t.C:
			last = 0
		}
	}
}

func burstableShares(pods []*v1.Pod) int64 {
	milli := int64(0)
	for _, p := range pods {
		if lifecycle.QOS(p) == v1.PodQOSBurstable && p.Status.Phase != v1.PodSucceeded && p.Status.Phase != v1.PodFailed {
			milli += request(p, v1.ResourceCPU)
		}
	}
	return max(milli*1024/1000, 2)
}

// weight writes only the shares of a class.
func (c *cgroups) weight(class string, shares int64) error {
	if c.slices != nil {
		return c.slices.bound(classSlice(class), c.v2, limits{shares: shares})
	}
	path := filepath.Join(c.root, "kubepods", class)
	if c.v2 {
		return os.WriteFile(filepath.Join(cgroupMount, path, "cpu.weight"), fmt.Appendf(nil, "%d", 1+(shares-2)*9999/262142), 0o644)
	}
	return os.WriteFile(filepath.Join(cgroupMount, "cpu", path, "cpu.shares"), fmt.Appendf(nil, "%d", shares), 0o644)
}
