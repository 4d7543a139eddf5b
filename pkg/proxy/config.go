package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/ipvs"
	"github.com/sextant-k8s/sextant/pkg/proxy/podnet"
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
	LocalMode     string
	LocalBridge   string
	LocalPrefix   string
	NodePortsOn   []string
	MasqueradeAll bool
	MasqueradeBit int32
	SyncPeriod    time.Duration
	MinSyncPeriod time.Duration
	Tracking      Tracking
	IPVS          ipvs.Config
	ipvsExclude   []string
	Profiling     bool
	Verbosity     int
	LogFormat     string // text or json
	OOMScoreAdj   int32

	WriteConfigTo string // a file for the configuration; nothing else is done
	InitOnly      bool   // set the kernel up, and nothing else

	PodNetwork string
	CNIConfDir string
	CNIDataDir string
	Enforce    bool // network policies
	Cleanup    bool

	flags   *pflag.FlagSet
	pods    [2]netip.Prefix // of ClusterCIDR
	ignored []string        // fields of ConfigFile that say what has no effect
}

// AddFlags defines the flags, named as upstream's; the pod network's are our own.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	c.flags = f
	f.StringVar(&c.ConfigFile, "config", "", "The path to a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1).")
	f.StringVar(&c.WriteConfigTo, "write-config-to", "", "Write the configuration, with its defaults, to this file and quit.")
	f.BoolVar(&c.InitOnly, "init-only", false, "Only set up what needs all of root's rights, and quit.")
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "Path to the kubeconfig of the cluster; in-cluster configuration when empty.")
	f.StringVar(&c.Master, "master", "", "Address of the API server, instead of the kubeconfig's.")
	f.StringVar(&c.Hostname, "hostname-override", "", "The node's name; the host's when empty.")
	f.StringVar(&c.BindAddress, "bind-address", "0.0.0.0", "The node's address, where it is not found otherwise; its family is that of the default serving addresses.")
	f.StringVar(&c.Healthz, "healthz-bind-address", "0.0.0.0:10256", "Where health is served; empty serves none.")
	f.StringVar(&c.Metrics, "metrics-bind-address", "127.0.0.1:10249", "Where metrics are served; empty serves none.")
	f.StringVar(&c.Mode, "proxy-mode", "iptables", "The kernel's tables to use: "+strings.Join(modes, ", ")+".")
	f.StringVar(&c.ClusterCIDR, "cluster-cidr", "", "The addresses of all pods, or a pair of both families. Traffic to cluster IPs from elsewhere is masqueraded.")
	f.StringVar(&c.LocalMode, "detect-local-mode", "ClusterCIDR", "How traffic from pods is told: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.")
	f.StringVar(&c.LocalBridge, "pod-bridge-interface", "", "The bridge that pods of this node come in by, for --detect-local-mode=BridgeInterface.")
	f.StringVar(&c.LocalPrefix, "pod-interface-name-prefix", "", "How the interfaces' names begin that pods of this node come in by, for --detect-local-mode=InterfaceNamePrefix.")
	f.StringSliceVar(&c.NodePortsOn, "nodeport-addresses", nil, "Prefixes of the local addresses that answer node ports, or primary; empty is all, with nftables primary.")
	f.BoolVar(&c.MasqueradeAll, "masquerade-all", false, "Masquerade all traffic to cluster IPs.")
	f.Int32Var(&c.MasqueradeBit, "iptables-masquerade-bit", 14, "The bit of the packet mark that asks for masquerading, 0 to 31.")
	f.DurationVar(&c.SyncPeriod, "iptables-sync-period", 30*time.Second, "How often the kernel's tables are looked at, and mended.")
	f.DurationVar(&c.MinSyncPeriod, "iptables-min-sync-period", 0, "The least time between two writes.")
	c.Tracking.addFlags(f)
	f.StringVar(&c.IPVS.Scheduler, "ipvs-scheduler", "", "How IPVS chooses among endpoints: rr, wrr, lc, wlc, sh, ... as the kernel has it; rr when empty.")
	f.StringSliceVar(&c.ipvsExclude, "ipvs-exclude-cidrs", nil, "Where IPVS's virtual servers are somebody else's.")
	f.BoolVar(&c.IPVS.StrictARP, "ipvs-strict-arp", false, "Answer no ARP for the Services' addresses.")
	f.DurationVar(&c.IPVS.TCP, "ipvs-tcp-timeout", 0, "How long IPVS remembers an idle TCP connection; 0 leaves it as it is.")
	f.DurationVar(&c.IPVS.TCPFin, "ipvs-tcpfin-timeout", 0, "The same of one that is ending.")
	f.DurationVar(&c.IPVS.UDPIdle, "ipvs-udp-timeout", 0, "The same of UDP.")
	period, least := f.Lookup("iptables-sync-period"), f.Lookup("iptables-min-sync-period")
	for _, mode := range []string{"ipvs", "nftables"} {
		// One mode runs, so one value serves them all.
		f.Var(period.Value, mode+"-sync-period", "The same as --iptables-sync-period.")
		f.Var(least.Value, mode+"-min-sync-period", "The same as --iptables-min-sync-period.")
	}
	f.BoolVar(&c.Profiling, "profiling", false, "Serve /debug/pprof beside the metrics.")
	f.StringVar(&c.PodNetwork, "pod-network", "", "How pods of different nodes meet: host-gw (routes), vxlan (tunnels), or none (a third party's CNI); empty is host-gw, with --config none.")
	f.StringVar(&c.CNIConfDir, "cni-conf-dir", "/etc/cni/net.d", "Where the node's CNI configuration is written.")
	f.StringVar(&c.CNIDataDir, "cni-data-dir", "", "Where host-local keeps its leases; its own default when empty.")
	f.BoolVar(&c.Enforce, "network-policy", true, "Enforce network policies; with --pod-network=none only if given: the CNI plugin may do so.")
	f.BoolVar(&c.Cleanup, "cleanup", false, "Remove the rules of every mode, the routes, tunnels and CNI configuration of this proxy, and quit.")
	f.IntVarP(&c.Verbosity, "v", "v", 0, "Log level, 0 to 10.")
	f.StringVar(&c.LogFormat, "logging-format", "text", "How the log is written: text or json.")
	f.Int32Var(&c.OOMScoreAdj, "oom-score-adj", -999, "How much the kernel spares this process when memory is short, -1000 to 1000.")
	for _, name := range inert {
		// Accepted, so that a command line written for upstream's starts this one; there is nothing here that they would tune.
		f.String(name, "", "Accepted for compatibility; has no effect.")
		f.Lookup(name).NoOptDefVal = "true"
		f.Lookup(name).Hidden = true
	}
}

// inert are upstream's flags that have no effect here.
var inert = []string{"bind-address-hard-fail", "iptables-localhost-nodeports", "config-sync-period", "feature-gates", "kube-api-burst", "kube-api-content-type",
	"kube-api-qps", "log-flush-frequency", "log-json-info-buffer-size", "log-json-split-stream", "log-text-info-buffer-size", "log-text-split-stream", "proxy-port-range",
	"show-hidden-metrics-for-version", "vmodule"}

// warn says which flags and fields that were given have no effect.
func (c *Config) warn() {
	for _, name := range inert {
		if c.flags != nil && c.flags.Changed(name) {
			slog.Warn("a flag has no effect in this proxy", "flag", "--"+name)
		}
	}
	for _, name := range c.ignored {
		slog.Warn("a field of --config has no effect in this proxy", "field", name)
	}
}

// complete reads the configuration file over the flags' values and checks them.
func (c *Config) complete() error {
	if c.ConfigFile != "" {
		if err := c.readFile(); err != nil {
			return err
		}
	}
	if c.Mode == "" {
		c.Mode = "iptables"
	}
	if !slices.Contains(modes, c.Mode) {
		return fmt.Errorf("--proxy-mode %s is not served by this proxy; use one of %s", c.Mode, strings.Join(modes, ", "))
	}
	switch c.PodNetwork {
	case "":
		// Who comes with upstream's configuration comes with a CNI plugin, too.
		c.PodNetwork = podnet.HostGateway
		if c.ConfigFile != "" {
			c.PodNetwork = podnet.None
		}
	case podnet.HostGateway, podnet.VXLAN, podnet.None:
		// known
	default:
		return fmt.Errorf("--pod-network %s is not served by this proxy; use host-gw where all nodes share a link, vxlan where they do not, or none beside a CNI plugin", c.PodNetwork)
	}
	c.Enforce = c.Enforce && (c.PodNetwork != podnet.None || c.flags != nil && c.flags.Changed("network-policy"))
	switch {
	case !slices.Contains([]string{"", "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"}, c.LocalMode):
		return fmt.Errorf("--detect-local-mode %s is not known; use ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix", c.LocalMode)
	case c.LocalMode == "BridgeInterface" && c.LocalBridge == "":
		return errors.New("--detect-local-mode BridgeInterface needs --pod-bridge-interface")
	case c.LocalMode == "InterfaceNamePrefix" && c.LocalPrefix == "":
		return errors.New("--detect-local-mode InterfaceNamePrefix needs --pod-interface-name-prefix")
	}
	for _, s := range strings.Split(c.ClusterCIDR, ",") {
		if s == "" {
			continue
		}
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("--cluster-cidr: %w", err)
		}
		if half := &c.pods[desired.Family(p.Addr().Is6())]; !half.IsValid() {
			*half = p.Masked()
		}
	}
	for _, s := range c.NodePortsOn {
		if _, err := netip.ParsePrefix(strings.TrimSpace(s)); err != nil && !slices.Contains([]string{"primary", "localhost", "all"}, s) {
			return fmt.Errorf("--nodeport-addresses: %w", err)
		}
	}
	for _, s := range c.ipvsExclude {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("--ipvs-exclude-cidrs: %w", err)
		}
		c.IPVS.Exclude = append(c.IPVS.Exclude, p)
	}
	if c.MasqueradeBit < 0 || c.MasqueradeBit > 31 {
		return fmt.Errorf("--iptables-masquerade-bit is %d; want 0 to 31", c.MasqueradeBit)
	}
	if c.OOMScoreAdj < -1000 || c.OOMScoreAdj > 1000 {
		return fmt.Errorf("--oom-score-adj is %d; want -1000 to 1000", c.OOMScoreAdj)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("--logging-format %s is not known; use text or json", c.LogFormat)
	}
	if c.SyncPeriod <= 0 {
		return fmt.Errorf("--iptables-sync-period is %v; want more than 0", c.SyncPeriod)
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
