package kubelet

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/server"
	"github.com/sextant-k8s/sextant/pkg/kubelet/usage"
)

// gauges are the node's figures that metrics show.
func (k *Kubelet) gauges() server.Gauges {
	k.mirrors.mu.Lock()
	g := server.Gauges{MirrorPods: len(k.mirrors.api), CgroupVersion: 1}
	k.mirrors.mu.Unlock()
	if k.cgroups.v2 {
		g.CgroupVersion = 2
	}
	shared := k.managers.cpus.Allocatable()
	for _, p := range k.pods.Pods() {
		for i := range p.Spec.Containers {
			if own, alone := k.managers.cpus.Of(string(p.UID), p.Spec.Containers[i].Name); alone {
				g.ExclusiveCPUs += own.Size()
				shared = shared.Difference(own)
			}
		}
	}
	g.SharedMillicores = int64(shared.Size()) * 1000
	return g
}

// startup tells the metrics how the node came up, which asks to be registered from then on.
func (k *Kubelet) startup(ctx context.Context, asked time.Time) {
	until := func(ok func(*v1.Node) bool) (time.Time, bool) {
		t := time.NewTicker(100 * time.Millisecond)
		defer t.Stop()
		for {
			if n := k.node.Object(); n != nil && ok(n) {
				return time.Now(), true
			}
			select {
			case <-ctx.Done():
				return time.Time{}, false
			case <-t.C:
			}
		}
	}
	registered, ok := until(func(*v1.Node) bool { return true })
	if !ok {
		return
	}
	ready, ok := until(func(n *v1.Node) bool {
		return slices.ContainsFunc(n.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue })
	})
	if ok {
		k.metrics.Node(k.begun.Sub(usage.Booted()), asked.Sub(k.begun), registered.Sub(asked), ready.Sub(registered))
	}
}

// of is where a container's cgroup is, by the controller on version 1, and whether it is of version 2.
func (c *cgroups) of(pod *v1.Pod, container string) (at func(controller string) string, v2 bool) {
	path := filepath.Join(c.path(pod), container)
	if c.slices != nil {
		path = filepath.Join(slicePath(c.Parent(pod)), "cri-containerd-"+container+".scope")
	}
	return func(controller string) string {
		if c.v2 {
			controller = ""
		}
		return filepath.Join(cgroupMount, controller, path)
	}, c.v2
}

// system is what the machine is called.
func (f *facts) system() v1.NodeSystemInfo {
	if n := f.k.node; n != nil && n.Object() != nil {
		return n.Object().Status.NodeInfo
	}
	return v1.NodeSystemInfo{}
}
