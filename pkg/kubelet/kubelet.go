// Package kubelet runs the pods of one node.
//
// Flow: New reads nothing of the cluster and starts nothing; Run connects sources (the API's pods of this node, a folder
// of static pods) to lifecycle.Manager, the runtime's events to the same, statuses and node.Reporter to the API, and
// serves 10250 and 10248. Run owns every goroutine and returns after all of them. Nothing here stops a container when
// the kubelet stops: the next one adopts them.
package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/api"
	"github.com/sextant-k8s/sextant/pkg/kubelet/certificate"
	"github.com/sextant-k8s/sextant/pkg/kubelet/credential"
	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
	"github.com/sextant-k8s/sextant/pkg/kubelet/csi"
	"github.com/sextant-k8s/sextant/pkg/kubelet/eviction"
	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
	"github.com/sextant-k8s/sextant/pkg/kubelet/node"
	"github.com/sextant-k8s/sextant/pkg/kubelet/server"
	"github.com/sextant-k8s/sextant/pkg/kubelet/shutdown"
	"github.com/sextant-k8s/sextant/pkg/kubelet/usage"
	"github.com/sextant-k8s/sextant/pkg/kubelet/volume"
)

// refreshMost is how old what volumes show may be at most.
const refreshMost = 20 * time.Second

// Kubelet is one node's agent.
type Kubelet struct {
	cfg      Config
	log      *slog.Logger
	client   *api.Client
	cri      *cri.Client
	watcher  *cri.Watcher
	pods     *lifecycle.Manager
	volumes  *volume.Manager
	cgroups  *cgroups
	objects  *objects
	statuses *statuses
	mirrors  *mirrors
	node     *node.Reporter
	facts    *facts
	server   *server.Server
	usage    *usage.Reader
	drivers  *csi.Drivers
	managers *managers
	keyring  *credential.Keyring
	pulled   *credential.Records
	eviction *eviction.Manager
	metrics  *metrics.Set
	begun    time.Time
	shutdown *shutdown.Manager
	recorder record.EventRecorder
	sink     record.EventBroadcaster

	synced atomic.Bool
	// running is pods, for who may ask before there are any.
	running     atomic.Pointer[lifecycle.Manager]
	statics     statics
	allocatable v1.ResourceList
	strays      map[string]int
	weighed     <-chan struct{}

	mu       sync.Mutex
	imagesAt string
}

// New puts a kubelet together. It fails when the machine lacks what a kubelet cannot be without.
func New(cfg Config) (*Kubelet, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("the kubelet makes mounts and cgroups and must run as root; start it as root")
	}
	if err := refuseSwap(*cfg.Kubelet.FailSwapOn); err != nil {
		return nil, err
	}
	k := &Kubelet{cfg: cfg, log: cfg.Log, strays: map[string]int{}, begun: time.Now()}
	k.metrics, k.objects = metrics.New(cfg.NodeName, cfg.Version), &objects{}
	if err := k.openers(); err != nil {
		return nil, err
	}
	c, err := cri.Dial(cfg.Kubelet.ContainerRuntimeEndpoint, cfg.Kubelet.ImageServiceEndpoint)
	if err != nil {
		return nil, err
	}
	k.cri, c.Metrics = c, k.metrics
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := k.hello(ctx); err != nil {
		return nil, fmt.Errorf("no container runtime answers at %s: %w; start one, or give --container-runtime-endpoint", cfg.Kubelet.ContainerRuntimeEndpoint, err)
	}
	if err := os.MkdirAll(cfg.Flags.RootDir, 0o750); err != nil {
		return nil, fmt.Errorf("making --root-dir: %w", err)
	}
	if r, err := c.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{}); err == nil && r.GetLinux() != nil {
		// Both must put a pod's processes at the same place; the runtime's word counts.
		driver := strings.ToLower(r.GetLinux().GetCgroupDriver().String())
		if driver != cfg.Kubelet.CgroupDriver {
			cfg.Log.Info("the runtime decides the cgroup driver", "configured", cfg.Kubelet.CgroupDriver, "runtime", driver)
		}
		cfg.Kubelet.CgroupDriver, k.cfg.Kubelet.CgroupDriver = driver, driver
	}
	if cfg.Rest != nil {
		if k.client, err = api.New(cfg.Rest); err != nil {
			return nil, err
		}
	}
	k.objects.client = k.client
	if err := k.opened(); err != nil {
		return nil, err
	}
	k.cgroups = newCgroups(cfg.Kubelet.CgroupRoot, cfg.Kubelet.CgroupDriver, cfg.Log)
	k.cgroups.flat = !*cfg.Kubelet.CgroupsPerQOS
	if f := cfg.Kubelet.FailCgroupV1; f != nil && *f && !k.cgroups.v2 {
		return nil, fmt.Errorf("kubelet is configured to not run on a host using cgroup v1; start the machine with cgroup v2, or set failCgroupV1: false")
	}
	if cfg.Kubelet.ProtectKernelDefaults {
		if err := protectKernel("/proc/sys"); err != nil {
			return nil, err
		}
	}
	k.outlive()
	k.facts = &facts{k: k}
	k.cgroups.metrics = k.metrics
	k.cgroups.pids, k.cgroups.period = cfg.podBounds()
	weighed := make(chan struct{}, 1)
	k.weighed, k.cgroups.changed = weighed, func() {
		select {
		case weighed <- struct{}{}:
		default:
		}
	}
	_, k.allocatable = k.facts.resources()
	if err := k.enforce(); err != nil {
		return nil, err
	}
	if k.drivers, err = csi.New(csi.Config{Root: cfg.Flags.RootDir, NodeName: cfg.NodeName, Objects: k.objects, Tell: k.tellDrivers,
		Measure: cfg.Kubelet.VolumeStatsAggPeriod.Duration, Log: cfg.Log}); err != nil {
		return nil, err
	}
	if k.managers, err = newManagers(k); err != nil {
		return nil, err
	}
	k.volumes, err = volume.New(volume.Config{Root: cfg.Flags.RootDir, Metrics: k.metrics, Objects: k.objects, Field: lifecycle.Field, CSI: k.drivers,
		Tell: func(pod *v1.Pod, kind, reason, message string) {
			k.recorder.Event(&v1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}, kind, reason, message)
		},
		Node: func() (string, types.UID) {
			if k.node == nil {
				return k.cfg.NodeName, ""
			}
			if n := k.node.Object(); n != nil {
				return n.Name, n.UID
			}
			return k.cfg.NodeName, ""
		},
		Resource: func(s *v1.ResourceFieldSelector, pod *v1.Pod) (string, error) {
			return lifecycle.ResourceField(s, pod, nil, k.allocatable)
		}})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// hello waits for the runtime to answer, since both may be starting.
func (k *Kubelet) hello(ctx context.Context) error {
	for {
		_, err := k.cri.Version(ctx, &runtimeapi.VersionRequest{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Run works until ctx ends. Containers keep running.
func (k *Kubelet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	k.sink = record.NewBroadcaster(record.WithContext(ctx))
	defer k.sink.Shutdown()
	if k.client != nil {
		k.sink.StartRecordingToSink(api.Sink{Events: k.client.Events, Busy: func() bool {
			pods := k.running.Load()
			return pods != nil && pods.Starting()
		}})
	}
	scheme, err := api.Scheme()
	if err != nil {
		return err
	}
	recorder := k.sink.NewRecorder(scheme, v1.EventSource{Component: "kubelet", Host: k.cfg.NodeName})
	k.recorder = recorder
	k.statuses = newStatuses(ctx, k.client, k.metrics, k.log)
	k.mirrors = newMirrors(k)
	k.statuses.mirror = k.mirrors.of
	resolver := lifecycle.Resolver{ClusterDNS: k.cfg.Kubelet.ClusterDNS, ClusterDomain: k.cfg.Kubelet.ClusterDomain,
		Node: readResolv(*k.cfg.Kubelet.ResolverConfig), SeccompRoot: k.cfg.Flags.RootDir + "/seccomp", CFSPeriod: k.cgroups.period}
	if d := k.cfg.Kubelet.SeccompDefault; d != nil {
		resolver.SeccompDefault = *d
	}
	pulls := 1
	if s := k.cfg.Kubelet.SerializeImagePulls; s != nil && !*s {
		pulls = 0
		if m := k.cfg.Kubelet.MaxParallelImagePulls; m != nil {
			pulls = int(*m)
		}
	}
	k.pods = lifecycle.New(lifecycle.Config{CRI: k.cri, Volumes: k.volumes, Cgroups: k.cgroups, Resources: k.managers, Objects: k.objects, Keyring: k.keyring, Pulled: k.pulled, Statuses: k.statuses,
		Recorder: recorder, Log: k.log, Metrics: k.metrics, NodeName: k.cfg.NodeName, HostIPs: k.cfg.NodeIPs, LogDir: k.cfg.Kubelet.PodLogsDir,
		Runtime: func() string {
			name, _, _ := strings.Cut(k.facts.runtime(ctx), "://")
			return name
		},
		Allocatable: func() v1.ResourceList { return k.allocatable }, Resolver: resolver, Sysctls: k.cfg.Kubelet.DefaultPodSysctls, MaxBackoff: k.cfg.maxBackoff(), UserRange: k.cfg.userRange(), Pace: k.cfg.pullPace(), Refresh: min(k.cfg.Kubelet.SyncFrequency.Duration, refreshMost), ParallelPulls: pulls, Admit: k.admit, Room: k.room})
	k.running.Store(k.pods)
	k.pods.Start(ctx)
	k.watcher = &cri.Watcher{Client: k.cri, Wake: k.pods.Wake, Seen: func(p []cri.Pod) bool { return k.orphans(ctx, p) }, Log: k.log, Metrics: k.metrics}
	k.usage = usage.New(usage.Config{CRI: k.cri, NodeName: k.cfg.NodeName, Root: k.cfg.Flags.RootDir, Pods: k.pods.Pods, Volume: k.volumes.HostPath, Driver: k.driverStats,
		LogDir: func(p *v1.Pod) string { return lifecycle.LogDir(k.cfg.Kubelet.PodLogsDir, p) }})
	srv, err := server.New(server.Config{Kubelet: k.cfg.Kubelet, CertDir: k.cfg.Flags.CertDir, NodeName: k.cfg.NodeName, NodeIPs: k.cfg.NodeIPs,
		Client: k.client, Pods: k.pods, CRI: k.cri, Log: k.log, Healthy: k.healthy, Version: k.cfg.Version, Usage: k.usage, Gauges: k.gauges, System: k.facts.system, Cgroup: k.cgroups.of, Metrics: k.metrics, RootDir: k.cfg.Flags.RootDir,
		Machine: func() map[string]float64 {
			return map[string]float64{"machine_cpu_cores": float64(runtime.NumCPU()), "machine_memory_bytes": float64(usage.Memory()["MemTotal"]), "machine_swap_bytes": float64(usage.Memory()["SwapTotal"])}
		}})
	if err != nil {
		return err
	}
	k.server = srv
	ref := &v1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: k.cfg.NodeName, UID: types.UID(k.cfg.NodeName)}
	tell := func(kind, reason, message string) { recorder.Event(ref, kind, reason, message) }
	k.guard(ctx, &wg, tell)
	if k.shutdown, err = k.ender(tell); err != nil {
		return err
	}
	if k.shutdown != nil {
		wg.Go(func() { k.shutdown.Run(ctx) })
	}
	if k.client != nil {
		if dir := k.cfg.Flags.CertDir; k.cfg.Kubelet.RotateCertificates && k.cfg.Rest.CertFile == certificate.Current(dir, "kubelet-client") {
			wg.Go(func() { certificate.ForClient(k.client, dir, k.cfg.NodeName, k.log).Run(ctx) })
		}
		if k.cfg.Kubelet.ServerTLSBootstrap && k.cfg.Kubelet.TLSCertFile == "" {
			wg.Go(func() {
				certificate.ForServer(k.client, k.cfg.Flags.CertDir, k.cfg.NodeName, k.cfg.NodeIPs, k.log).Run(ctx)
			})
		}
	}
	failed := make(chan error, 2)
	wg.Go(func() {
		if err := k.managers.run(ctx); err != nil {
			failed <- err
			cancel()
		}
	})
	wg.Go(func() {
		if err := srv.Run(ctx); err != nil {
			failed <- err
			cancel()
		}
	})
	if k.client != nil {
		k.node = node.New(node.Config{Client: k.client, Name: k.cfg.NodeName, IPs: k.cfg.NodeIPs, Labels: k.labels(), Taints: k.cfg.Taints,
			ProviderID: k.cfg.Kubelet.ProviderID, Provided: k.cfg.provided(), External: k.cfg.Flags.CloudProvider == "external",
			Register: *k.cfg.Kubelet.RegisterNode, Lease: time.Duration(k.cfg.Kubelet.NodeLeaseDurationSeconds) * time.Second,
			Status: k.cfg.Kubelet.NodeStatusUpdateFrequency.Duration, Report: k.cfg.Kubelet.NodeStatusReportFrequency.Duration,
			Facts: k.facts.status, Recorder: recorder, Log: k.log})
		k.watchServices(ctx, &wg)
		wg.Go(func() { _ = k.node.Run(ctx) })
		wg.Go(func() { k.startup(ctx, time.Now()) })
		wg.Go(func() { k.mirrors.run(ctx) })
		k.watchPods(ctx, &wg)
	} else {
		k.synced.Store(true)
	}
	k.watchStatic(ctx, &wg, func(message string) { recorder.Event(ref, v1.EventTypeWarning, "InvalidStaticPod", message) })
	wg.Go(func() { k.rotateLogs(ctx) })
	if !k.cgroups.flat {
		wg.Go(func() { k.weigh(ctx, k.weighed) })
	}
	wg.Go(func() { k.drivers.Run(ctx) })
	wg.Go(func() { _ = k.watcher.Run(ctx) })
	k.log.Info("the kubelet runs", "node", k.cfg.NodeName, "ips", k.cfg.NodeIPs, "version", k.cfg.Version)
	<-ctx.Done()
	wg.Wait()
	k.pods.Wait()
	k.statuses.wg.Wait()
	_ = k.cri.Close()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (k *Kubelet) labels() map[string]string {
	out := map[string]string{v1.LabelHostname: k.cfg.NodeName, v1.LabelOSStable: runtime.GOOS, v1.LabelArchStable: runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH}
	maps.Copy(out, k.cfg.Flags.Labels)
	return out
}

// apiReady tells whether the API's pods of this node have been listed.
func (k *Kubelet) apiReady() bool { return k.synced.Load() && k.statics.read() }

func (k *Kubelet) healthy() error {
	if at := k.watcher.Healthy(); time.Since(at) > 3*time.Minute {
		return fmt.Errorf("the container runtime has not answered since %s", at.Format(time.RFC3339))
	}
	return nil
}

// watchPods feeds the pods bound to this node to the manager.
func (k *Kubelet) watchPods(ctx context.Context, wg *sync.WaitGroup) {
	lw := k.client.Pods.ListWatch(fields.OneTermEqualSelector("spec.nodeName", k.cfg.NodeName))
	// Statuses come back through this watch; only what the manager acts on passes on.
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: lw, ObjectType: &v1.Pod{}, Transform: slim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { k.apiPod(o.(*v1.Pod)) },
			UpdateFunc: func(_, o any) { k.apiPod(o.(*v1.Pod)) },
			DeleteFunc: func(o any) {
				if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = t.Obj
				}
				pod, ok := o.(*v1.Pod)
				if !ok {
					return
				}
				if isMirror(pod) {
					k.mirrors.setAPI(pod, true)
					return
				}
				if other := k.pods.ByUID(string(pod.UID)); other != nil && isStatic(other) {
					return
				}
				k.pods.Remove(string(pod.UID), pod)
				k.statuses.Forget(pod.UID)
			},
		}})
	wg.Go(func() { informer.RunWithContext(ctx) })
	wg.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			k.synced.Store(true)
			k.mirrors.wake()
		}
	})
}

// apiPod takes one pod of the API. The same name again under another UID means that the first was deleted unseen.
func (k *Kubelet) apiPod(pod *v1.Pod) {
	if isMirror(pod) {
		k.mirrors.setAPI(pod, false)
		return
	}
	if isStatic(pod) {
		return
	}
	if other := k.pods.ByUID(string(pod.UID)); other != nil && isStatic(other) {
		k.log.Error("a static pod has the UID of a pod of the API, which does not run", "pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID, "static", other.Namespace+"/"+other.Name)
		return
	}
	if old := k.pods.Pod(pod.Namespace, pod.Name); old != nil && old.UID != pod.UID {
		k.pods.Remove(string(old.UID), nil)
	}
	if !k.pods.Has(string(pod.UID)) && (pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed) && pod.DeletionTimestamp == nil {
		// It ended in an earlier life of this kubelet; its worker keeps logs reachable and cleans up.
		k.log.Debug("an ended pod", "pod", pod.Namespace+"/"+pod.Name)
	}
	k.pods.Update(pod)
}

func slim(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}

func (k *Kubelet) watchServices(ctx context.Context, wg *sync.WaitGroup) {
	lw := k.client.Services.ListWatch(fields.Everything())
	indexer, informer := cache.NewIndexerInformer(lw, &v1.Service{}, 0, cache.ResourceEventHandlerFuncs{}, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	k.objects.services, k.objects.synced = indexer, informer.HasSynced
	wg.Go(func() { informer.RunWithContext(ctx) })
}

// orphans ends what runs without a pod: seen twice, and only after every source has spoken. It answers whether there is
// something to look at a second time.
func (k *Kubelet) orphans(ctx context.Context, seen []cri.Pod) bool {
	known := map[string]bool{}
	for _, p := range seen {
		known[p.UID] = true
	}
	k.pods.Listed(known)
	if !k.apiReady() {
		return false
	}
	again := false
	now := map[string]int{}
	for _, p := range seen {
		if k.pods.Has(p.UID) {
			continue
		}
		now[p.UID] = k.strays[p.UID] + 1
		if now[p.UID] < 2 {
			again = true
			continue
		}
		k.metrics.Orphan()
		k.log.Info("ending a pod nobody asks for", "pod", p.Namespace+"/"+p.Name, "uid", p.UID)
		grace := int64(30)
		if p.Grace != nil {
			grace = *p.Grace
		}
		k.pods.Update(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID),
			Annotations: map[string]string{annotationSource: "runtime"}}, Spec: v1.PodSpec{TerminationGracePeriodSeconds: &grace}})
		k.pods.Remove(p.UID, nil)
	}
	k.strays = now
	if ctx.Err() == nil {
		k.sweep()
		k.managers.keep(ctx, func(uid string) bool { return k.pods.Has(uid) || k.strays[uid] > 0 })
	}
	return again
}

// sweep removes the folders, mounts and logs of pods which are neither here nor in the runtime.
func (k *Kubelet) sweep() {
	gone := func(uid string) bool { return !k.pods.Has(uid) && k.strays[uid] == 0 }
	entries, err := os.ReadDir(k.cfg.Flags.RootDir + "/pods")
	if err != nil {
		return
	}
	done, failed := 0, 0
	defer func() { k.metrics.Swept(done, failed) }()
	for _, e := range entries {
		uid := e.Name()
		if !gone(uid) {
			continue
		}
		done++
		if err := k.volumes.Teardown(uid); err != nil {
			failed++
			k.log.Warn("removing an orphan's volumes", "uid", uid, "err", err)
			continue
		}
		_ = k.cgroups.Destroy(uid)
		_ = os.RemoveAll(k.volumes.PodDir(uid))
	}
	for uid := range k.cgroups.pods() {
		if !gone(uid) {
			continue
		}
		if err := k.cgroups.Destroy(uid); err != nil {
			k.log.Warn("removing an orphan's cgroup", "uid", uid, "err", err)
		}
	}
	defer func() {
		if err := lifecycle.SweepLinks(k.cfg.Kubelet.PodLogsDir); err != nil {
			k.log.Debug("removing links to logs", "err", err)
		}
	}()
	logs, err := os.ReadDir(k.cfg.Kubelet.PodLogsDir)
	if err != nil {
		return
	}
	for _, e := range logs {
		// <namespace>_<name>_<uid>
		if parts := strings.Split(e.Name(), "_"); len(parts) == 3 && e.IsDir() && gone(parts[2]) {
			_ = os.RemoveAll(filepath.Join(k.cfg.Kubelet.PodLogsDir, e.Name()))
		}
	}
}
