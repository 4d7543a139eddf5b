package controllermanager

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestFlags reads the flags of kubeadm's static pod, and says what is wrong with others.
func TestFlags(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"--allocate-node-cidrs=true --authentication-kubeconfig=F --authorization-kubeconfig=F --bind-address=127.0.0.1 --client-ca-file=F --cluster-cidr=10.244.0.0/16 " +
			"--cluster-name=kubernetes --cluster-signing-cert-file=F --cluster-signing-key-file=F --controllers=*,bootstrapsigner,tokencleaner --kubeconfig=F --leader-elect=true " +
			"--requestheader-client-ca-file=F --root-ca-file=F --service-account-private-key-file=F --service-cluster-ip-range=10.96.0.0/12 --use-service-account-credentials=true", ""},
		{"", "--kubeconfig is needed"},
		{"--kubeconfig=/no/such/file", "--kubeconfig: stat /no/such/file"},
		{"--kubeconfig=F --controllers=*,nothing", `"nothing" is not in the list of known controllers`},
		{"--kubeconfig=F --controllers=*,-selinux-warning-controller", ""},
		{"--kubeconfig=F --controllers=service-lb-controller", "cannot run here: the cloud's own"},
		{"--kubeconfig=F --controllers=*,-service,-route,-cloud-node-lifecycle,-storage-version-gc,-storage-version-migrator-controller", ""},
		{"--kubeconfig=F --controllers=*,route", "cannot run here"},
		{"--kubeconfig=F --allocate-node-cidrs", "needs --cluster-cidr"},
		{"--kubeconfig=F --allocate-node-cidrs --cluster-cidr=10.0.0.0/8,10.1.0.0/16", "one of each IP family"},
		{"--kubeconfig=F --allocate-node-cidrs --cluster-cidr=10.0.0.0/8 --service-cluster-ip-range=x", "--service-cluster-ip-range"},
		{"--kubeconfig=F --cluster-signing-cert-file=F", "belong together"},
		{"--kubeconfig=F --cluster-signing-cert-file=F --cluster-signing-key-file=F --cluster-signing-kubelet-client-cert-file=F --cluster-signing-kubelet-client-key-file=F", "beside one signer's own"},
		{"--kubeconfig=F --leader-elect-resource-lock=endpoints", "only leases"},
		{"--kubeconfig=F --cloud-provider=aws", "only external"},
		{"--kubeconfig=F --feature-gates=A=true,B=false --tls-min-version=VersionTLS13 --node-sync-period=1m --configure-cloud-routes --enable-dynamic-provisioning", ""},
		{"--kubeconfig=F --feature-gates=A=maybe", "give true or false"},
		{"--kubeconfig=F --tls-min-version=VersionTLS10", "give VersionTLS12"},
		{"--kubeconfig=F --tls-cipher-suites=ROT13", "--tls-cipher-suites"},
		{"--kubeconfig=F --load-balancer-pool=192.0.2.9-192.0.2.1", "does not come after"},
		{"--kubeconfig=F --local-path-dir=/", "a directory's whole path"},
		{"--kubeconfig=F --attach-detach-reconcile-sync-period=1ms", "a second or more"},
		{"--kubeconfig=F --node-monitor-period=1m", "--node-monitor-grace-period must not be shorter"},
	} {
		conf := &Config{}
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		conf.AddFlags(f)
		if err := f.Parse(strings.Fields(strings.ReplaceAll(c.args, "=F", "="+file))); err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		switch err := conf.Check(); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.args, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, not %s", c.args, err, c.want)
		}
	}
}

// TestGraph: every controller of the list that needs no flag is in the graph, under the name that the list gives it.
func TestGraph(t *testing.T) {
	conf := &Config{}
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	conf.AddFlags(f)
	conf.Controllers = []string{"*", "bootstrapsigner", "tokencleaner", "selinux-warning-controller"}
	var b strings.Builder
	if err := Graph(&b, conf); err != nil {
		t.Fatal(err)
	}
	byFlag := map[string]bool{
		"root-ca-certificate-publisher-controller": true, "kube-apiserver-serving-clustertrustbundle-publisher-controller": true, "node-ipam-controller": true, "certificatesigningrequest-signing-controller": true, "serviceaccount-token-controller": true,
		"address-pool-controller": true, "local-path-provisioner-controller": true,
	}
	for _, e := range list() {
		if has := strings.Contains("\n"+b.String(), "\n"+e.name+": "); has == byFlag[e.name] {
			t.Errorf("%s in the graph: %v", e.name, has)
		}
	}
}

// TestRefused: a flag of which one value is served takes no other.
func TestRefused(t *testing.T) {
	for _, arg := range []string{"--enable-dynamic-provisioning=false", "--cloud-config=/etc/cloud", "--max-endpoints-per-slice=7"} {
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		(&Config{}).AddFlags(f)
		if err := f.Parse([]string{arg}); err == nil || !strings.Contains(err.Error(), "leave") {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// upstream are the names of the release's controllers; those in brackets are off by default there.
const upstream = `
	(bootstrap-signer-controller) certificatesigningrequest-approving-controller certificatesigningrequest-cleaner-controller
	certificatesigningrequest-signing-controller cloud-node-lifecycle-controller clusterrole-aggregation-controller cronjob-controller
	daemonset-controller deployment-controller device-taint-eviction-controller disruption-controller endpoints-controller
	endpointslice-controller endpointslice-mirroring-controller ephemeral-volume-controller garbage-collector-controller
	horizontal-pod-autoscaler-controller job-controller kube-apiserver-serving-clustertrustbundle-publisher-controller
	legacy-serviceaccount-token-cleaner-controller namespace-controller node-ipam-controller node-lifecycle-controller node-route-controller
	persistentvolume-attach-detach-controller persistentvolume-binder-controller persistentvolume-expander-controller
	persistentvolume-protection-controller persistentvolumeclaim-protection-controller pod-garbage-collector-controller
	podcertificaterequest-cleaner-controller replicaset-controller replicationcontroller-controller resourceclaim-controller
	resourcequota-controller root-ca-certificate-publisher-controller (selinux-warning-controller) service-cidr-controller
	service-lb-controller serviceaccount-controller serviceaccount-token-controller statefulset-controller
	storage-version-migrator-controller storageversion-garbage-collector-controller taint-eviction-controller (token-cleaner-controller)
	ttl-after-finished-controller ttl-controller validatingadmissionpolicy-status-controller volumeattributesclass-protection-controller`

// TestNames: every controller of the release is in the list, or it is said why not; what is off there is off here.
func TestNames(t *testing.T) {
	own := []string{"address-pool-controller", "local-path-provisioner-controller"}
	var off []string
	all := map[string]bool{}
	for name := range strings.FieldsSeq(upstream) {
		if bare := strings.Trim(name, "()"); bare != name {
			name = bare
			off = append(off, name)
		}
		all[name] = true
		if here, why := slices.Contains(names(), name), elsewhere[name]; here == (why != "") {
			t.Errorf("%s: in the list %v, elsewhere %q", name, here, why)
		}
	}
	for _, name := range names() {
		if all[name] == slices.Contains(own, name) {
			t.Errorf("%s is no name of upstream's", name)
		}
	}
	for name := range elsewhere {
		if !all[name] {
			t.Errorf("%s is elsewhere and no name of upstream's", name)
		}
	}
	conf := &Config{}
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	conf.AddFlags(f)
	var b strings.Builder
	if err := Graph(&b, conf); err != nil {
		t.Fatal(err)
	}
	for _, name := range off {
		if strings.Contains("\n"+b.String(), "\n"+name+": ") || !slices.Contains(offByDefault, name) {
			t.Errorf("%s is not off by default", name)
		}
	}
	if help := f.FlagUsages(); len(off) != len(offByDefault) || !strings.Contains(help, "Off by default: "+strings.Join(offByDefault, ", ")) {
		t.Errorf("--help does not say what is off:\n%s", help)
	}
}

// TestWorkers: every number of workers that the release lets one set is a flag, and reaches its controller.
func TestWorkers(t *testing.T) {
	conf := &Config{}
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	conf.AddFlags(f)
	for name := range strings.FieldsSeq(`cron-job daemonset deployment device-taint-eviction disruption endpoint ephemeralvolume gc horizontal-pod-autoscaler job
		namespace rc replicaset resource-claim resource-quota service-endpoint serviceaccount-token statefulset ttl-after-finished validating-admission-policy-status`) {
		if err := f.Parse([]string{"--concurrent-" + name + "-syncs=3"}); err != nil {
			t.Error(err)
		}
	}
	for _, w := range workers {
		n := conf.Workers[w.controller]
		if n == nil {
			t.Errorf("--%s is for %s, which is not in the list", w.flag, w.controller)
		} else if *n != 3 && w.flag != "mirroring-concurrent-service-endpoint-syncs" {
			t.Errorf("--%s leaves %s with %d workers", w.flag, w.controller, *n)
		}
	}
}

// TestControllerNames: the first word on a controller counts, by its name or its name of old.
func TestControllerNames(t *testing.T) {
	for _, c := range []struct {
		list string
		want choice
	}{
		{"*", all}, {"", no}, {"deployment", named}, {"deployment-controller", named}, {"*,-deployment", no}, {"-deployment-controller,*", no}, {"*,deployment", named}, {"replicaset", no},
	} {
		if got := wanted(strings.Split(c.list, ","), "deployment-controller", "deployment"); got != c.want {
			t.Errorf("%s: %v", c.list, got)
		}
	}
}
