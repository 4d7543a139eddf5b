package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"
)

// Release is the Kubernetes release this proxy belongs to.
const Release = "v1.37.2"

// Config is everything the flags and the configuration file say.
type Config struct {
	Version    string
	ConfigFile string
	Kubeconfig string
	Master     string

	Hostname      string
	BindAddress   string
	Healthz       string
	Metrics       string
	Mode          string
	ClusterCIDR   string
	NodePortsOn   []string
	MasqueradeAll bool
	MasqueradeBit int32
	SyncPeriod    time.Duration
	MinSyncPeriod time.Duration
	Profiling     bool
	Verbosity     int

	PodNetwork string
	CNIConfDir string
	CNIDataDir string
	Cleanup    bool
}

// AddFlags defines the flags, named as upstream's; the pod network's are our own.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&c.ConfigFile, "config", "", "The path to a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1).")
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "Path to the kubeconfig of the cluster; in-cluster configuration when empty.")
	f.StringVar(&c.Master, "master", "", "Address of the API server, instead of the kubeconfig's.")
	f.StringVar(&c.Hostname, "hostname-override", "", "The node's name; the host's when empty.")
	f.StringVar(&c.BindAddress, "bind-address", "0.0.0.0", "The node's address, where it is not found otherwise.")
	f.StringVar(&c.Healthz, "healthz-bind-address", "0.0.0.0:10256", "Where health is served; empty serves none.")
	f.StringVar(&c.Metrics, "metrics-bind-address", "127.0.0.1:10249", "Where metrics are served; empty serves none.")
	f.StringVar(&c.Mode, "proxy-mode", "iptables", "The kernel's tables to use: iptables.")
	f.StringVar(&c.ClusterCIDR, "cluster-cidr", "", "The addresses of all pods. Traffic to cluster IPs from elsewhere is masqueraded.")
	f.StringSliceVar(&c.NodePortsOn, "nodeport-addresses", nil, "Prefixes of the local addresses that answer node ports; empty is all.")
	f.BoolVar(&c.MasqueradeAll, "masquerade-all", false, "Masquerade all traffic to cluster IPs.")
	f.Int32Var(&c.MasqueradeBit, "iptables-masquerade-bit", 14, "The bit of the packet mark that asks for masquerading, 0 to 31.")
	f.DurationVar(&c.SyncPeriod, "iptables-sync-period", 30*time.Second, "How often the kernel's tables are looked at, and mended.")
	f.DurationVar(&c.MinSyncPeriod, "iptables-min-sync-period", 0, "The least time between two writes.")
	f.BoolVar(&c.Profiling, "profiling", false, "Serve /debug/pprof beside the metrics.")
	f.StringVar(&c.PodNetwork, "pod-network", "host-gw", "How pods of different nodes meet: host-gw (routes), or none (a third party's CNI).")
	f.StringVar(&c.CNIConfDir, "cni-conf-dir", "/etc/cni/net.d", "Where the node's CNI configuration is written.")
	f.StringVar(&c.CNIDataDir, "cni-data-dir", "", "Where host-local keeps its leases; its own default when empty.")
	f.BoolVar(&c.Cleanup, "cleanup", false, "Remove the rules, routes and CNI configuration of this proxy, and quit.")
	f.IntVarP(&c.Verbosity, "v", "v", 0, "Log level, 0 to 10.")
}

// complete reads the configuration file over the flags' values and checks them.
func (c *Config) complete() error {
	if c.ConfigFile != "" {
		if err := c.readFile(); err != nil {
			return err
		}
	}
	switch c.Mode {
	case "", "iptables":
		c.Mode = "iptables"
	default:
		return fmt.Errorf("--proxy-mode %s is not served by this proxy; use iptables", c.Mode)
	}
	switch c.PodNetwork {
	case "host-gw", "none":
	default:
		return fmt.Errorf("--pod-network %s is not served by this proxy; use host-gw where all nodes share a link, or none beside a CNI plugin", c.PodNetwork)
	}
	// Of a dual-stack pair the IPv4 half is ours.
	for _, s := range strings.Split(c.ClusterCIDR, ",") {
		if s == "" {
			continue
		}
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("--cluster-cidr: %w", err)
		}
		if p.Addr().Is4() {
			c.ClusterCIDR = p.Masked().String()
			break
		}
	}
	var on []string
	for _, s := range c.NodePortsOn {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("--nodeport-addresses: %w", err)
		}
		if p.Addr().Is4() {
			on = append(on, p.Masked().String())
		}
	}
	c.NodePortsOn = on
	if c.MasqueradeBit < 0 || c.MasqueradeBit > 31 {
		return fmt.Errorf("--iptables-masquerade-bit is %d; want 0 to 31", c.MasqueradeBit)
	}
	if c.Hostname == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("learn the node's name: %w; give --hostname-override", err)
		}
		c.Hostname = host
	}
	c.Hostname = strings.ToLower(strings.TrimSpace(c.Hostname))
	if os.Geteuid() != 0 {
		return errors.New("the kernel's tables need root: run as root")
	}
	return nil
}

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
	for _, s := range []struct {
		from string
		to   *string
	}{
		{file.ClientConnection.Kubeconfig, &c.Kubeconfig}, {file.HostnameOverride, &c.Hostname}, {file.BindAddress, &c.BindAddress},
		{file.HealthzBindAddress, &c.Healthz}, {file.MetricsBindAddress, &c.Metrics}, {string(file.Mode), &c.Mode}, {file.ClusterCIDR, &c.ClusterCIDR},
	} {
		if s.from != "" {
			*s.to = s.from
		}
	}
	if len(file.NodePortAddresses) > 0 {
		c.NodePortsOn = file.NodePortAddresses
	}
	c.MasqueradeAll = c.MasqueradeAll || file.IPTables.MasqueradeAll
	if file.IPTables.MasqueradeBit != nil {
		c.MasqueradeBit = *file.IPTables.MasqueradeBit
	}
	if d := file.IPTables.SyncPeriod.Duration; d > 0 {
		c.SyncPeriod = d
	}
	if d := file.IPTables.MinSyncPeriod.Duration; d > 0 {
		c.MinSyncPeriod = d
	}
	c.Profiling = c.Profiling || file.EnableProfiling
	return nil
}

// client reads the kubeconfig for protobuf without a rate limit.
func (c *Config) client() (*rest.Config, error) {
	var rc *rest.Config
	var err error
	if c.Kubeconfig == "" && c.Master == "" {
		if rc, err = rest.InClusterConfig(); errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("no cluster to talk to: give --kubeconfig")
		}
	} else if rc, err = clientcmd.BuildConfigFromFlags(c.Master, c.Kubeconfig); err != nil {
		err = fmt.Errorf("read --kubeconfig %s: %w", c.Kubeconfig, err)
	}
	if err != nil {
		return nil, err
	}
	rc.QPS, rc.Burst = -1, -1
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	rc.UserAgent = "sextant-proxy"
	return rc, nil
}
