package kubelet

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"golang.org/x/sys/unix"
)

// facts reads what the node is and has. Answers which hardly change are kept.
type facts struct {
	k *Kubelet

	mu      sync.Mutex
	version string
	asked   time.Time // for version
	images  []v1.ContainerImage
	imaged  time.Time
	ready   bool
}

func (f *facts) status(ctx context.Context) v1.NodeStatus {
	cfg := f.k.cfg
	capacity, allocatable := f.resources()
	more, usable := f.k.managers.devices.Resources()
	maps.Copy(capacity, more)
	maps.Copy(allocatable, usable)
	st := v1.NodeStatus{Capacity: capacity, Allocatable: allocatable, NodeInfo: f.info(ctx), Images: f.imageList(ctx), VolumesInUse: f.k.drivers.InUse(),
		DeclaredFeatures: declared(cfg.Version, cfg.Kubelet.FeatureGates)}
	st.DaemonEndpoints.KubeletEndpoint.Port = cfg.Kubelet.Port
	for _, ip := range cfg.NodeIPs {
		st.Addresses = append(st.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip})
	}
	st.Addresses = append(st.Addresses, v1.NodeAddress{Type: v1.NodeHostName, Address: cfg.NodeName})
	under := f.k.eviction.Under
	cond := func(t v1.NodeConditionType, bad bool, badReason, badText, okReason, okText string) {
		c := v1.NodeCondition{Type: t, Status: v1.ConditionFalse, Reason: okReason, Message: okText}
		if bad {
			c.Status, c.Reason, c.Message = v1.ConditionTrue, badReason, badText
		}
		st.Conditions = append(st.Conditions, c)
	}
	cond(v1.NodeMemoryPressure, under(v1.NodeMemoryPressure), "KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
	cond(v1.NodeDiskPressure, under(v1.NodeDiskPressure), "KubeletHasDiskPressure", "kubelet has disk pressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
	cond(v1.NodePIDPressure, under(v1.NodePIDPressure), "KubeletHasInsufficientPID", "kubelet has insufficient PID available", "KubeletHasSufficientPID", "kubelet has sufficient PID available")
	ready := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
	why := f.unready(ctx)
	if f.k.shutdown.Active() {
		why = strings.TrimPrefix(why+", node is shutting down", ", ")
	}
	if why != "" {
		ready.Status, ready.Reason, ready.Message = v1.ConditionFalse, "KubeletNotReady", why
	}
	f.mu.Lock()
	f.ready = ready.Status == v1.ConditionTrue
	f.mu.Unlock()
	st.Conditions = append(st.Conditions, ready)
	st.RuntimeHandlers, st.Features = f.handlers(ctx)
	return st
}

// handlers are the runtime's, each with what it can do.
func (f *facts) handlers(ctx context.Context) ([]v1.NodeRuntimeHandler, *v1.NodeFeatures) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := f.k.cri.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, nil
	}
	var out []v1.NodeRuntimeHandler
	for _, h := range r.RuntimeHandlers {
		ro, users := h.GetFeatures().GetRecursiveReadOnlyMounts(), h.GetFeatures().GetUserNamespaces()
		out = append(out, v1.NodeRuntimeHandler{Name: h.Name, Features: &v1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &ro, UserNamespaces: &users}})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	if r.Features == nil {
		return out, nil
	}
	groups := r.Features.SupplementalGroupsPolicy
	return out, &v1.NodeFeatures{SupplementalGroupsPolicy: &groups}
}

// unready is why the runtime cannot run pods; empty when it can.
func (f *facts) unready(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := f.k.cri.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return "container runtime is down: " + err.Error()
	}
	var out []string
	for _, c := range r.GetStatus().GetConditions() {
		if c.Status {
			continue
		}
		switch c.Type {
		case runtimeapi.RuntimeReady:
			out = append(out, "container runtime not ready: "+c.Reason+" "+c.Message)
		case runtimeapi.NetworkReady:
			out = append(out, fmt.Sprintf("container runtime network not ready: NetworkReady=false reason:%s message:%s", c.Reason, c.Message))
		}
	}
	return strings.Join(out, ", ")
}

func (f *facts) resources() (capacity, allocatable v1.ResourceList) {
	k := f.k.cfg.Kubelet
	q := func(n int64, format resource.Format) resource.Quantity { return *resource.NewQuantity(n, format) }
	var fs unix.Statfs_t
	disk := int64(0)
	if unix.Statfs(f.k.cfg.Flags.RootDir, &fs) == nil {
		disk = int64(fs.Blocks) * fs.Bsize
	}
	capacity = v1.ResourceList{
		v1.ResourceCPU: q(int64(runtime.NumCPU()), resource.DecimalSI), v1.ResourceMemory: q(meminfo("MemTotal"), resource.BinarySI),
		v1.ResourcePods: q(int64(k.MaxPods), resource.DecimalSI), v1.ResourceEphemeralStorage: q(disk, resource.BinarySI),
		"hugepages-2Mi": q(0, resource.BinarySI),
	}
	for size, name := range map[string]v1.ResourceName{"2048kB": "hugepages-2Mi", "1048576kB": "hugepages-1Gi"} {
		raw, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-" + size + "/nr_hugepages")
		if err != nil {
			continue
		}
		n, _ := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		kb, _ := strconv.ParseInt(strings.TrimSuffix(size, "kB"), 10, 64)
		capacity[name] = q(n*kb*1024, resource.BinarySI)
	}
	allocatable = maps.Clone(capacity)
	take := func(name, amount string, of resource.Quantity) {
		n := v1.ResourceName(name)
		have, ok := allocatable[n]
		if !ok {
			return
		}
		var off resource.Quantity
		if pct, ok := strings.CutSuffix(amount, "%"); ok {
			p, _ := strconv.ParseFloat(pct, 64)
			off = q(int64(float64(of.Value())*p/100), resource.BinarySI)
		} else if v, err := resource.ParseQuantity(amount); err == nil {
			off = v
		}
		have.Sub(off)
		allocatable[n] = have
	}
	_, kept, err := f.k.cfg.reserved()
	if err != nil {
		f.k.log.Error("what the node keeps from pods", "err", err) // Load refuses such a configuration
	}
	for n, q := range kept {
		take(string(n), q.String(), q)
	}
	for n, q := range capacity {
		// Memory in huge pages is nobody's otherwise.
		if strings.HasPrefix(string(n), v1.ResourceHugePagesPrefix) {
			take("memory", q.String(), q)
		}
	}
	if v, ok := k.EvictionHard["nodefs.available"]; ok {
		take("ephemeral-storage", v, capacity[v1.ResourceEphemeralStorage])
	}
	return capacity, allocatable
}

// meminfo is one line of /proc/meminfo, bytes.
func meminfo(name string) int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) >= 2 && w[0] == name+":" {
			n, _ := strconv.ParseInt(w[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// runtime is the container runtime's name and version: containerd://2.4.2; "" before it has answered. It is asked again after a
// minute: runtimes are upgraded beneath a kubelet.
func (f *facts) runtime(ctx context.Context) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.version == "" || time.Since(f.asked) > time.Minute {
		f.asked = time.Now()
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if r, err := f.k.cri.Version(ctx, &runtimeapi.VersionRequest{}); err == nil {
			f.version = r.RuntimeName + "://" + strings.TrimPrefix(r.RuntimeVersion, "v")
		}
	}
	return f.version
}

func (f *facts) info(ctx context.Context) v1.NodeSystemInfo {
	read := func(path string) string {
		raw, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(raw))
	}
	info := v1.NodeSystemInfo{
		MachineID: read("/etc/machine-id"), SystemUUID: read("/sys/class/dmi/id/product_uuid"), BootID: read("/proc/sys/kernel/random/boot_id"),
		KernelVersion: read("/proc/sys/kernel/osrelease"), OSImage: "Linux", ContainerRuntimeVersion: f.runtime(ctx), KubeletVersion: f.k.cfg.Version,
		OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
	if n := meminfo("SwapTotal"); n > 0 {
		info.Swap = &v1.NodeSwapStatus{Capacity: &n}
	}
	if info.SystemUUID == "" {
		info.SystemUUID = info.MachineID
	}
	for _, l := range strings.Split(read("/etc/os-release"), "\n") {
		if v, ok := strings.CutPrefix(l, "PRETTY_NAME="); ok {
			info.OSImage = strings.Trim(v, `"`)
		}
	}
	return info
}

// imageList is the largest images, as many as are told of, listed at most every half minute.
func (f *facts) imageList(ctx context.Context) []v1.ContainerImage {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.imaged) < 30*time.Second {
		return f.images
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := f.k.cri.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return f.images
	}
	var out []v1.ContainerImage
	for _, i := range r.Images {
		names := append(append([]string(nil), i.RepoDigests...), i.RepoTags...)
		out = append(out, v1.ContainerImage{Names: names[:min(len(names), 5)], SizeBytes: int64(i.Size)})
	}
	sort.SliceStable(out, func(a, b int) bool { return out[a].SizeBytes > out[b].SizeBytes })
	if most := int(*f.k.cfg.Kubelet.NodeStatusMaxImages); most >= 0 {
		out = out[:min(len(out), most)]
	}
	f.images, f.imaged = out, time.Now()
	return f.images
}

func parseQuantity(s string) (int64, error) {
	q, err := resource.ParseQuantity(s)
	return q.Value(), err
}
