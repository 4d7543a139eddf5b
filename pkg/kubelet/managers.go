package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"k8s.io/utils/cpuset"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cpus"
	"github.com/sextant-k8s/sextant/pkg/kubelet/devices"
	"github.com/sextant-k8s/sextant/pkg/kubelet/dra"
	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
	"github.com/sextant-k8s/sextant/pkg/kubelet/memory"
	"github.com/sextant-k8s/sextant/pkg/kubelet/plugins"
	podapi "github.com/sextant-k8s/sextant/pkg/kubelet/podresources"
	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

// managers hand out what of the node belongs to one pod at a time. They are one to the lifecycle of pods, which asks for
// all a container gets at once.
type managers struct {
	k        *Kubelet
	devices  *devices.Manager
	claims   *dra.Claims
	cpus     *cpus.Manager
	memory   *memory.Manager
	topology *topology.Manager
	plugins  *plugins.Watcher
	shown    *podapi.Server
	// pages are the sizes of huge pages the machine knows.
	pages []string
	swap  swap

	// admitting is held while a pod is given its part: what one takes the next may not.
	admitting sync.Mutex
	// moved holds at most one word that the shared CPUs are others.
	moved chan struct{}
}

func newManagers(k *Kubelet) (*managers, error) {
	root, kc := k.cfg.Flags.RootDir, k.cfg.Kubelet
	m := &managers{k: k, moved: make(chan struct{}, 1)}
	layout, err := topology.Read("/sys")
	if err != nil {
		return nil, err
	}
	for _, sizes := range layout.Pages {
		for size := range sizes {
			if name := pageSize(size); !slices.Contains(m.pages, name) {
				m.pages = append(m.pages, name)
			}
		}
	}
	slices.Sort(m.pages)
	m.swap = readSwap(filepath.Join(k.cgroups.root, "kubepods"), k.cgroups.v2, kc.MemorySwap.SwapBehavior == "LimitedSwap")
	wake := func(uid string) { k.pods.Wake(uid) }
	m.devices, err = devices.New(devices.Config{Dir: filepath.Join(root, "device-plugins"), Nodes: layout.Nodes, Touched: wake, Log: k.log,
		Changed: func() {
			if k.node != nil {
				k.node.Poke()
			}
		}})
	if err != nil {
		return nil, err
	}
	m.claims, err = dra.New(dra.Config{Root: root, Claim: m.claim, Wipe: m.wipe, Touched: wake, Log: k.log})
	if err != nil {
		return nil, err
	}
	reserved, kept, err := k.cfg.reserved()
	if err != nil {
		return nil, err
	}
	m.cpus, err = cpus.New(cpus.Config{Dir: root, Layout: layout, Policy: kc.CPUManagerPolicy, Options: kc.CPUManagerPolicyOptions, Reserved: reserved, Spare: kept.Cpu().MilliValue(),
		Changed: func() {
			select {
			case m.moved <- struct{}{}:
			default:
			}
		}})
	if err != nil {
		return nil, err
	}
	m.memory, err = memory.New(memory.Config{Dir: root, Layout: layout, Policy: kc.MemoryManagerPolicy, Reserved: kc.ReservedMemory, Kept: kept})
	if err != nil {
		return nil, err
	}
	k.cgroups.unbounded = m.cpus.Exclusive
	m.topology, err = topology.New(kc.TopologyManagerPolicy, kc.TopologyManagerScope, kc.TopologyManagerPolicyOptions, layout.Machine, m.cpus, m.memory, m.devices)
	if err != nil {
		return nil, err
	}
	m.plugins = &plugins.Watcher{Root: root, Log: k.log, Handlers: map[string]plugins.Handler{
		registration.CSIPlugin: k.drivers, registration.DRAPlugin: m.claims, registration.DevicePlugin: m.devices}}
	m.shown = &podapi.Server{Socket: filepath.Join(root, "pod-resources", "kubelet.sock"), Source: m}
	return m, nil
}

// run works until ctx ends.
func (m *managers) run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, 2)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, serve := range []func(context.Context) error{m.devices.Run, m.shown.Run} {
		wg.Go(func() {
			defer cancel()
			errs[i] = serve(ctx)
		})
	}
	wg.Go(func() { m.claims.Run(ctx) })
	wg.Go(func() { m.plugins.Run(ctx) })
	if m.k.cfg.Kubelet.CPUManagerPolicy == "static" {
		wg.Go(func() { m.confine(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// admit gives a pod its part of the node, or tells why it cannot have it.
func (m *managers) admit(pod *v1.Pod) *lifecycle.Failure {
	m.admitting.Lock()
	defer m.admitting.Unlock()
	begun, alone := time.Now(), 0
	err := m.topology.Admit(pod)
	for i := range pod.Spec.Containers {
		if _, own := m.cpus.Of(string(pod.UID), pod.Spec.Containers[i].Name); own {
			alone++
		}
	}
	m.k.metrics.Admitted(time.Since(begun), alone, m.k.cfg.Kubelet.MemoryManagerPolicy == "Static", err)
	if err == nil {
		return nil
	}
	m.release(string(pod.UID))
	var refusal *topology.Refusal
	if errors.As(err, &refusal) {
		return &lifecycle.Failure{Reason: refusal.Reason, Message: refusal.Message}
	}
	return &lifecycle.Failure{Reason: "UnexpectedAdmissionError", Message: fmt.Sprintf("Allocate failed due to %v, which is unexpected", err)}
}

// release takes back what was given at admission.
func (m *managers) release(uid string) {
	if err := errors.Join(m.cpus.Release(uid), m.memory.Release(uid), m.devices.Release(uid)); err != nil {
		m.k.log.Error("taking back what a pod had", "uid", uid, "err", err)
	}
}

// Prepare makes a pod's claims usable.
func (m *managers) Prepare(ctx context.Context, pod *v1.Pod) error { return m.claims.Prepare(ctx, pod) }

// Give is what makes a container's devices usable in it.
func (m *managers) Give(ctx context.Context, pod *v1.Pod, c *v1.Container) (lifecycle.Given, error) {
	g := lifecycle.Given{Annotations: map[string]string{}}
	answers, err := m.devices.Given(ctx, string(pod.UID), c)
	if err != nil {
		return g, err
	}
	once := map[string]bool{}
	first := func(kind, name string) bool {
		fresh := !once[kind+" "+name]
		once[kind+" "+name] = true
		return fresh
	}
	for _, a := range answers {
		for _, name := range sortedNames(a.Envs) {
			if first("env", name) {
				g.Envs = append(g.Envs, &runtimeapi.KeyValue{Key: name, Value: []byte(a.Envs[name])})
			}
		}
		for _, d := range a.Devices {
			if first("device", d.ContainerPath) {
				g.Devices = append(g.Devices, &runtimeapi.Device{HostPath: d.HostPath, ContainerPath: d.ContainerPath, Permissions: d.Permissions})
			}
		}
		for _, x := range a.Mounts {
			if first("mount", x.ContainerPath) {
				g.Mounts = append(g.Mounts, &runtimeapi.Mount{HostPath: x.HostPath, ContainerPath: x.ContainerPath, Readonly: x.ReadOnly})
			}
		}
		for _, d := range a.CdiDevices {
			if first("cdi", d.Name) {
				g.CDI = append(g.CDI, &runtimeapi.CDIDevice{Name: d.Name})
			}
		}
		maps.Copy(g.Annotations, a.Annotations)
	}
	shares, err := m.claims.Of(pod, c)
	if err != nil {
		return g, err
	}
	for _, s := range shares {
		for _, d := range s.Devices {
			for _, id := range d.CDIDeviceIDs {
				if first("cdi", id) {
					g.CDI = append(g.CDI, &runtimeapi.CDIDevice{Name: id})
				}
			}
		}
	}
	return g, nil
}

func sortedNames(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// Place writes where a container runs. Who has CPUs alone is not held back on them.
func (m *managers) Place(pod *v1.Pod, c *v1.Container, r *runtimeapi.LinuxContainerResources) {
	set, alone := m.cpus.Of(string(pod.UID), c.Name)
	r.CpusetCpus = set.String()
	if alone {
		r.CpuQuota, r.CpuPeriod = 0, 0
	}
	for _, size := range m.pages {
		n := c.Resources.Limits[v1.ResourceName(v1.ResourceHugePagesPrefix+size)]
		r.HugepageLimits = append(r.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: kernelSize(size), Limit: uint64(n.Value())})
	}
	m.swap.place(pod, c, r)
	if alone := m.k.cfg.Kubelet.SingleProcessOOMKill; m.k.cgroups.v2 && (alone == nil || !*alone) {
		// A container that lost one process to the want of memory is seldom of use.
		if r.Unified == nil {
			r.Unified = map[string]string{}
		}
		r.Unified["memory.oom.group"] = "1"
	}
	if blocks := m.memory.Of(string(pod.UID), c.Name); len(blocks) > 0 {
		r.CpusetMems = cpuset.New(blocks[0].NUMAAffinity...).String()
	}
}

// confine keeps running containers on the CPUs they may use now, until ctx ends: what one takes for itself the others leave.
func (m *managers) confine(ctx context.Context) {
	t := time.NewTicker(m.k.cfg.Kubelet.CPUManagerReconcilePeriod.Duration)
	defer t.Stop()
	last := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.moved:
		case <-t.C:
		}
		now := map[string]string{}
		for _, pod := range m.k.pods.Pods() {
			for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
				for i := range list {
					c, ok := m.k.pods.Container(string(pod.UID), list[i].Name, false)
					if !ok || c.State != lifecycle.Running {
						continue
					}
					set, _ := m.cpus.Of(string(pod.UID), list[i].Name)
					if now[c.ID] = set.String(); last[c.ID] == now[c.ID] {
						continue
					}
					if err := m.move(ctx, c.ID, now[c.ID]); err != nil && ctx.Err() == nil {
						m.k.log.Warn("moving a container to other CPUs", "pod", pod.Namespace+"/"+pod.Name, "container", list[i].Name, "err", err)
						delete(now, c.ID)
					}
				}
			}
		}
		last = now
	}
}

func (m *managers) move(ctx context.Context, id, cpus string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := m.k.cri.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{CpusetCpus: cpus}})
	return err
}

// Health is how the devices of a pod's containers are.
func (m *managers) Health(pod *v1.Pod) map[string][]v1.ResourceStatus {
	out := m.devices.Health(string(pod.UID))
	if len(pod.Spec.ResourceClaims) == 0 {
		return out
	}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if st := m.claims.Health(pod, &list[i]); len(st) > 0 {
				if out == nil {
					out = map[string][]v1.ResourceStatus{}
				}
				out[list[i].Name] = append(out[list[i].Name], st...)
			}
		}
	}
	return out
}

// Release takes back all of a pod that has ended.
func (m *managers) Release(ctx context.Context, uid string) error {
	if err := m.claims.Release(ctx, uid); err != nil {
		return err
	}
	m.release(uid)
	return nil
}

// keep takes back what pods have which are no more.
func (m *managers) keep(ctx context.Context, has func(uid string) bool) {
	if err := errors.Join(m.claims.Keep(ctx, has), m.cpus.Keep(has), m.memory.Keep(has), m.devices.Keep(has)); err != nil {
		m.k.log.Warn("taking back what pods had which are gone", "err", err)
	}
}

func (m *managers) claim(ctx context.Context, namespace, name string) (*resourcev1.ResourceClaim, error) {
	if m.k.client == nil {
		return nil, errors.New("there is no API server to ask for claims")
	}
	return m.k.client.ResourceClaims.Get(ctx, namespace, name)
}

// wipe removes the node's ResourceSlices of drivers which are not here: what they offered nobody can prepare.
func (m *managers) wipe(ctx context.Context, present map[string]bool) error {
	if m.k.client == nil {
		return nil
	}
	offered, err := m.k.client.ResourceSlices.List(ctx, "", "spec.nodeName="+m.k.cfg.NodeName)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range offered {
		if !present[s.Driver] {
			m.k.log.Info("removing a ResourceSlice of a driver which is away", "slice", s.Name, "driver", s.Driver)
			errs = append(errs, m.k.client.ResourceSlices.Delete(ctx, "", s.Name, metav1.DeleteOptions{}))
		}
	}
	return errors.Join(errs...)
}

// Pods are those which hold resources of the node.
func (m *managers) Pods() []*v1.Pod {
	var out []*v1.Pod
	for _, p := range m.k.pods.Pods() {
		if p.Status.Phase != v1.PodSucceeded && p.Status.Phase != v1.PodFailed {
			out = append(out, p)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Namespace+"/"+out[i].Name < out[j].Namespace+"/"+out[j].Name
	})
	return out
}

func numa(nodes []int) *podresources.TopologyInfo {
	if len(nodes) == 0 {
		return nil
	}
	t := &podresources.TopologyInfo{}
	for _, n := range nodes {
		t.Nodes = append(t.Nodes, &podresources.NUMANode{ID: int64(n)})
	}
	return t
}

func shares(list []devices.Share) []*podresources.ContainerDevices {
	var out []*podresources.ContainerDevices
	for _, s := range list {
		out = append(out, &podresources.ContainerDevices{ResourceName: s.Resource, DeviceIds: s.IDs, Topology: numa(s.Nodes)})
	}
	return out
}

func ids(set cpuset.CPUSet) []int64 {
	var out []int64
	for _, id := range set.List() {
		out = append(out, int64(id))
	}
	return out
}

func blocks(list []memory.Block) []*podresources.ContainerMemory {
	var out []*podresources.ContainerMemory
	for _, b := range list {
		out = append(out, &podresources.ContainerMemory{MemoryType: string(b.Type), Size: b.Size, Topology: numa(b.NUMAAffinity)})
	}
	return out
}

// Container is what a container has of the node.
func (m *managers) Container(pod *v1.Pod, c *v1.Container) *podresources.ContainerResources {
	out := &podresources.ContainerResources{Name: c.Name, Devices: shares(m.devices.Of(string(pod.UID), c.Name))}
	if set, alone := m.cpus.Of(string(pod.UID), c.Name); alone {
		out.CpuIds = ids(set)
	}
	out.Memory = blocks(m.memory.Of(string(pod.UID), c.Name))
	claims, err := m.claims.Of(pod, c)
	if err != nil {
		return out // not prepared yet
	}
	for _, s := range claims {
		d := &podresources.DynamicResource{ClaimName: s.Claim, ClaimNamespace: s.Namespace}
		for _, x := range s.Devices {
			r := &podresources.ClaimResource{DriverName: x.Driver, PoolName: x.PoolName, DeviceName: x.DeviceName, ShareId: (*string)(x.ShareID)}
			for _, id := range x.CDIDeviceIDs {
				r.CdiDevices = append(r.CdiDevices, &podresources.CDIDevice{Name: id})
			}
			d.ClaimResources = append(d.ClaimResources, r)
		}
		out.DynamicResources = append(out.DynamicResources, d)
	}
	return out
}

// Allocatable is what containers can have.
func (m *managers) Allocatable() *podresources.AllocatableResourcesResponse {
	return &podresources.AllocatableResourcesResponse{Devices: shares(m.devices.Of("", "")), CpuIds: ids(m.cpus.Allocatable()), Memory: blocks(m.memory.Allocatable())}
}
