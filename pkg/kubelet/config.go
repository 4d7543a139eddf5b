package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/kubelet/certificate"
	"github.com/sextant-k8s/sextant/pkg/kubelet/eviction"
	"github.com/sextant-k8s/sextant/pkg/kubelet/shutdown"
)

// Flags are what the command line says; the rest comes from the configuration file.
type Flags struct {
	Config, ConfigDir, Kubeconfig         string
	Bootstrap                             string
	RotateCertificates, RotateServer      bool
	HostnameOverride, NodeIP, RootDir     string
	RuntimeEndpoint, ImageEndpoint        string
	CredentialConfig, CredentialBin       string
	PodManifestPath, ManifestURL, CertDir string
	TLSCertFile, TLSKeyFile, ClientCA     string
	CgroupRoot, CgroupDriver, Resolv      string
	ClusterDomain                         string
	ClusterDNS                            []string
	Labels                                map[string]string
	Taints                                []string
	Address                               string
	Port, ReadOnlyPort, HealthzPort       int32
	Anonymous, Webhook                    *bool
	AuthorizationMode                     string
	Register                              bool
	FailSwapOn                            *bool
	MaxPods                               int32
	Changed                               func(flag string) bool
	// CloudProvider is external or empty.
	CloudProvider string

	fields overlay
}

// Config is a kubelet's whole configuration.
type Config struct {
	Flags   Flags
	Kubelet kubeletv1beta1.KubeletConfiguration
	// Rest is nil for a kubelet without an API server.
	Rest     *rest.Config
	NodeName string
	NodeIPs  []string
	Taints   []v1.Taint
	Version  string
	// SystemBus connects to the machine's message bus, and LogindDropins is logind's folder of configuration; both have
	// their usual places when nil and empty.
	SystemBus     func(ctx context.Context) (*dbus.Conn, error)
	LogindDropins string
	Log           *slog.Logger

	thresholds []eviction.Threshold
}

// Load reads the configuration file and the kubeconfig; flags which were given win over the file. With
// --bootstrap-kubeconfig and no usable kubeconfig it first has the cluster sign the node's certificate, however long that
// takes; ctx ends the waiting.
func Load(ctx context.Context, f Flags, version string, log *slog.Logger) (Config, error) {
	c := Config{Flags: f, Version: version, Log: log}
	k := &c.Kubelet
	files := []string{}
	if f.Config != "" {
		files = append(files, f.Config)
	}
	if f.ConfigDir != "" {
		more, err := filepath.Glob(filepath.Join(f.ConfigDir, "*.conf"))
		if err != nil {
			return c, err
		}
		files = append(files, more...)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			return c, fmt.Errorf("reading --config: %w; give the path of a KubeletConfiguration", err)
		}
		if err := yaml.UnmarshalStrict(raw, k); err != nil {
			return c, fmt.Errorf("reading --config %s: %w", name, err)
		}
		if k.Kind != "" && k.Kind != "KubeletConfiguration" || k.APIVersion != "" && k.APIVersion != kubeletv1beta1.SchemeGroupVersion.String() {
			return c, fmt.Errorf("reading --config %s: want kind KubeletConfiguration of %s, got %s of %s", name, kubeletv1beta1.SchemeGroupVersion, k.Kind, k.APIVersion)
		}
	}
	if err := f.fields.apply(k); err != nil {
		return c, fmt.Errorf("reading the flags: %w", err)
	}
	c.flags()
	c.defaults()
	for _, name := range unheeded(k) {
		log.Warn("a field of KubeletConfiguration is accepted and has no effect here", "field", name)
	}
	if err := c.identity(); err != nil {
		return c, err
	}
	for _, t := range f.Taints {
		taint, err := parseTaint(t)
		if err != nil {
			return c, err
		}
		c.Taints = append(c.Taints, taint)
	}
	c.Taints = append(c.Taints, k.RegisterWithTaints...)
	switch f.CloudProvider {
	case "":
	case "external":
		// Nothing is scheduled here before the provider's controller has looked at the node.
		c.Taints = append(c.Taints, v1.Taint{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: v1.TaintEffectNoSchedule})
	default:
		return c, fmt.Errorf("--cloud-provider %q: want external, or nothing", f.CloudProvider)
	}
	var err error
	if c.thresholds, err = eviction.Parse(k.EvictionHard, k.EvictionSoft, k.EvictionSoftGracePeriod, k.EvictionMinimumReclaim); err != nil {
		return c, err
	}
	if err := c.check(); err != nil {
		return c, err
	}
	if _, err := shutdown.Groups(k); err != nil {
		return c, err
	}
	if _, _, err := c.reserved(); err != nil {
		return c, err
	}
	if _, err := c.enforced(); err != nil {
		return c, err
	}
	switch k.MemorySwap.SwapBehavior {
	case "", "NoSwap", "LimitedSwap":
	default:
		return c, fmt.Errorf("memorySwap.swapBehavior %q: want NoSwap or LimitedSwap", k.MemorySwap.SwapBehavior)
	}
	if high, low := *k.ImageGCHighThresholdPercent, *k.ImageGCLowThresholdPercent; high < 0 || high > 100 || low < 0 || low > high {
		return c, fmt.Errorf("imageGCHighThresholdPercent %d and imageGCLowThresholdPercent %d: want 0 <= low <= high <= 100", high, low)
	}
	if f.Bootstrap != "" && f.Kubeconfig == "" {
		return c, errors.New("--bootstrap-kubeconfig makes the file of --kubeconfig: give that too")
	}
	if f.Bootstrap != "" {
		if err := certificate.Bootstrap(ctx, f.Bootstrap, f.Kubeconfig, c.Flags.CertDir, c.NodeName, log); err != nil {
			return c, err
		}
	}
	if f.Kubeconfig != "" {
		rc, err := clientcmd.BuildConfigFromFlags("", f.Kubeconfig)
		if err != nil {
			return c, fmt.Errorf("reading --kubeconfig %s: %w", f.Kubeconfig, err)
		}
		rc.QPS = -1
		rc.UserAgent = "kubelet/" + version
		rc.ContentType = "application/vnd.kubernetes.protobuf"
		rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
		c.Rest = rc
	}
	if c.Rest == nil && k.StaticPodPath == "" && k.StaticPodURL == "" {
		return c, errors.New("nothing to run: give --kubeconfig for an API server, or --pod-manifest-path for a folder of static pods")
	}
	return c, nil
}

// flags lets every flag that was given win.
func (c *Config) flags() {
	f, k := c.Flags, &c.Kubelet
	given := func(name string) bool { return f.Changed != nil && f.Changed(name) }
	text := func(name string, dst *string, v string) {
		if given(name) {
			*dst = v
		}
	}
	text("container-runtime-endpoint", &k.ContainerRuntimeEndpoint, f.RuntimeEndpoint)
	text("image-service-endpoint", &k.ImageServiceEndpoint, f.ImageEndpoint)
	text("pod-manifest-path", &k.StaticPodPath, f.PodManifestPath)
	text("manifest-url", &k.StaticPodURL, f.ManifestURL)
	text("tls-cert-file", &k.TLSCertFile, f.TLSCertFile)
	text("tls-private-key-file", &k.TLSPrivateKeyFile, f.TLSKeyFile)
	text("client-ca-file", &k.Authentication.X509.ClientCAFile, f.ClientCA)
	text("cgroup-root", &k.CgroupRoot, f.CgroupRoot)
	text("cgroup-driver", &k.CgroupDriver, f.CgroupDriver)
	text("cluster-domain", &k.ClusterDomain, f.ClusterDomain)
	text("address", &k.Address, f.Address)
	if given("resolv-conf") {
		k.ResolverConfig = &f.Resolv
	}
	if given("cluster-dns") {
		k.ClusterDNS = f.ClusterDNS
	}
	if given("port") {
		k.Port = f.Port
	}
	if given("read-only-port") {
		k.ReadOnlyPort = f.ReadOnlyPort
	}
	if given("healthz-port") {
		k.HealthzPort = &f.HealthzPort
	}
	if given("max-pods") {
		k.MaxPods = f.MaxPods
	}
	if given("anonymous-auth") {
		k.Authentication.Anonymous.Enabled = f.Anonymous
	}
	if given("authentication-token-webhook") {
		k.Authentication.Webhook.Enabled = f.Webhook
	}
	if given("authorization-mode") {
		k.Authorization.Mode = kubeletv1beta1.KubeletAuthorizationMode(f.AuthorizationMode)
	}
	if given("rotate-certificates") {
		k.RotateCertificates = f.RotateCertificates
	}
	if given("rotate-server-certificates") {
		k.ServerTLSBootstrap = f.RotateServer
	}
	if given("fail-swap-on") {
		k.FailSwapOn = f.FailSwapOn
	}
}

// defaults are upstream's.
func (c *Config) defaults() {
	k := &c.Kubelet
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	dur := func(p *metav1.Duration, v time.Duration) {
		if p.Duration == 0 {
			p.Duration = v
		}
	}
	num := func(p *int32, v int32) {
		if *p == 0 {
			*p = v
		}
	}
	on := func(p **bool, v bool) {
		if *p == nil {
			*p = &v
		}
	}
	set(&k.ContainerRuntimeEndpoint, "unix:///run/containerd/containerd.sock")
	set(&k.Address, "0.0.0.0")
	set(&k.CgroupDriver, "cgroupfs")
	set(&k.PodLogsDir, "/var/log/pods")
	set(&k.HealthzBindAddress, "127.0.0.1")
	set((*string)(&k.Authorization.Mode), "Webhook")
	set(&k.ContainerLogMaxSize, "10Mi")
	if k.ContainerLogMonitorInterval == nil {
		k.ContainerLogMonitorInterval = &metav1.Duration{Duration: 10 * time.Second}
	}
	if k.ContainerLogMaxFiles == nil {
		files := int32(5)
		k.ContainerLogMaxFiles = &files
	}
	num(&k.Port, 10250)
	num(&k.MaxPods, 110)
	if k.PodsPerCore > 0 {
		k.MaxPods = min(k.MaxPods, k.PodsPerCore*int32(runtime.NumCPU()))
	}
	num(&k.NodeLeaseDurationSeconds, 40)
	dur(&k.SyncFrequency, time.Minute)
	dur(&k.FileCheckFrequency, 20*time.Second)
	dur(&k.HTTPCheckFrequency, 20*time.Second)
	dur(&k.VolumeStatsAggPeriod, time.Minute)
	dur(&k.NodeStatusUpdateFrequency, 10*time.Second)
	dur(&k.NodeStatusReportFrequency, 5*time.Minute)
	dur(&k.StreamingConnectionIdleTimeout, 4*time.Hour)
	dur(&k.Authentication.Webhook.CacheTTL, 2*time.Minute)
	dur(&k.Authorization.Webhook.CacheAuthorizedTTL, 5*time.Minute)
	dur(&k.Authorization.Webhook.CacheUnauthorizedTTL, 30*time.Second)
	on(&k.EnableServer, true)
	on(&k.RegisterNode, c.Flags.Register || c.Flags.Changed == nil)
	on(&k.FailSwapOn, true)
	on(&k.CgroupsPerQOS, true)
	on(&k.EnableDebuggingHandlers, true)
	on(&k.SerializeImagePulls, true)
	on(&k.Authentication.Anonymous.Enabled, false)
	on(&k.Authentication.Webhook.Enabled, true)
	if k.HealthzPort == nil {
		port := int32(10248)
		k.HealthzPort = &port
	}
	if k.ResolverConfig == nil {
		path := "/etc/resolv.conf"
		k.ResolverConfig = &path
	}
	whole := func(p **int32, v int32) {
		if *p == nil {
			*p = &v
		}
	}
	whole(&k.NodeStatusMaxImages, 50)
	whole(&k.OOMScoreAdj, -999)
	whole(&k.ImageGCHighThresholdPercent, 85)
	whole(&k.ImageGCLowThresholdPercent, 80)
	dur(&k.ImageMinimumGCAge, 2*time.Minute)
	dur(&k.EvictionPressureTransitionPeriod, 5*time.Minute)
	dur(&k.CPUManagerReconcilePeriod, 10*time.Second)
	if merge := k.MergeDefaultEvictionSettings; k.EvictionHard == nil || merge != nil && *merge {
		own := k.EvictionHard
		k.EvictionHard = map[string]string{"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%", "imagefs.available": "15%", "imagefs.inodesFree": "5%"}
		maps.Copy(k.EvictionHard, own)
	}
	if c.Flags.RootDir == "" {
		c.Flags.RootDir = "/var/lib/kubelet"
	}
	if c.Flags.CertDir == "" {
		c.Flags.CertDir = filepath.Join(c.Flags.RootDir, "pki")
	}
}

// podBounds are how many processes a pod may have, 0 is any number, and the period of cpu limits in microseconds, 0 for
// none.
func (c Config) podBounds() (pids, period int64) {
	if n := c.Kubelet.PodPidsLimit; n != nil && *n > 0 {
		pids = *n
	}
	period = defaultPeriod
	if d := c.Kubelet.CPUCFSQuotaPeriod; d != nil && d.Duration > 0 {
		period = d.Microseconds()
	}
	if on := c.Kubelet.CPUCFSQuota; on != nil && !*on {
		period = 0
	}
	return pids, period
}

// identity is the node's name and addresses.
func (c *Config) identity() error {
	name := c.Flags.HostnameOverride
	if name == "" {
		h, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("reading the host name: %w; give --hostname-override", err)
		}
		name = h
	}
	c.NodeName = strings.ToLower(strings.TrimSpace(name))
	if c.NodeName == "" {
		return errors.New("the node has no name; give --hostname-override")
	}
	for _, s := range strings.Split(c.Flags.NodeIP, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if net.ParseIP(s) == nil {
			return fmt.Errorf("--node-ip %q is not an IP address", s)
		}
		c.NodeIPs = append(c.NodeIPs, s)
	}
	if len(c.NodeIPs) == 0 {
		// The address the default route would use; no packet is sent.
		conn, err := net.Dial("udp4", "192.0.2.1:9")
		if err == nil {
			c.NodeIPs = []string{conn.LocalAddr().(*net.UDPAddr).IP.String()}
			_ = conn.Close()
		} else {
			c.NodeIPs = []string{"127.0.0.1"}
		}
	}
	return nil
}

// parseTaint reads key=value:Effect or key:Effect.
func parseTaint(s string) (v1.Taint, error) {
	kv, effect, ok := strings.Cut(s, ":")
	key, value, _ := strings.Cut(kv, "=")
	t := v1.Taint{Key: key, Value: value, Effect: v1.TaintEffect(effect)}
	switch t.Effect {
	case v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute:
	default:
		ok = false
	}
	if !ok || key == "" {
		return t, fmt.Errorf("--register-with-taints %q: want key=value:NoSchedule, PreferNoSchedule or NoExecute", s)
	}
	return t, nil
}
