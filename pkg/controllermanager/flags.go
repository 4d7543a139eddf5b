package controllermanager

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/loadbalancer"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/localpath"
)

// AddFlags binds the configuration to flags.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "File that says where the apiserver is and who we are.")
	f.StringVar(&c.Master, "master", "", "The apiserver's address, in place of the kubeconfig's.")
	f.Float32Var(&c.QPS, "kube-api-qps", -1, "How many requests a second to make at most; below 0 is any number, since the apiserver queues.")
	f.IntVar(&c.Burst, "kube-api-burst", 30, "How many requests may be made at once where --kube-api-qps bounds them.")
	f.BoolVar(&c.UseAccounts, "use-service-account-credentials", false, "Let each controller act as its own service account in kube-system.")
	c.addServing(f)
	f.BoolVar(&c.LeaderElect, "leader-elect", true, "Run controllers only while holding the lease, so that several may stand by.")
	f.DurationVar(&c.LeaseDuration, "leader-elect-lease-duration", 10*time.Second, "How long others wait for a leader that is silent.")
	f.DurationVar(&c.RenewDeadline, "leader-elect-renew-deadline", 7*time.Second, "How long the leader tries to renew before it gives up.")
	f.DurationVar(&c.RetryPeriod, "leader-elect-retry-period", 2*time.Second, "How long to wait between tries.")
	f.StringVar(&c.LeaseKind, "leader-elect-resource-lock", "leases", "The kind of the lock: leases.")
	f.StringVar(&c.LeaseName, "leader-elect-resource-name", "kube-controller-manager", "The name of the lease.")
	f.StringVar(&c.LeaseIn, "leader-elect-resource-namespace", "kube-system", "The namespace of the lease.")
	f.StringSliceVar(&c.Controllers, "controllers", []string{"*"}, "Which controllers run: * is all that run by default, name one, -name leaves one out.\nAll: "+strings.Join(names(), ", ")+"\nOff by default: "+strings.Join(offByDefault, ", "))
	c.addWorkers(f)
	c.addNodes(f)
	c.addSigning(f)
	f.DurationVar(&c.Autoscaler.Period, "horizontal-pod-autoscaler-sync-period", 15*time.Second, "How often metrics are asked for.")
	f.DurationVar(&c.Autoscaler.Window, "horizontal-pod-autoscaler-downscale-stabilization", 5*time.Minute, "How long the highest recommendation counts before it is scaled down.")
	f.Float64Var(&c.Autoscaler.Tolerance, "horizontal-pod-autoscaler-tolerance", 0.1, "How far from its target a metric may be, as a part of 1.")
	f.DurationVar(&c.Autoscaler.CPUStart, "horizontal-pod-autoscaler-cpu-initialization-period", 5*time.Minute, "How long the CPU use of a pod that starts may not be believed.")
	f.DurationVar(&c.Autoscaler.Delay, "horizontal-pod-autoscaler-initial-readiness-delay", 30*time.Second, "How long a pod that starts may be not ready without ever having been.")
	f.IntVar(&c.TerminatedPods, "terminated-pod-gc-threshold", 12500, "How many finished pods are kept; 0 is any number.")
	f.DurationVar(&c.AttachResync, "attach-detach-reconcile-sync-period", time.Minute, "How often the volumes of every node are looked at, besides when something changes; a second or more.")
	f.BoolVar(&c.NoAttachResync, "disable-attach-detach-reconcile-sync", false, "Look at them only when something changes.")
	f.BoolVar(&c.NoForceDetach, "disable-force-detach-on-timeout", false, "Never detach what a silent node may still use.")
	f.StringSliceVar(&c.LoadBalancerPool, "load-balancer-pool", nil, "Addresses for services of type LoadBalancer where there is no cloud: CIDRs, first-last ranges, single ones; none gives none away. Beside --cloud-provider=external, or if they say so, only for services of class "+loadbalancer.Class+".")
	f.StringVar(&c.LocalPath.Image, "local-path-helper-image", "", "Image with mkdir and rm of the pods that make and remove directories for storage classes of the provisioner "+localpath.Provisioner+"; empty provisions nothing.")
	f.StringVar(&c.LocalPath.Dir, "local-path-dir", "/var/lib/sextant/local-path", "Where on the nodes those directories are made.")
	f.BoolVar(&c.CollectGarbage, "enable-garbage-collector", true, "Let the garbage collector run; as the apiserver's flag of that name.")
	f.StringToStringVar(&c.FeatureGates, "feature-gates", nil, "Feature gates, Name=true|false. There are none here: what runs is the release's default.")
	f.IntVarP(&c.Verbosity, "v", "v", 0, "How much to log, 0 to 10.")
	addUnused(f)
}

func (c *Config) addServing(f *pflag.FlagSet) {
	f.StringVar(&c.BindAddress, "bind-address", "0.0.0.0", "The IP address to serve health and metrics on.")
	f.IntVar(&c.SecurePort, "secure-port", 10257, "The port to serve health and metrics on, with TLS; 0 serves nothing.")
	f.StringVar(&c.TLSCertFile, "tls-cert-file", "", "File with the serving certificate; empty makes one for this run.")
	f.StringVar(&c.TLSKey, "tls-private-key-file", "", "File with the serving certificate's key.")
	f.StringVar(&c.TLSMinVersion, "tls-min-version", "", "The lowest TLS version to serve: VersionTLS12 or VersionTLS13; empty is VersionTLS12.")
	f.StringSliceVar(&c.TLSCiphers, "tls-cipher-suites", nil, "Cipher suites for TLS 1.2, best first; empty is Go's choice.")
	f.BoolVar(&c.NoHTTP2, "disable-http2-serving", false, "Serve HTTP/1.1 only.")
	f.StringVar(&c.AuthnKubeconfig, "authentication-kubeconfig", "", "File that says which apiserver knows tokens; empty is that of --kubeconfig.")
	f.BoolVar(&c.SkipLookup, "authentication-skip-lookup", false, "Do not read from the cluster which CAs clients have, where flags do not say.")
	f.StringVar(&c.AuthzKubeconfig, "authorization-kubeconfig", "", "File that says which apiserver knows who may what; empty is that of --kubeconfig.")
	f.StringSliceVar(&c.AlwaysAllow, "authorization-always-allow-paths", []string{"/healthz", "/readyz", "/livez"}, "Paths that anybody may read; one that ends in * is a prefix.")
	f.StringVar(&c.ClientCAFile, "client-ca-file", "", "File with the CA of clients that show a certificate.")
	f.StringVar(&c.Front.CAFile, "requestheader-client-ca-file", "", "File with the CA of proxies that tell in headers who asks.")
	f.StringSliceVar(&c.Front.AllowedNames, "requestheader-allowed-names", nil, "Which names such a proxy's certificate may have; none is any.")
	f.StringSliceVar(&c.Front.UserHeaders, "requestheader-username-headers", []string{"x-remote-user"}, "Headers that name the user.")
	f.StringSliceVar(&c.Front.GroupHeaders, "requestheader-group-headers", []string{"x-remote-group"}, "Headers that name groups.")
	f.StringSliceVar(&c.Front.Extra, "requestheader-extra-headers-prefix", []string{"x-remote-extra-"}, "What headers with more about the user begin with.")
	f.BoolVar(&c.Profiling, "profiling", true, "Serve profiles at /debug/pprof to whom the apiserver allows.")
	f.BoolVar(&c.Contention, "contention-profiling", false, "Profile waiting for locks too.")
}

// workers are the flags that say how many keys of a controller are worked on at once. The defaults are ours where a key
// costs so little here that more in parallel only help.
var workers = []struct {
	flag, controller string
	n                int
}{
	{"concurrent-deployment-syncs", "deployment-controller", 8},
	{"concurrent-replicaset-syncs", "replicaset-controller", 16},
	{"concurrent-rc-syncs", "replicationcontroller-controller", 5},
	{"concurrent-statefulset-syncs", "statefulset-controller", 5},
	{"concurrent-daemonset-syncs", "daemonset-controller", 5},
	{"concurrent-job-syncs", "job-controller", 5},
	{"concurrent-cron-job-syncs", "cronjob-controller", 5},
	{"concurrent-ttl-after-finished-syncs", "ttl-after-finished-controller", 5},
	{"concurrent-horizontal-pod-autoscaler-syncs", "horizontal-pod-autoscaler-controller", 5},
	{"concurrent-endpoint-syncs", "endpoints-controller", 5},
	{"concurrent-service-endpoint-syncs", "endpointslice-controller", 5},
	{"mirroring-concurrent-service-endpoint-syncs", "endpointslice-mirroring-controller", 5},
	{"concurrent-disruption-syncs", "disruption-controller", 5},
	{"concurrent-resource-claim-syncs", "resourceclaim-controller", 10},
	{"concurrent-device-taint-eviction-syncs", "device-taint-eviction-controller", 8},
	{"concurrent-gc-syncs", "garbage-collector-controller", 20},
	{"concurrent-namespace-syncs", "namespace-controller", 10},
	{"concurrent-resource-quota-syncs", "resourcequota-controller", 5},
	{"concurrent-serviceaccount-token-syncs", "serviceaccount-token-controller", 5},
	{"concurrent-ephemeralvolume-syncs", "ephemeral-volume-controller", 5},
	{"concurrent-validating-admission-policy-status-syncs", "validatingadmissionpolicy-status-controller", 5},
}

func (c *Config) addWorkers(f *pflag.FlagSet) {
	c.Workers = map[string]*int{}
	for _, w := range workers {
		if known(w.controller) {
			c.Workers[w.controller] = f.Int(w.flag, w.n, fmt.Sprintf("How many keys of %s are worked on at once.", w.controller))
		}
	}
}

func (c *Config) addNodes(f *pflag.FlagSet) {
	f.StringVar(&c.ClusterName, "cluster-name", "kubernetes", "The cluster's name, for what is made outside of it.")
	f.StringVar(&c.CloudProvider, "cloud-provider", "", "external leaves nodes' addresses, routes and load balancers to a cloud-controller-manager.")
	f.BoolVar(&c.AllocateNodeCIDRs, "allocate-node-cidrs", false, "Give every node a part of --cluster-cidr.")
	f.StringVar(&c.AllocatorType, "cidr-allocator-type", "RangeAllocator", "Who gives it: RangeAllocator is this daemon, CloudAllocator the cloud's.")
	f.StringVar(&c.ClusterCIDR, "cluster-cidr", "", "The pod network: one CIDR, or one of each IP family.")
	f.StringVar(&c.ServiceCIDR, "service-cluster-ip-range", "", "The services' addresses: no node gets a part of them, if they lie in --cluster-cidr.")
	f.IntVar(&c.NodeMask, "node-cidr-mask-size", 0, "How many bits of network a node's part has.")
	f.IntVar(&c.NodeMask4, "node-cidr-mask-size-ipv4", 24, "The same for IPv4, where the one above is not given.")
	f.IntVar(&c.NodeMask6, "node-cidr-mask-size-ipv6", 64, "The same for IPv6.")
	f.DurationVar(&c.NodeGrace, "node-monitor-grace-period", 50*time.Second, "How long a node may be silent before it is not ready.")
	f.DurationVar(&c.NodeStartupGrace, "node-startup-grace-period", time.Minute, "The same for a node that was never heard of.")
	f.DurationVar(&c.NodePeriod, "node-monitor-period", 5*time.Second, "How often the health of zones is looked at; a node's own is at once.")
	f.Float32Var(&c.EvictionRate, "node-eviction-rate", 0.1, "How many nodes a second are given up, where most of their zone is healthy.")
	f.Float32Var(&c.SecondaryRate, "secondary-node-eviction-rate", 0.01, "The same in a zone that is unhealthy; 0 in a small one.")
	f.Float32Var(&c.UnhealthyZone, "unhealthy-zone-threshold", 0.55, "Which part of a zone's nodes, at least three, makes it unhealthy when they are not ready.")
	f.Int32Var(&c.LargeCluster, "large-cluster-size-threshold", 50, "From how many nodes on a zone is large.")
}

func (c *Config) addSigning(f *pflag.FlagSet) {
	f.StringVar(&c.RootCAFile, "root-ca-file", "", "File with the CA that pods are to trust; it is published in every namespace.")
	f.StringVar(&c.ServiceAccountKey, "service-account-private-key-file", "", "File with the key that signs the tokens kept in secrets.")
	f.DurationVar(&c.LegacyTokens, "legacy-service-account-token-clean-up-period", 365*24*time.Hour, "How long a token made by itself may be unused before it is given up, and again before it goes.")
	f.DurationVar(&c.Signing.Duration, "cluster-signing-duration", 365*24*time.Hour, "How long signed certificates live at most.")
	for _, p := range []struct {
		prefix, what string
		pair         *Pair
	}{
		{"cluster-signing", "all signers", &c.Signing.Pair},
		{"cluster-signing-kubelet-serving", "kubernetes.io/kubelet-serving", &c.Signing.KubeletServing},
		{"cluster-signing-kubelet-client", "kubernetes.io/kube-apiserver-client-kubelet", &c.Signing.KubeletClient},
		{"cluster-signing-kube-apiserver-client", "kubernetes.io/kube-apiserver-client", &c.Signing.APIServerClient},
		{"cluster-signing-legacy-unknown", "kubernetes.io/legacy-unknown", &c.Signing.LegacyUnknown},
	} {
		f.StringVar(&p.pair.Cert, p.prefix+"-cert-file", "", "File with the CA's certificate of "+p.what+".")
		f.StringVar(&p.pair.Key, p.prefix+"-key-file", "", "File with the CA's key of "+p.what+".")
	}
}
