package proxy

import (
	"bytes"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// works are upstream's flags that do here what they do there.
const works = "bind-address cleanup cluster-cidr config conntrack-max-per-core conntrack-min conntrack-tcp-be-liberal conntrack-tcp-timeout-close-wait conntrack-tcp-timeout-established " +
	"conntrack-udp-timeout conntrack-udp-timeout-stream detect-local-mode healthz-bind-address hostname-override init-only iptables-masquerade-bit iptables-min-sync-period " +
	"iptables-sync-period ipvs-exclude-cidrs ipvs-min-sync-period ipvs-scheduler ipvs-strict-arp ipvs-sync-period ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout kubeconfig " +
	"logging-format masquerade-all master metrics-bind-address nodeport-addresses oom-score-adj pod-bridge-interface pod-interface-name-prefix profiling proxy-mode v write-config-to"

// own are flags that upstream does not have.
const own = "cni-conf-dir cni-data-dir network-policy nftables-min-sync-period nftables-sync-period pod-network"

// warned answers what configuring says.
func warned(t *testing.T, text string, args ...string) string {
	t.Helper()
	c, err := configured(t, text, args...)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	defer slog.SetDefault(before)
	c.warn()
	return out.String()
}

// Every flag is upstream's and works, upstream's and without effect, which is said, or our own; others are refused. main adds --version and --help.
func TestCensusOfFlags(t *testing.T) {
	c, err := configured(t, "")
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(slices.Concat(strings.Fields(works), strings.Fields(own), inert)))
	var got []string
	c.flags.VisitAll(func(f *pflag.Flag) { got = append(got, f.Name) })
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("flags are\n%v\nwant\n%v", got, want)
	}
	for _, name := range inert {
		if said := warned(t, "", "--"+name+"=1"); strings.Count(said, "\n") != 1 || !strings.Contains(said, "--"+name+"\n") {
			t.Errorf("--%s: said %q", name, said)
		}
	}
	if said := warned(t, "", "--v=2"); said != "" {
		t.Errorf("--v: said %q", said)
	}
	for _, name := range []string{"nonsense", "udp-timeout", "healthz-port"} {
		if _, err := configured(t, "", "--"+name+"=1"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("--%s: %v", name, err)
		}
	}
}

// fields of KubeProxyConfiguration: what is said of each, and what it comes to.
var fields = map[string]struct{ said, comes string }{
	"featureGates": {"{A: true}", "ignored"}, "hostnameOverride": {"x", "works"}, "bindAddress": {"192.0.2.7", "works"}, "healthzBindAddress": {"192.0.2.7:1", "works"},
	"metricsBindAddress": {"192.0.2.7:2", "works"}, "bindAddressHardFail": {"true", "as ever"}, "enableProfiling": {"true", "works"}, "showHiddenMetricsForVersion": {"1.36", "ignored"},
	"mode": {"nftables", "works"}, "detectLocalMode": {"NodeCIDR", "works"}, "clusterCIDR": {"10.1.0.0/16", "works"}, "nodePortAddresses": {"[primary]", "works"}, "oomScoreAdj": {"7", "works"},
	"configSyncPeriod": {"7s", "ignored"}, "portRange": {"1-2", "ignored"}, "windowsRunAsService": {"true", "refused"},
	"clientConnection.kubeconfig": {"/x", "works"}, "clientConnection.acceptContentTypes": {"application/json", "ignored"}, "clientConnection.contentType": {"application/json", "ignored"},
	"clientConnection.qps": {"7", "ignored"}, "clientConnection.burst": {"7", "ignored"},
	"logging.format": {"json", "works"}, "logging.flushFrequency": {"7s", "ignored"}, "logging.verbosity": {"7", "works"}, "logging.vmodule": {"[{filePattern: a, verbosity: 1}]", "ignored"},
	"logging.options.text.splitStream": {"true", "ignored"}, "logging.options.text.infoBufferSize": {"7", "ignored"},
	"logging.options.json.splitStream": {"true", "ignored"}, "logging.options.json.infoBufferSize": {"7", "ignored"},
	"iptables.masqueradeBit": {"7", "works"}, "iptables.masqueradeAll": {"true", "works"}, "iptables.localhostNodePorts": {"true", "ignored"}, "iptables.syncPeriod": {"7s", "works"}, "iptables.minSyncPeriod": {"7s", "works"},
	"ipvs.syncPeriod": {"7s", "works"}, "ipvs.minSyncPeriod": {"7s", "works"}, "ipvs.scheduler": {"wrr", "works"}, "ipvs.excludeCIDRs": {"[10.1.0.0/16]", "works"}, "ipvs.strictARP": {"true", "works"},
	"ipvs.tcpTimeout": {"7s", "works"}, "ipvs.tcpFinTimeout": {"7s", "works"}, "ipvs.udpTimeout": {"7s", "works"},
	"nftables.masqueradeBit": {"7", "works"}, "nftables.masqueradeAll": {"true", "works"}, "nftables.syncPeriod": {"7s", "works"}, "nftables.minSyncPeriod": {"7s", "works"},
	"winkernel.networkName": {"x", "refused"}, "winkernel.sourceVip": {"x", "refused"}, "winkernel.enableDSR": {"true", "refused"}, "winkernel.rootHnsEndpointName": {"x", "refused"}, "winkernel.forwardHealthCheckVip": {"true", "refused"},
	"detectLocal.bridgeInterface": {"x", "works"}, "detectLocal.interfaceNamePrefix": {"x", "works"},
	"conntrack.maxPerCore": {"7", "works"}, "conntrack.min": {"7", "works"}, "conntrack.tcpEstablishedTimeout": {"7s", "works"}, "conntrack.tcpCloseWaitTimeout": {"7s", "works"},
	"conntrack.tcpBeLiberal": {"true", "works"}, "conntrack.udpTimeout": {"7s", "works"}, "conntrack.udpStreamTimeout": {"7s", "works"},
}

// paths names the fields of a configuration kind; what stands for a value by itself is one.
func paths(of reflect.Type, under string) (out []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		inner := f.Type
		switch {
		case f.Name == "TypeMeta":
			continue
		case name == "" && inner.Kind() == reflect.Struct:
			out = append(out, paths(inner, under)...)
		case inner.Kind() == reflect.Struct && !slices.Contains([]string{"Duration", "TimeOrMetaDuration", "QuantityValue"}, inner.Name()):
			out = append(out, paths(inner, under+name+".")...)
		default:
			out = append(out, under+name)
		}
	}
	return out
}

// Every field of KubeProxyConfiguration works, has no effect and is told so, or is refused, and none is forgotten.
func TestCensusOfFields(t *testing.T) {
	got := slices.Sorted(slices.Values(paths(reflect.TypeFor[v1alpha1.KubeProxyConfiguration](), "")))
	if want := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
		t.Fatalf("fields are\n%v\nthe census has\n%v", got, want)
	}
	for name, f := range fields {
		head := "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
		if mode, _, _ := strings.Cut(name, "."); slices.Contains(modes, mode) {
			head += "mode: " + mode + "\n"
		}
		text, indent := "", ""
		for _, part := range strings.Split(name, ".") {
			text += indent + part + ":\n"
			indent += "  "
		}
		text = head + strings.TrimSuffix(text, "\n") + " " + f.said + "\n"
		plain, err := configured(t, head)
		if err != nil {
			t.Fatal(err)
		}
		c, err := configured(t, text)
		if f.comes == "refused" {
			if err == nil || !strings.Contains(err.Error(), "Windows") {
				t.Errorf("%s: %v, want refused", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		said := c.ignored
		for _, c := range []*Config{c, plain} {
			c.flags, c.ConfigFile, c.ignored = nil, "", nil
		}
		if works := !reflect.DeepEqual(c, plain); works != (f.comes == "works") {
			t.Errorf("%s: has effect is %v, want it to be %s", name, works, f.comes)
		}
		if want := map[bool][]string{true: {name}}[f.comes == "ignored"]; !slices.Equal(said, want) {
			t.Errorf("%s: told to have no effect are %v, want %v", name, said, want)
		}
	}
}
