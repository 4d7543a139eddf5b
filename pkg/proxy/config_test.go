package proxy

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/sextant-k8s/sextant/pkg/proxy/podnet"
)

// kubeadmFile is the configuration as kubeadm writes it for the DaemonSet: nearly everything is there, and empty.
const kubeadmFile = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:244::/48
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
`

// configured reads flags, and the file's text if there is any.
func configured(t *testing.T, text string, args ...string) (*Config, error) {
	t.Helper()
	c := &Config{}
	f := pflag.NewFlagSet("proxy", pflag.ContinueOnError)
	c.AddFlags(f)
	if text != "" {
		path := filepath.Join(t.TempDir(), "config.conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config="+path)
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	return c, c.complete()
}

func TestKubeadmConfiguration(t *testing.T) {
	c, err := configured(t, kubeadmFile, "--hostname-override=Node-7")
	if err != nil {
		t.Fatal(err)
	}
	if c.Hostname != "node-7" || c.Mode != "iptables" || c.Healthz != "0.0.0.0:10256" || c.Metrics != "127.0.0.1:10249" || c.PodNetwork != podnet.None ||
		c.Kubeconfig != "/var/lib/kube-proxy/kubeconfig.conf" || c.MasqueradeBit != 14 || c.SyncPeriod <= 0 || c.Tracking.MaxPerCore != 32768 ||
		c.pods != [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")} {
		t.Errorf("read as %+v", c)
	}
	c, err = configured(t, strings.NewReplacer(`mode: ""`, "mode: nftables", "masqueradeBit: null", "masqueradeBit: 3", "enableProfiling: false", "enableProfiling: true").Replace(kubeadmFile))
	if err != nil || c.Mode != "nftables" || c.MasqueradeBit != 3 || !c.Profiling {
		t.Errorf("%v: read as %+v", err, c)
	}
}

func TestUpstreamFlags(t *testing.T) {
	c, err := configured(t, "", strings.Fields("--bind-address=0.0.0.0 --proxy-mode=nftables --cluster-cidr=10.1.0.0/16 --profiling --nodeport-addresses=primary --conntrack-min=5 "+
		"--kube-api-qps=5 --feature-gates=A=true --bind-address-hard-fail --oom-score-adj=-998 --detect-local-mode=BridgeInterface --pod-bridge-interface=cni0 -v=2")...)
	if err != nil {
		t.Fatal(err)
	}
	self := &podnet.Node{Addresses: [2]netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	p := c.policy([2]netip.Prefix{}, self)
	if p.InsideLink != "cni0" || p.NodePortsAll || len(p.NodePortsOn) != 1 || p.NodePortsOn[0].String() != "192.0.2.1/32" || c.Tracking.Min != 5 || c.Verbosity != 2 {
		t.Errorf("read as %+v, policy %+v", c, p)
	}
}

func TestWrongConfiguration(t *testing.T) {
	for _, c := range []struct{ text, flag, want string }{
		{"", "--proxy-mode=userspace", "--proxy-mode userspace is not served"},
		{"", "--pod-network=ipip", "--pod-network ipip is not served"},
		{"", "--cluster-cidr=10.0.0.0", "--cluster-cidr"},
		{"", "--nodeport-addresses=here", "--nodeport-addresses"},
		{"", "--iptables-masquerade-bit=32", "want 0 to 31"},
		{"", "--detect-local-mode=BridgeInterface", "needs --pod-bridge-interface"},
		{"kind: Pod\napiVersion: v1\n", "", "want kind KubeProxyConfiguration"},
		{kubeadmFile + "nonsense: 1\n", "", "nonsense"},
	} {
		var args []string
		if c.flag != "" {
			args = append(args, c.flag)
		}
		if _, err := configured(t, c.text, args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s%s: got %v, want %q", c.flag, c.text, err, c.want)
		}
	}
}

// What --write-config-to writes gives the same configuration when it is read, in every mode.
func TestWrittenConfiguration(t *testing.T) {
	for _, mode := range modes {
		flags := []string{"--proxy-mode=" + mode, "--hostname-override=a", "--cluster-cidr=10.244.0.0/16", "--nodeport-addresses=192.0.2.0/24", "--iptables-masquerade-bit=9",
			"--iptables-sync-period=7s", "--iptables-min-sync-period=2s", "--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth", "--conntrack-min=5",
			"--conntrack-udp-timeout=8s", "--conntrack-tcp-be-liberal", "--metrics-bind-address=127.0.0.1:1", "--healthz-bind-address=127.0.0.1:2", "--profiling", "--logging-format=json",
			"--oom-score-adj=-5", "--kubeconfig=/k", "--pod-network=none", "--v=3"}
		if mode == "ipvs" {
			flags = append(flags, "--ipvs-scheduler=wrr", "--ipvs-exclude-cidrs=203.0.113.0/24", "--ipvs-strict-arp", "--ipvs-udp-timeout=4s")
		} else {
			flags = append(flags, "--masquerade-all")
		}
		want, err := configured(t, "", flags...)
		if err != nil {
			t.Fatal(err)
		}
		text, err := want.written()
		if err != nil {
			t.Fatal(err)
		}
		got, err := configured(t, string(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		got.flags, want.flags, got.ConfigFile = nil, nil, ""
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read back\n%+v, want\n%+v\n%s", mode, got, want, text)
		}
	}
}

func TestRefusedConfiguration(t *testing.T) {
	for add, want := range map[string]string{
		"winkernel: {networkName: x}\n": "Windows", "windowsRunAsService: true\n": "Windows", "oomScoreAdj: 2000\n": "--oom-score-adj",
		"logging: {format: xml}\n": "--logging-format", "mode: userspace\n": "--proxy-mode userspace", "nonsense: 1\n": "nonsense",
	} {
		if _, err := configured(t, "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"+add); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", add, err, want)
		}
	}
}
