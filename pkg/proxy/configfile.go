package proxy

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/proxy/ipvs"
)

// readFile puts what --config says over the flags. What has no meaning here (rates of requests, content types, feature gates, the period of
// resynchronization, hidden metrics, the port range) is accepted, as the flags of that name are; what would be served otherwise is refused.
func (c *Config) readFile() error {
	raw, err := os.ReadFile(c.ConfigFile)
	if err != nil {
		return fmt.Errorf("read --config: %w", err)
	}
	var file v1alpha1.KubeProxyConfiguration
	if err := yaml.UnmarshalStrict(raw, &file); err != nil {
		return fmt.Errorf("parse --config %s: %w", c.ConfigFile, err)
	}
	if file.APIVersion != "kubeproxy.config.k8s.io/v1alpha1" || file.Kind != "KubeProxyConfiguration" {
		return fmt.Errorf("--config %s: want kind KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1, got %s of %s", c.ConfigFile, file.Kind, file.APIVersion)
	}
	if file.Winkernel != (v1alpha1.KubeProxyWinkernelConfiguration{}) || file.WindowsRunAsService {
		return fmt.Errorf("--config %s: winkernel and windowsRunAsService are for Windows, which this proxy does not serve: remove them", c.ConfigFile)
	}
	c.ignored = ignored(&file)
	if ip, err := netip.ParseAddr(file.BindAddress); err == nil && ip.Is6() {
		c.Healthz, c.Metrics = "[::]:10256", "[::1]:10249"
	}
	host := file.HostnameOverride
	if c.flags != nil && c.flags.Changed("hostname-override") {
		// One file serves all nodes of a DaemonSet: the flag tells them apart.
		host = ""
	}
	for _, s := range []struct {
		from string
		to   *string
	}{
		{file.ClientConnection.Kubeconfig, &c.Kubeconfig}, {host, &c.Hostname}, {file.BindAddress, &c.BindAddress},
		{file.HealthzBindAddress, &c.Healthz}, {file.MetricsBindAddress, &c.Metrics}, {string(file.Mode), &c.Mode}, {file.ClusterCIDR, &c.ClusterCIDR},
		{string(file.DetectLocalMode), &c.LocalMode}, {file.Logging.Format, &c.LogFormat}, {file.DetectLocal.BridgeInterface, &c.LocalBridge}, {file.DetectLocal.InterfaceNamePrefix, &c.LocalPrefix},
	} {
		if s.from != "" {
			*s.to = s.from
		}
	}
	if len(file.NodePortAddresses) > 0 {
		c.NodePortsOn = file.NodePortAddresses
	}
	all, bit, period, least := file.IPTables.MasqueradeAll, file.IPTables.MasqueradeBit, file.IPTables.SyncPeriod, file.IPTables.MinSyncPeriod
	switch c.Mode {
	case "nftables":
		all, bit, period, least = file.NFTables.MasqueradeAll, file.NFTables.MasqueradeBit, file.NFTables.SyncPeriod, file.NFTables.MinSyncPeriod
	case "ipvs":
		period, least = file.IPVS.SyncPeriod, file.IPVS.MinSyncPeriod
		c.ipvsExclude = append(c.ipvsExclude, file.IPVS.ExcludeCIDRs...)
		c.IPVS = ipvs.Config{Scheduler: file.IPVS.Scheduler, StrictARP: file.IPVS.StrictARP,
			TCP: file.IPVS.TCPTimeout.Duration, TCPFin: file.IPVS.TCPFinTimeout.Duration, UDPIdle: file.IPVS.UDPTimeout.Duration}
	}
	c.MasqueradeAll = c.MasqueradeAll || all
	if bit != nil {
		c.MasqueradeBit = *bit
	}
	if period.Duration > 0 {
		c.SyncPeriod = period.Duration
	}
	if least.Duration > 0 {
		c.MinSyncPeriod = least.Duration
	}
	if p := file.OOMScoreAdj; p != nil {
		c.OOMScoreAdj = *p
	}
	c.Tracking.read(&file.Conntrack)
	c.Profiling = c.Profiling || file.EnableProfiling
	if v := int(file.Logging.Verbosity); v > c.Verbosity {
		c.Verbosity = v
	}
	return nil
}

// ignored names the fields that say what has no effect here.
func ignored(file *v1alpha1.KubeProxyConfiguration) (names []string) {
	client, logging := &file.ClientConnection, &file.Logging
	foreign := func(contentType string) bool { return contentType != "" && !strings.Contains(contentType, "protobuf") }
	for _, f := range []struct {
		name string
		said bool
	}{
		{"featureGates", len(file.FeatureGates) > 0}, {"clientConnection.qps", client.QPS > 0}, {"clientConnection.burst", client.Burst > 0},
		{"clientConnection.contentType", foreign(client.ContentType)}, {"clientConnection.acceptContentTypes", foreign(client.AcceptContentTypes)},
		{"logging.flushFrequency", !reflect.ValueOf(logging.FlushFrequency).IsZero()}, {"logging.vmodule", len(logging.VModule) > 0},
		{"logging.options.text.splitStream", logging.Options.Text.SplitStream}, {"logging.options.json.splitStream", logging.Options.JSON.SplitStream},
		{"logging.options.text.infoBufferSize", logging.Options.Text.InfoBufferSize.Value() > 0}, {"logging.options.json.infoBufferSize", logging.Options.JSON.InfoBufferSize.Value() > 0},
		{"showHiddenMetricsForVersion", file.ShowHiddenMetricsForVersion != ""}, {"configSyncPeriod", file.ConfigSyncPeriod.Duration > 0}, {"portRange", file.PortRange != ""},
		// It would open the node's own services to its neighbours.
		{"iptables.localhostNodePorts", file.IPTables.LocalhostNodePorts != nil && *file.IPTables.LocalhostNodePorts},
	} {
		if f.said {
			names = append(names, f.name)
		}
	}
	return names
}

// written answers the configuration as a file that gives the same when it is read.
func (c *Config) written() ([]byte, error) {
	period, least := metav1.Duration{Duration: c.SyncPeriod}, metav1.Duration{Duration: c.MinSyncPeriod}
	seconds := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	no := false
	file := v1alpha1.KubeProxyConfiguration{
		TypeMeta:         metav1.TypeMeta{Kind: "KubeProxyConfiguration", APIVersion: "kubeproxy.config.k8s.io/v1alpha1"},
		HostnameOverride: c.Hostname, BindAddress: c.BindAddress, HealthzBindAddress: c.Healthz, MetricsBindAddress: c.Metrics, BindAddressHardFail: true,
		EnableProfiling: c.Profiling, Mode: v1alpha1.ProxyMode(c.Mode), ClusterCIDR: c.ClusterCIDR, NodePortAddresses: c.NodePortsOn, OOMScoreAdj: &c.OOMScoreAdj,
		DetectLocalMode: v1alpha1.LocalMode(c.LocalMode), DetectLocal: v1alpha1.DetectLocalConfiguration{BridgeInterface: c.LocalBridge, InterfaceNamePrefix: c.LocalPrefix},
		IPTables: v1alpha1.KubeProxyIPTablesConfiguration{MasqueradeBit: &c.MasqueradeBit, MasqueradeAll: c.MasqueradeAll, LocalhostNodePorts: &no, SyncPeriod: period, MinSyncPeriod: least},
		NFTables: v1alpha1.KubeProxyNFTablesConfiguration{MasqueradeBit: &c.MasqueradeBit, MasqueradeAll: c.MasqueradeAll, SyncPeriod: period, MinSyncPeriod: least},
		IPVS: v1alpha1.KubeProxyIPVSConfiguration{SyncPeriod: period, MinSyncPeriod: least, Scheduler: c.IPVS.Scheduler, ExcludeCIDRs: c.ipvsExclude, StrictARP: c.IPVS.StrictARP,
			TCPTimeout: *seconds(c.IPVS.TCP), TCPFinTimeout: *seconds(c.IPVS.TCPFin), UDPTimeout: *seconds(c.IPVS.UDPIdle)},
		Conntrack: v1alpha1.KubeProxyConntrackConfiguration{MaxPerCore: &c.Tracking.MaxPerCore, Min: &c.Tracking.Min, TCPBeLiberal: c.Tracking.Liberal,
			TCPEstablishedTimeout: seconds(c.Tracking.Established), TCPCloseWaitTimeout: seconds(c.Tracking.CloseWait),
			UDPTimeout: *seconds(c.Tracking.UDPTimeout), UDPStreamTimeout: *seconds(c.Tracking.UDPStreamTimeout)},
	}
	file.ClientConnection.Kubeconfig, file.ClientConnection.QPS = c.Kubeconfig, -1
	file.ClientConnection.ContentType = "application/vnd.kubernetes.protobuf"
	file.Logging.Format, file.Logging.Verbosity = c.LogFormat, logsapi.VerbosityLevel(c.Verbosity)
	text, err := yaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return text, nil
}

// writeFile is what --write-config-to asks for.
func (c *Config) writeFile() error {
	text, err := c.written()
	if err == nil {
		err = os.WriteFile(c.WriteConfigTo, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("--write-config-to: %w", err)
	}
	return nil
}

// spare asks the kernel to end others first when memory is short. A container may not; then it stays as it is.
func (c *Config) spare() {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(int(c.OOMScoreAdj))), 0o644); err != nil {
		slog.Info("the kernel's choice when memory is short stays as it is", "error", err)
	}
}

// log sends the log to stderr, as the configuration says.
func (c *Config) log() {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if c.Verbosity >= 4 {
		o.Level = slog.LevelDebug
	}
	if c.LogFormat == "json" {
		slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, o)))
		return
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, o)))
}
