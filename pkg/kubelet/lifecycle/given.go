package lifecycle

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Given is what the node gives a container beyond its spec: what makes its devices and claims usable.
type Given struct {
	Envs        []*runtimeapi.KeyValue
	Mounts      []*runtimeapi.Mount
	Devices     []*runtimeapi.Device
	CDI         []*runtimeapi.CDIDevice
	Annotations map[string]string
}

// Resources hands out what of the node belongs to one pod at a time: devices, claims, CPUs and memory. A pod was given its
// part when it was admitted.
type Resources interface {
	// Prepare makes a pod's claims usable on this node; doing so again changes nothing.
	Prepare(ctx context.Context, pod *v1.Pod) error
	// Give is asked before each start of a container.
	Give(ctx context.Context, pod *v1.Pod, c *v1.Container) (Given, error)
	// Place writes on which CPUs and memory nodes a container runs, and the swap it may use.
	Place(pod *v1.Pod, c *v1.Container, r *runtimeapi.LinuxContainerResources)
	// Health is, by container name, how the devices it was given are.
	Health(pod *v1.Pod) map[string][]v1.ResourceStatus
	// Release takes back all that a pod has; nothing of it runs any more.
	Release(ctx context.Context, uid string) error
}

// give adds to a container's configuration what the node gives it. What the spec says itself stays as it is.
func (w *worker) give(ctx context.Context, pod *v1.Pod, c *v1.Container, cfg *runtimeapi.ContainerConfig) error {
	g, err := w.m.cfg.Resources.Give(ctx, pod, c)
	if err != nil {
		return err
	}
	own := map[string]bool{}
	for _, e := range cfg.Envs {
		own[e.Key] = true
	}
	for _, e := range g.Envs {
		if !own[e.Key] {
			cfg.Envs = append(cfg.Envs, e)
		}
	}
	cfg.Mounts = append(cfg.Mounts, g.Mounts...)
	cfg.Devices = append(cfg.Devices, g.Devices...)
	cfg.CDIDevices = append(cfg.CDIDevices, g.CDI...)
	maps.Copy(cfg.Annotations, g.Annotations)
	return nil
}
