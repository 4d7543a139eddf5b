// Package metrics counts and times what a kubelet does, under upstream's names.
//
// Flow: one Set per kubelet; the runtime's client, workers, probes, cgroups, volumes and the server tell it what they did ->
// the server's /metrics and /metrics/probes show it, beside what they read off the kubelet when asked. A Set may be used from
// any goroutine; a nil Set counts nothing.
package metrics

import (
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	v1 "k8s.io/api/core/v1"
)

// Set is all of them.
type Set struct {
	// Kubelet is what /metrics shows, Probes what /metrics/probes does.
	Kubelet, Probes *prometheus.Registry

	runtimeOps, runtimeErrors                   *prometheus.CounterVec
	runtimeTook, sandboxTook                    *prometheus.HistogramVec
	sandboxErrors                               *prometheus.CounterVec
	relist, gap, podRelist, connected           prometheus.Observer
	lastSeen                                    prometheus.Gauge
	connections, lost                           prometheus.Counter
	step                                        *prometheus.HistogramVec
	firstStep, start, startSLI, startTotal      prometheus.Observer
	statusTook, perPod                          prometheus.Observer
	startedPods, startedPodErrors               prometheus.Counter
	mappedPods, mappedPodErrors                 prometheus.Counter
	started, startErrors, terminated, restarted *prometheus.CounterVec
	firstNetwork                                prometheus.Gauge
	fallbacks, earlySleep, orphans              prometheus.Counter
	ensured                                     *prometheus.CounterVec
	pulls                                       *prometheus.HistogramVec
	resizes                                     *prometheus.CounterVec
	resizeTook                                  *prometheus.HistogramVec
	cgroup                                      *prometheus.HistogramVec
	evictions, preemptions                      *prometheus.CounterVec
	statsAge                                    *prometheus.HistogramVec
	storage                                     *prometheus.HistogramVec
	volumeTook                                  *prometheus.HistogramVec
	orphanVolumes, orphanVolumeErrors           prometheus.Gauge
	topologyAsked, topologyErrors               prometheus.Counter
	topologyTook                                prometheus.Observer
	cpuAsked, cpuErrors, memAsked, memErrors    prometheus.Counter
	httpAsked                                   *prometheus.CounterVec
	httpTook                                    *prometheus.HistogramVec
	httpNow                                     *prometheus.GaugeVec
	websockets                                  *prometheus.CounterVec
	probes                                      *prometheus.CounterVec
	probeTook                                   *prometheus.HistogramVec
	nodeStart, nodeBefore, nodeUp               prometheus.Gauge
	nodeRegister, nodeEnd                       prometheus.Gauge
	shutdownBegin, shutdownEnd                  prometheus.Gauge
	volumes, volumeErrors, volumesMounted       prometheus.Counter
	pluginErrors                                *prometheus.CounterVec
	pluginTook                                  *prometheus.HistogramVec
}

// startBuckets are those of pods' starts, seconds.
var startBuckets = []float64{0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}

// maker registers what it makes.
type maker struct{ in *prometheus.Registry }

func (m maker) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.in.MustRegister(c)
	return c
}

func (m maker) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	m.in.MustRegister(c)
	return c
}

func (m maker) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	m.in.MustRegister(g)
	return g
}

func (m maker) times(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.in.MustRegister(h)
	return h
}

func (m maker) time(name, help string, buckets []float64) prometheus.Observer {
	return m.times(name, help, buckets).WithLabelValues()
}

// New makes a Set with nothing counted.
func New(node, version string) *Set {
	s := &Set{Kubelet: prometheus.NewRegistry(), Probes: prometheus.NewRegistry()}
	m := maker{s.Kubelet}
	m.in.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	def := prometheus.DefBuckets
	s.runtimeOps = m.counters("kubelet_runtime_operations_total", "Calls of the container runtime.", "operation_type")
	s.runtimeErrors = m.counters("kubelet_runtime_operations_errors_total", "Calls of the container runtime that failed.", "operation_type")
	s.runtimeTook = m.times("kubelet_runtime_operations_duration_seconds", "Time of a call of the container runtime.", def, "operation_type")
	s.sandboxTook = m.times("kubelet_run_podsandbox_duration_seconds", "Time to make a sandbox.", def, "runtime_handler")
	s.sandboxErrors = m.counters("kubelet_run_podsandbox_errors_total", "Sandboxes that could not be made.", "runtime_handler")
	s.relist = m.time("kubelet_pleg_relist_duration_seconds", "Time of a look at all that runs.", def)
	s.gap = m.time("kubelet_pleg_relist_interval_seconds", "Time between two looks at all that runs.", []float64{0.5, 1, 2.5, 5, 10, 20, 30, 35, 60, 120, 300})
	s.podRelist = m.time("kubelet_pleg_pod_relist_duration_seconds", "Time of a look at one pod.", def)
	s.lastSeen = m.gauge("kubelet_pleg_last_seen_seconds", "When all that runs was last looked at.")
	m.counter("kubelet_pleg_discard_events", "Events of the runtime that nobody could take.")
	s.connected = m.time("kubelet_evented_pleg_connection_latency_seconds", "How late the runtime's events come.", def)
	s.connections = m.counter("kubelet_evented_pleg_connection_success_count", "Streams of events the runtime gave.")
	s.lost = m.counter("kubelet_evented_pleg_connection_error_count", "Streams of events that broke.")
	s.step = m.times("kubelet_pod_worker_duration_seconds", "Time of one step of a pod.", def, "operation_type")
	s.firstStep = m.time("kubelet_pod_worker_start_duration_seconds", "Time from a pod's arrival to its first step.", def)
	s.start = m.time("kubelet_pod_start_duration_seconds", "Time from a pod's arrival until it runs.", startBuckets)
	s.startSLI = m.time("kubelet_pod_start_sli_duration_seconds", "Time from a pod's creation until it runs, without pulls and init containers.", startBuckets)
	s.startTotal = m.time("kubelet_pod_start_total_duration_seconds", "Time from a pod's creation until it runs.", startBuckets)
	s.firstNetwork = m.gauge("kubelet_first_network_pod_start_sli_duration_seconds", "The same for the first pod with a network of its own.")
	s.statusTook = m.time("kubelet_pod_status_sync_duration_seconds", "Time from a status to its being written.", []float64{0.01, 0.05, 0.1, 0.5, 1, 5, 10, 20, 30, 45, 60})
	s.perPod = m.time("kubelet_containers_per_pod_count", "Containers of a pod.", prometheus.ExponentialBuckets(1, 2, 5))
	s.startedPods = m.counter("kubelet_started_pods_total", "Sandboxes made.")
	s.startedPodErrors = m.counter("kubelet_started_pods_errors_total", "Sandboxes that could not be made.")
	s.mappedPods = m.counter("kubelet_started_user_namespaced_pods_total", "Sandboxes made with users of their own.")
	s.mappedPodErrors = m.counter("kubelet_started_user_namespaced_pods_errors_total", "Sandboxes with users of their own that could not be made.")
	s.started = m.counters("kubelet_started_containers_total", "Containers started.", "container_type")
	s.startErrors = m.counters("kubelet_started_containers_errors_total", "Containers that could not be started.", "container_type", "code")
	s.terminated = m.counters("kubelet_terminated_containers_total", "Containers that ended.", "container_type", "exit_code", "reason")
	s.restarted = m.counters("kubelet_restarted_pods_total", "Pods that came again under the UID of one that ended.", "static")
	s.fallbacks = m.counter("kubelet_lifecycle_handler_http_fallbacks_total", "Hooks asked by HTTP since HTTPS was not spoken.")
	s.earlySleep = m.counter("kubelet_sleep_action_terminated_early_total", "Sleeping hooks that were cut short.")
	s.orphans = m.counter("kubelet_orphaned_runtime_pods_total", "Pods found running that nobody asked for.")
	s.ensured = m.counters("kubelet_image_manager_ensure_image_requests_total", "Containers that asked for their image.", "pull_policy", "present_locally", "pull_required")
	s.pulls = m.times("kubelet_image_pull_duration_seconds", "Time of an image's pull.", []float64{1, 5, 10, 20, 30, 60, 180, 360, 480, 600, 900, 1200, 1800, 2700, 3600}, "image_size_in_bytes")
	s.resizes = m.counters("kubelet_container_requested_resizes_total", "Changes of containers' sizes that were asked for.", "resource", "requirement", "operation")
	s.resizeTook = m.times("kubelet_pod_resize_duration_milliseconds", "Time of a change of size, ms.", prometheus.ExponentialBuckets(10, 2, 12), "success")
	s.cgroup = m.times("kubelet_cgroup_manager_duration_seconds", "Time of work on a cgroup.", def, "operation_type")
	s.evictions = m.counters("kubelet_evictions", "Pods evicted.", "eviction_signal")
	s.statsAge = m.times("kubelet_eviction_stats_age_seconds", "Age of the figures a pod was evicted by.", def, "eviction_signal")
	s.preemptions = m.counters("kubelet_preemptions", "Pods ended for a critical one.", "preemption_signal")
	s.storage = m.times("storage_operation_duration_seconds", "Time of an operation on volumes.", []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}, "volume_plugin", "operation_name", "status", "migrated")
	s.volumeTook = m.times("volume_operation_total_seconds", "Time of an operation on volumes from the first try on.", []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}, "plugin_name", "operation_name")
	s.orphanVolumes = m.gauge("kubelet_orphan_pod_cleaned_volumes", "Volumes of pods that are gone, removed at the last look.")
	s.orphanVolumeErrors = m.gauge("kubelet_orphan_pod_cleaned_volumes_errors", "The same that could not be removed.")
	s.topologyAsked = m.counter("kubelet_topology_manager_admission_requests_total", "Pods that asked for a part of the node.")
	s.topologyErrors = m.counter("kubelet_topology_manager_admission_errors_total", "Pods that could not have it.")
	s.topologyTook = m.time("kubelet_topology_manager_admission_duration_ms", "Time to decide about it, ms.", prometheus.ExponentialBuckets(.05, 2, 15))
	s.cpuAsked = m.counter("kubelet_cpu_manager_pinning_requests_total", "Containers that asked for CPUs of their own.")
	s.cpuErrors = m.counter("kubelet_cpu_manager_pinning_errors_total", "Containers that could not have them.")
	s.memAsked = m.counter("kubelet_memory_manager_pinning_requests_total", "Pods that asked for memory of certain nodes.")
	s.memErrors = m.counter("kubelet_memory_manager_pinning_errors_total", "Pods that could not have it.")
	http := []string{"method", "path", "server_type", "long_running"}
	s.httpAsked = m.counters("kubelet_http_requests_total", "Requests of the kubelet's ports.", http...)
	s.httpTook = m.times("kubelet_http_requests_duration_seconds", "Time to answer them.", def, http...)
	s.httpNow = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_http_inflight_requests", Help: "Requests now being answered."}, http)
	m.in.MustRegister(s.httpNow)
	s.websockets = m.counters("kubelet_websocket_streaming_requests_total", "Streams over WebSockets.", "subresource")
	s.nodeStart = m.gauge("kubelet_node_startup_duration_seconds", "Time from the machine's boot until the node was ready.")
	s.nodeBefore = m.gauge("kubelet_node_startup_pre_kubelet_duration_seconds", "Time from the machine's boot until the kubelet began.")
	s.nodeUp = m.gauge("kubelet_node_startup_pre_registration_duration_seconds", "Time from the kubelet's begin until it asked for the node to be registered.")
	s.nodeRegister = m.gauge("kubelet_node_startup_registration_duration_seconds", "Time from that until the node was registered.")
	s.nodeEnd = m.gauge("kubelet_node_startup_post_registration_duration_seconds", "Time from the node's registration until it was ready.")
	s.shutdownBegin = m.gauge("kubelet_graceful_shutdown_start_time_seconds", "When the node's last shutdown began.")
	s.shutdownEnd = m.gauge("kubelet_graceful_shutdown_end_time_seconds", "When the node's last shutdown ended.")
	s.pluginErrors = m.counters("kubelet_credential_provider_plugin_errors", "Runs of credential providers that failed.", "plugin_name")
	s.pluginTook = m.times("kubelet_credential_provider_plugin_duration", "Time of a credential provider's run, seconds.", def, "plugin_name")
	s.volumes = m.counter("kubelet_image_volume_requested_total", "Volumes made of images that were asked for.")
	s.volumesMounted = m.counter("kubelet_image_volume_mounted_succeed_total", "Volumes made of images that were mounted.")
	s.volumeErrors = m.counter("kubelet_image_volume_mounted_errors_total", "Volumes made of images that could not be mounted.")
	m.counter("kubelet_pod_watch_events_dropped_total", "Changes of pods that nobody could take.")
	constant := func(name, help string, labels prometheus.Labels) {
		m.in.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return 1 }))
	}
	constant("kubelet_node_name", "The node's name. The count is always 1.", prometheus.Labels{"node": node})
	constant("kubernetes_build_info", "What this is.", prometheus.Labels{"build_date": "", "compiler": runtime.Compiler, "git_commit": "", "git_tree_state": "",
		"git_version": version, "go_version": runtime.Version(), "major": "1", "minor": "37", "platform": runtime.GOOS + "/" + runtime.GOARCH})
	p := maker{s.Probes}
	s.probes = p.counters("prober_probe_total", "Answers of probes.", "probe_type", "result", "container", "pod", "namespace", "pod_uid")
	s.probeTook = p.times("prober_probe_duration_seconds", "Time of a probe.", def, "probe_type", "container", "pod", "namespace")
	return s
}

// Runtime tells of one call of the container runtime; what is its name there.
func (s *Set) Runtime(what string, took time.Duration, err error) {
	if s == nil {
		return
	}
	s.runtimeOps.WithLabelValues(what).Inc()
	s.runtimeTook.WithLabelValues(what).Observe(took.Seconds())
	if err != nil {
		s.runtimeErrors.WithLabelValues(what).Inc()
	}
}

// Sandbox tells of a sandbox that was made, or not.
func (s *Set) Sandbox(handler string, mapped bool, took time.Duration, err error) {
	if s == nil {
		return
	}
	s.startedPods.Inc()
	s.sandboxTook.WithLabelValues(handler).Observe(took.Seconds())
	if mapped {
		s.mappedPods.Inc()
	}
	if err == nil {
		return
	}
	s.startedPodErrors.Inc()
	s.sandboxErrors.WithLabelValues(handler).Inc()
	if mapped {
		s.mappedPodErrors.Inc()
	}
}

// Relisted tells of a look at all that runs, and how long after the last it came; zero is the first.
func (s *Set) Relisted(took, since time.Duration) {
	if s == nil {
		return
	}
	s.relist.Observe(took.Seconds())
	s.lastSeen.Set(float64(time.Now().UnixNano()) / 1e9)
	if since > 0 {
		s.gap.Observe(since.Seconds())
	}
}

// Looked tells of a look at one pod.
func (s *Set) Looked(took time.Duration) {
	if s != nil {
		s.podRelist.Observe(took.Seconds())
	}
}

// Streamed tells that the runtime's events flow, or no longer.
func (s *Set) Streamed(on bool) {
	if s == nil {
		return
	}
	if on {
		s.connections.Inc()
	} else {
		s.lost.Inc()
	}
}

// Event tells how late one of the runtime's came.
func (s *Set) Event(late time.Duration) {
	if s != nil {
		s.connected.Observe(max(late, 0).Seconds())
	}
}

// Stepped tells of one step of a pod: "create", "sync" or "kill".
func (s *Set) Stepped(kind string, took time.Duration) {
	if s != nil {
		s.step.WithLabelValues(kind).Observe(took.Seconds())
	}
}

// Arrived tells of a pod's first step.
func (s *Set) Arrived(waited time.Duration, containers int) {
	if s == nil {
		return
	}
	s.firstStep.Observe(waited.Seconds())
	s.perPod.Observe(float64(containers))
}

// Running tells that a pod runs: since it arrived, since it was created, and how much of that was pulls and init containers.
func (s *Set) Running(arrived, created, apart time.Duration) {
	if s == nil {
		return
	}
	s.start.Observe(arrived.Seconds())
	s.startTotal.Observe(created.Seconds())
	s.startSLI.Observe(max(created-apart, 0).Seconds())
}

// FirstNetwork tells of the first pod that runs with a network of its own.
func (s *Set) FirstNetwork(took time.Duration) {
	if s != nil {
		s.firstNetwork.Set(took.Seconds())
	}
}

// Written tells how long a status waited to be written.
func (s *Set) Written(took time.Duration) {
	if s != nil {
		s.statusTook.Observe(took.Seconds())
	}
}

// Started tells of a container's start: of kind "container", "init_container" or "ephemeral_container"; code is why not, or empty.
func (s *Set) Started(kind, code string) {
	if s == nil {
		return
	}
	s.started.WithLabelValues(kind).Inc()
	if code != "" {
		s.startErrors.WithLabelValues(kind, code).Inc()
	}
}

// Ended tells of a container's end.
func (s *Set) Ended(kind string, code int32, reason string) {
	if s != nil {
		s.terminated.WithLabelValues(kind, strconv.Itoa(int(code)), reason).Inc()
	}
}

// Orphan tells of a pod found running that nobody asked for.
func (s *Set) Orphan() {
	if s != nil {
		s.orphans.Inc()
	}
}

// Slept tells that a sleeping hook was cut short.
func (s *Set) Slept() {
	if s != nil {
		s.earlySleep.Inc()
	}
}

// Fallback tells that a hook which was to speak HTTPS spoke HTTP.
func (s *Set) Fallback() {
	if s != nil {
		s.fallbacks.Inc()
	}
}

// sizes are the steps in which an image's size is told.
var sizes = []struct {
	most uint64
	text string
}{{10 << 20, "0-10MB"}, {100 << 20, "10MB-100MB"}, {500 << 20, "100MB-500MB"}, {1 << 30, "500MB-1GB"}, {5 << 30, "1GB-5GB"}, {10 << 30, "5GB-10GB"}, {20 << 30, "10GB-20GB"},
	{30 << 30, "20GB-30GB"}, {40 << 30, "30GB-40GB"}, {60 << 30, "40GB-60GB"}, {100 << 30, "60GB-100GB"}}

// Pulled tells of an image's pull.
func (s *Set) Pulled(bytes uint64, took time.Duration) {
	if s == nil {
		return
	}
	text := "GT100GB"
	for _, z := range sizes {
		if bytes <= z.most {
			text = z.text
			break
		}
	}
	s.pulls.WithLabelValues(text).Observe(took.Seconds())
}

// Ensured tells that a container asked for its image.
func (s *Set) Ensured(policy v1.PullPolicy, present, pull bool) {
	if s != nil {
		s.ensured.WithLabelValues(string(policy), strconv.FormatBool(present), strconv.FormatBool(pull)).Inc()
	}
}

// ImageVolume tells of a volume made of an image.
func (s *Set) ImageVolume(err error) {
	if s == nil {
		return
	}
	s.volumes.Inc()
	if err != nil {
		s.volumeErrors.Inc()
	} else {
		s.volumesMounted.Inc()
	}
}

// Resized tells of a change of size that came to its end.
func (s *Set) Resized(took time.Duration, ok bool) {
	if s != nil {
		s.resizeTook.WithLabelValues(strconv.FormatBool(ok)).Observe(float64(took.Milliseconds()))
	}
}

// Resize tells that a container is to change size, and how: of "cpu" its "limits", say, "increase".
func (s *Set) Resize(resource, requirement, operation string) {
	if s != nil {
		s.resizes.WithLabelValues(resource, requirement, operation).Inc()
	}
}

// Cgroup times work on a pod's cgroup: "create", "update" or "destroy".
func (s *Set) Cgroup(kind string, took time.Duration) {
	if s != nil {
		s.cgroup.WithLabelValues(kind).Observe(took.Seconds())
	}
}

// Evicted tells of an eviction.
func (s *Set) Evicted(signal string, age time.Duration) {
	if s == nil {
		return
	}
	s.evictions.WithLabelValues(signal).Inc()
	s.statsAge.WithLabelValues(signal).Observe(age.Seconds())
}

// Stored tells of work on a pod's volumes: "volume_mount" or "volume_unmount" by a plugin.
func (s *Set) Stored(plugin, operation string, took time.Duration, err error) {
	if s == nil {
		return
	}
	how := "success"
	if err != nil {
		how = "fail-unknown"
	}
	s.storage.WithLabelValues(plugin, operation, how, "false").Observe(took.Seconds())
	if err == nil {
		s.volumeTook.WithLabelValues(plugin, operation).Observe(took.Seconds())
	}
}

// Swept tells how many pods that are gone had volumes, and of how many they could not be removed.
func (s *Set) Swept(done, failed int) {
	if s == nil {
		return
	}
	s.orphanVolumes.Set(float64(done))
	s.orphanVolumeErrors.Set(float64(failed))
}

// Admitted tells of a pod that asked for its part of the node: how many CPUs' owners it has, and whether memory is bound.
func (s *Set) Admitted(took time.Duration, cpus int, memory bool, err error) {
	if s == nil {
		return
	}
	s.topologyAsked.Inc()
	s.topologyTook.Observe(float64(took.Microseconds()) / 1000)
	s.cpuAsked.Add(float64(cpus))
	if memory {
		s.memAsked.Inc()
	}
	if err == nil {
		return
	}
	s.topologyErrors.Inc()
	s.cpuErrors.Add(float64(cpus))
	if memory {
		s.memErrors.Inc()
	}
}

// Asked counts a request until the function it answers is called.
func (s *Set) Asked(method, path, server string, long bool) func() {
	if s == nil {
		return func() {}
	}
	labels := []string{method, path, server, strconv.FormatBool(long)}
	s.httpAsked.WithLabelValues(labels...).Inc()
	s.httpNow.WithLabelValues(labels...).Inc()
	begun := time.Now()
	return func() {
		s.httpNow.WithLabelValues(labels...).Dec()
		s.httpTook.WithLabelValues(labels...).Observe(time.Since(begun).Seconds())
	}
}

// WebSocket tells of a stream: of "exec", "attach" or "portforward".
func (s *Set) WebSocket(of string) {
	if s != nil {
		s.websockets.WithLabelValues(of).Inc()
	}
}

// Probed tells of a probe's answer: "successful", "failed" or "unknown".
func (s *Set) Probed(kind, result, container string, pod *v1.Pod, took time.Duration) {
	if s == nil {
		return
	}
	s.probes.WithLabelValues(kind, result, container, pod.Name, pod.Namespace, string(pod.UID)).Inc()
	s.probeTook.WithLabelValues(kind, container, pod.Name, pod.Namespace).Observe(took.Seconds())
}

// Forget drops what was counted of one pod's probes.
func (s *Set) Forget(pod *v1.Pod) {
	if s == nil || len(pod.Name) == 0 {
		return
	}
	s.probes.DeletePartialMatch(prometheus.Labels{"pod_uid": string(pod.UID)})
	s.probeTook.DeletePartialMatch(prometheus.Labels{"pod": pod.Name, "namespace": pod.Namespace})
}
