package kubelet

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

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
