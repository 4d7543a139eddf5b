// Package usage measures what the node and its pods use: processor, memory, network, disk, processes.
//
// Flow: Reader.Summary asks the runtime about all sandboxes at once, reads the kernel's tables for the node, and, when
// disks are asked for, walks the folders of pods (each at most once a minute). Callers turn a Summary into JSON, metrics
// or eviction. A Reader may be used from any goroutine.
package usage

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// Config is what a Reader works with.
type Config struct {
	CRI      *cri.Client
	NodeName string
	// Root is the kubelet's folder, whose disk is the node's.
	Root string
	// Pods are those on the node, with their statuses.
	Pods func() []*v1.Pod
	// Volume is where a volume of a pod stands; LogDir where the logs of a pod lie.
	Volume func(pod *v1.Pod, name string) (string, error)
	// Driver is what the driver of the volume at a path says of it; nil when it says nothing.
	Driver func(path string) *stats.FsStats
	LogDir func(pod *v1.Pod) string
}

// Reader measures.
type Reader struct {
	cfg Config

	mu    sync.Mutex
	walks map[string]walk
	cpu   map[string]cpuSample
}

type cpuSample struct {
	at   time.Time
	used uint64
}

// New makes a Reader.
func New(cfg Config) *Reader {
	return &Reader{cfg: cfg, walks: map[string]walk{}, cpu: map[string]cpuSample{}}
}

// Summary is everything the node knows now; without disks it costs two calls and no walk.
func (r *Reader) Summary(ctx context.Context, disks bool) (*stats.Summary, error) {
	sandboxes, err := r.sandboxes(ctx)
	if err != nil {
		return nil, err
	}
	out := &stats.Summary{Node: r.node(), Pods: []stats.PodStats{}}
	if disks {
		out.Node.Fs = disk(r.cfg.Root)
		out.Node.Runtime = &stats.RuntimeStats{ImageFs: r.imageFs(ctx)}
		out.Node.Runtime.ContainerFs = out.Node.Runtime.ImageFs
	}
	pods := r.cfg.Pods()
	for _, p := range pods {
		if s := sandboxes[string(p.UID)]; s != nil {
			out.Pods = append(out.Pods, r.pod(p, s, disks))
		}
	}
	r.forget(pods)
	return out, nil
}

// sandboxes are the runtime's figures by pod UID; the newest of a pod counts.
func (r *Reader) sandboxes(ctx context.Context) (map[string]*runtimeapi.PodSandboxStats, error) {
	out := map[string]*runtimeapi.PodSandboxStats{}
	add := func(s *runtimeapi.PodSandboxStats) {
		uid := s.GetAttributes().GetMetadata().GetUid()
		if old := out[uid]; old == nil || s.GetAttributes().GetMetadata().GetAttempt() > old.GetAttributes().GetMetadata().GetAttempt() {
			out[uid] = s
		}
	}
	list, err := r.cfg.CRI.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	if err == nil {
		for _, s := range list.Stats {
			add(s)
		}
		return out, nil
	}
	if status.Code(err) != codes.Unimplemented {
		// containerd 1.6 tells of none if one of them ends meanwhile.
		ready := &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}}
		all, err := r.cfg.CRI.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: ready})
		if err != nil {
			return nil, err
		}
		for _, s := range all.Items {
			if one, err := r.cfg.CRI.PodSandboxStats(ctx, &runtimeapi.PodSandboxStatsRequest{PodSandboxId: s.Id}); err == nil {
				add(one.Stats)
			}
		}
		return out, nil
	}
	// An old runtime knows containers only.
	cs, err := r.cfg.CRI.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
	if err != nil {
		return nil, err
	}
	for _, c := range cs.Stats {
		uid := c.GetAttributes().GetLabels()[cri.LabelPodUID]
		if out[uid] == nil {
			out[uid] = &runtimeapi.PodSandboxStats{Linux: &runtimeapi.LinuxPodSandboxStats{}}
		}
		out[uid].Linux.Containers = append(out[uid].Linux.Containers, c)
	}
	return out, nil
}

func (r *Reader) pod(p *v1.Pod, s *runtimeapi.PodSandboxStats, disks bool) stats.PodStats {
	out := stats.PodStats{PodRef: stats.PodReference{Name: p.Name, Namespace: p.Namespace, UID: string(p.UID)}, Containers: []stats.ContainerStats{}}
	if p.Status.StartTime != nil {
		out.StartTime = *p.Status.StartTime
	}
	started := map[string]metav1.Time{}
	for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for _, c := range list {
			if c.State.Running != nil {
				started[c.Name] = c.State.Running.StartedAt
			}
		}
	}
	var cpu, mem uint64
	stored := stats.FsStats{Time: metav1.Now(), UsedBytes: new(uint64), InodesUsed: new(uint64)}
	add := func(f *stats.FsStats) {
		if f != nil {
			*stored.UsedBytes += value(f.UsedBytes)
			*stored.InodesUsed += value(f.InodesUsed)
		}
	}
	newest := map[string]uint32{} // of a container that is being restarted the runtime may know two lives
	for _, c := range s.GetLinux().GetContainers() {
		name := c.GetAttributes().GetLabels()[cri.LabelContainerName]
		newest[name] = max(newest[name], c.GetAttributes().GetMetadata().GetAttempt())
	}
	for _, c := range s.GetLinux().GetContainers() {
		name := c.GetAttributes().GetLabels()[cri.LabelContainerName]
		at, running := started[name]
		if !running || c.GetAttributes().GetMetadata().GetAttempt() < newest[name] {
			continue
		}
		one := stats.ContainerStats{Name: name, StartTime: at, CPU: r.processor(c.GetAttributes().GetId(), c.Cpu), Memory: memory(c.Memory), Swap: swap(c.Swap)}
		if one.CPU != nil {
			cpu += value(one.CPU.UsageCoreNanoSeconds)
		}
		if one.Memory != nil {
			mem += value(one.Memory.WorkingSetBytes)
		}
		if w := c.WritableLayer; w != nil {
			used, inodes := w.GetUsedBytes().GetValue(), w.GetInodesUsed().GetValue()
			one.Rootfs = &stats.FsStats{Time: metav1.NewTime(time.Unix(0, w.Timestamp)), UsedBytes: &used, InodesUsed: &inodes}
			add(one.Rootfs)
		}
		if disks && r.cfg.LogDir != nil {
			one.Logs = r.folder(r.cfg.LogDir(p) + "/" + name)
			add(one.Logs)
		}
		out.Containers = append(out.Containers, one)
	}
	l := s.GetLinux()
	if out.CPU = r.processor(string(p.UID), l.GetCpu()); out.CPU == nil {
		out.CPU = &stats.CPUStats{Time: metav1.Now(), UsageCoreNanoSeconds: &cpu}
	}
	if out.Memory = memory(l.GetMemory()); out.Memory == nil {
		out.Memory = &stats.MemoryStats{Time: metav1.Now(), WorkingSetBytes: &mem}
	}
	out.Network = network(l.GetNetwork())
	if n := l.GetProcess().GetProcessCount(); n != nil {
		out.ProcessStats = &stats.ProcessStats{ProcessCount: &n.Value}
	}
	if disks {
		r.volumes(p, &out, add)
		if d := disk(r.cfg.Root); d != nil {
			stored.AvailableBytes, stored.CapacityBytes, stored.Inodes, stored.InodesFree = d.AvailableBytes, d.CapacityBytes, d.Inodes, d.InodesFree
		}
		out.EphemeralStorage = &stored
	}
	return out
}

// volumes measures what a pod's own volumes hold. What lies in memory is no disk.
func (r *Reader) volumes(p *v1.Pod, out *stats.PodStats, add func(*stats.FsStats)) {
	for _, v := range p.Spec.Volumes {
		if v.HostPath != nil || v.Image != nil {
			continue
		}
		path, err := r.cfg.Volume(p, v.Name)
		if err != nil {
			continue
		}
		vs := stats.VolumeStats{Name: v.Name}
		if c := v.PersistentVolumeClaim; c != nil {
			vs.PVCRef = &stats.PVCReference{Name: c.ClaimName, Namespace: p.Namespace}
			if d := r.cfg.Driver(path); d != nil {
				vs.FsStats = *d
			} else if d := disk(path); d != nil {
				vs.FsStats = *d
			}
		} else if f := r.folder(path); f != nil {
			vs.FsStats = *f
			if v.EmptyDir != nil && v.EmptyDir.Medium != v1.StorageMediumMemory || v.ConfigMap != nil {
				add(f)
			}
		}
		out.VolumeStats = append(out.VolumeStats, vs)
	}
}

// processor adds the present rate to a total: the runtime's own, or that since the last look.
func (r *Reader) processor(id string, c *runtimeapi.CpuUsage) *stats.CPUStats {
	if c == nil {
		return nil
	}
	at, used := time.Unix(0, c.Timestamp), c.GetUsageCoreNanoSeconds().GetValue()
	out := &stats.CPUStats{Time: metav1.NewTime(at), UsageCoreNanoSeconds: &used}
	if n := c.UsageNanoCores; n != nil {
		out.UsageNanoCores = &n.Value
		return out
	}
	out.UsageNanoCores = r.rate(id, at, used)
	return out
}

func (r *Reader) rate(id string, at time.Time, used uint64) *uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.cpu[id]
	if d := at.Sub(last.at); !ok || d >= time.Second || d < 0 {
		r.cpu[id] = cpuSample{at, used}
	}
	if d := at.Sub(last.at); ok && d > 0 && used >= last.used {
		n := uint64(float64(used-last.used) / d.Seconds())
		return &n
	}
	return nil
}

// forget drops what is remembered of pods and containers that are gone.
func (r *Reader) forget(pods []*v1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cpu) > 64+16*len(pods) {
		clear(r.cpu)
	}
	for k, w := range r.walks {
		if time.Since(w.at) > 10*walkAgain {
			delete(r.walks, k)
		}
	}
}

func memory(m *runtimeapi.MemoryUsage) *stats.MemoryStats {
	if m == nil {
		return nil
	}
	return &stats.MemoryStats{Time: metav1.NewTime(time.Unix(0, m.Timestamp)), WorkingSetBytes: number(m.WorkingSetBytes), AvailableBytes: number(m.AvailableBytes),
		UsageBytes: number(m.UsageBytes), RSSBytes: number(m.RssBytes), PageFaults: number(m.PageFaults), MajorPageFaults: number(m.MajorPageFaults)}
}

func swap(s *runtimeapi.SwapUsage) *stats.SwapStats {
	if s == nil {
		return nil
	}
	return &stats.SwapStats{Time: metav1.NewTime(time.Unix(0, s.Timestamp)), SwapAvailableBytes: number(s.SwapAvailableBytes), SwapUsageBytes: number(s.SwapUsageBytes)}
}

func network(n *runtimeapi.NetworkUsage) *stats.NetworkStats {
	if n == nil || n.DefaultInterface == nil {
		return nil
	}
	one := func(i *runtimeapi.NetworkInterfaceUsage) stats.InterfaceStats {
		return stats.InterfaceStats{Name: i.Name, RxBytes: number(i.RxBytes), RxErrors: number(i.RxErrors), TxBytes: number(i.TxBytes), TxErrors: number(i.TxErrors)}
	}
	out := &stats.NetworkStats{Time: metav1.NewTime(time.Unix(0, n.Timestamp)), InterfaceStats: one(n.DefaultInterface), Interfaces: []stats.InterfaceStats{one(n.DefaultInterface)}}
	for _, i := range n.Interfaces {
		if i.Name != n.DefaultInterface.Name {
			out.Interfaces = append(out.Interfaces, one(i))
		}
	}
	return out
}

func number(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

func value(p *uint64) uint64 {
	if p == nil {
		return 0
	}
	return *p
}
