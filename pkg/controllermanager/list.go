package controllermanager

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"

	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/attachdetach"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/attributesclass"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/autoscaler"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/bootstrap"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/certificates"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/clusterrole"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/cronjob"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/daemonset"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/deployment"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/devicetaint"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/disruption"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/endpoints"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/endpointslice"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/endpointslicemirroring"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/ephemeral"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/expander"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/garbage"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/job"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/loadbalancer"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/localpath"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/migration"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/namespace"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/nodeipam"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/nodelifecycle"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/nodettl"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/podgc"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/policystatus"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/protection"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/replicaset"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/resourceclaim"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/resourcequota"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/rootca"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/satoken"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/selinuxwarning"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/serviceaccount"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/servicecidr"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/statefulset"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/trustbundle"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/ttlafterfinished"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/volumebinder"
)

// parts is what controllers are made of.
type parts struct {
	runtime.Deps
	c       *Config
	objects metadata.Interface
}

// entry is one line of the list.
type entry struct {
	name  string // upstream's
	short string // its name of old, which --controllers still takes
	// make answers the controller, nil if the configuration has no work for it.
	make func(p parts) (*runtime.Controller, error)
}

// one is an entry whose controller is always there; its events name source.
func one(name, short, source string, f func(d runtime.Deps, p parts) *runtime.Controller) entry {
	return entry{name, short, func(p parts) (*runtime.Controller, error) { return f(p.From(source), p), nil }}
}

// plain is a controller that needs nothing but the common parts.
func plain(name, short, source string, f func(d runtime.Deps) *runtime.Controller) entry {
	return one(name, short, source, func(d runtime.Deps, _ parts) *runtime.Controller { return f(d) })
}

// list is every controller.
func list() []entry {
	return []entry{
		plain("deployment-controller", "deployment", "deployment-controller", deployment.New),
		plain("replicaset-controller", "replicaset", "replicaset-controller", replicaset.New),
		plain("replicationcontroller-controller", "replicationcontroller", "replication-controller", replicaset.NewReplication),
		plain("daemonset-controller", "daemonset", "daemonset-controller", daemonset.New),
		plain("statefulset-controller", "statefulset", "statefulset-controller", statefulset.New),
		plain("job-controller", "job", "job-controller", job.New),
		one("horizontal-pod-autoscaler-controller", "horizontalpodautoscaling", "horizontal-pod-autoscaler", func(d runtime.Deps, p parts) *runtime.Controller { return autoscaler.New(d, p.c.Autoscaler) }),
		plain("cronjob-controller", "cronjob", "cronjob-controller", cronjob.New),
		plain("ttl-after-finished-controller", "ttl-after-finished", "ttl-after-finished-controller", ttlafterfinished.New),
		plain("endpointslice-controller", "endpointslice", "endpoint-slice-controller", endpointslice.New),
		plain("endpointslice-mirroring-controller", "endpointslicemirroring", "endpoint-slice-mirroring-controller", endpointslicemirroring.New),
		plain("endpoints-controller", "endpoint", "endpoint-controller", endpoints.New),
		plain("disruption-controller", "disruption", "controllermanager", disruption.New),
		plain("clusterrole-aggregation-controller", "clusterrole-aggregation", "clusterrole-aggregation-controller", clusterrole.New),
		one("resourcequota-controller", "resourcequota", "resourcequota-controller", func(d runtime.Deps, p parts) *runtime.Controller { return resourcequota.New(d, p.objects) }),
		plain("serviceaccount-controller", "serviceaccount", "serviceaccount-controller", serviceaccount.New),
		one("namespace-controller", "namespace", "namespace-controller", func(d runtime.Deps, p parts) *runtime.Controller { return namespace.New(d, p.objects) }),
		{"garbage-collector-controller", "garbagecollector", collector},
		one("pod-garbage-collector-controller", "podgc", "pod-garbage-collector-controller", func(d runtime.Deps, p parts) *runtime.Controller { return podgc.New(d, p.c.TerminatedPods) }),
		one("node-lifecycle-controller", "nodelifecycle", "node-controller", func(d runtime.Deps, p parts) *runtime.Controller { return nodelifecycle.New(d, p.c.nodes()) }),
		plain("taint-eviction-controller", "taint-eviction", "taint-eviction-controller", nodelifecycle.NewEviction),
		plain("bootstrap-signer-controller", "bootstrapsigner", "bootstrap-signer", bootstrap.NewSigner),
		plain("token-cleaner-controller", "tokencleaner", "token-cleaner", bootstrap.NewCleaner),
		plain("persistentvolumeclaim-protection-controller", "pvc-protection", "pvc-protection-controller", protection.NewClaims),
		plain("persistentvolume-protection-controller", "pv-protection", "pv-protection-controller", protection.NewVolumes),
		plain("persistentvolume-binder-controller", "persistentvolume-binder", "persistentvolume-controller", volumebinder.New),
		one("persistentvolume-attach-detach-controller", "attachdetach", "attachdetach-controller", func(d runtime.Deps, p parts) *runtime.Controller { return attachdetach.New(d, p.c.attach()) }),
		plain("persistentvolume-expander-controller", "persistentvolume-expander", "volume_expand", expander.New),
		plain("ephemeral-volume-controller", "ephemeral-volume", "ephemeral_volume", ephemeral.New),
		plain("volumeattributesclass-protection-controller", "vac-protection", "vac-protection-controller", attributesclass.New),
		plain("resourceclaim-controller", "resource-claim-controller", "resource_claim", resourceclaim.New),
		plain("device-taint-eviction-controller", "device-taint-eviction", "device-taint-eviction", devicetaint.New),
		plain("service-cidr-controller", "service-cidr", "service-cidr-controller", servicecidr.New),
		plain("validatingadmissionpolicy-status-controller", "validatingadmissionpolicy-status", "validatingadmissionpolicy-status", policystatus.New),
		plain("selinux-warning-controller", "selinux-warning", "selinux_warning", selinuxwarning.New),
		plain("ttl-controller", "ttl", "ttl-controller", nodettl.New),
		{"serviceaccount-token-controller", "serviceaccount-token", accountTokens},
		one("legacy-serviceaccount-token-cleaner-controller", "legacy-service-account-token-cleaner", "legacy-serviceaccount-token-cleaner-controller", func(d runtime.Deps, p parts) *runtime.Controller { return satoken.NewCleaner(d, p.c.LegacyTokens) }),
		{"certificatesigningrequest-signing-controller", "csrsigning", signing},
		plain("certificatesigningrequest-approving-controller", "csrapproving", "certificate-controller", certificates.NewApproving),
		plain("certificatesigningrequest-cleaner-controller", "csrcleaner", "certificate-controller", certificates.NewCleaner),
		plain("podcertificaterequest-cleaner-controller", "podcertificaterequest-cleaner", "podcertificaterequest-cleaner", certificates.NewPodCleaner),
		{"root-ca-certificate-publisher-controller", "root-ca-cert-publisher", rootCA},
		{"kube-apiserver-serving-clustertrustbundle-publisher-controller", "kube-apiserver-serving-clustertrustbundle-publisher", trustBundle},
		one("storage-version-migrator-controller", "storage-version-migrator", "storage-version-migrator", func(d runtime.Deps, p parts) *runtime.Controller { return migration.New(d, p.objects) }),
		{"node-ipam-controller", "nodeipam", nodeIPAM},
		{"address-pool-controller", "address-pool", addressPool},
		{"local-path-provisioner-controller", "local-path-provisioner", localPath},
	}
}

// elsewhere are upstream's controllers that are not here, with the reason: they may be left out, and cannot be asked for.
var elsewhere = map[string]string{
	"service-lb-controller":                       inCloud,
	"node-route-controller":                       inCloud,
	"cloud-node-lifecycle-controller":             inCloud,
	"storageversion-garbage-collector-controller": notServed + "storageversions",
}

const (
	inCloud   = "the cloud's own controllers run in its cloud-controller-manager"
	notServed = "the apiserver has no "
)

// olden are the names of old of those.
var olden = map[string]string{
	"service": "service-lb-controller", "route": "node-route-controller", "cloud-node-lifecycle": "cloud-node-lifecycle-controller", "storage-version-gc": "storageversion-garbage-collector-controller",
}

// offByDefault are the controllers that "*" does not mean.
var offByDefault = []string{"bootstrap-signer-controller", "selinux-warning-controller", "token-cleaner-controller"}

// names are all that may be asked for, in order.
func names() (out []string) {
	for _, e := range list() {
		out = append(out, e.name)
	}
	slices.Sort(out)
	return out
}

// known tells whether a name is in the list.
func known(name string) bool {
	return slices.ContainsFunc(list(), func(e entry) bool { return name == e.name || name == e.short })
}

// All answers every controller that the configuration asks for.
func All(c *Config, d runtime.Deps, objects metadata.Interface) ([]*runtime.Controller, error) {
	var out []*runtime.Controller
	for _, e := range list() {
		choice := wanted(c.Controllers, e.name, e.short)
		if choice == no {
			continue
		}
		x, err := e.make(parts{d, c, objects})
		if err != nil {
			return nil, err
		}
		if x == nil || x.Off && choice != named {
			continue
		}
		if n := c.Workers[x.Name]; n != nil && *n > 0 {
			x.Workers = *n
		}
		out = append(out, x)
	}
	return out, nil
}

// Graph prints who reads and writes what, of the controllers that the configuration asks for. No apiserver is needed.
func Graph(w io.Writer, c *Config) error {
	nowhere := &rest.Config{Host: "localhost"} // nothing is asked
	client, err := kubernetes.NewForConfig(nowhere)
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(nowhere)
	if err != nil {
		return err
	}
	d := runtime.Deps{Client: client, Informers: informers.NewSharedInformerFactory(client, 0)}
	d.Recorder = func(string) func(apiruntime.Object, string, string, string) {
		return func(apiruntime.Object, string, string, string) {}
	}
	list, err := All(c, d, objects)
	if err != nil {
		return err
	}
	runtime.Graph(w, list)
	return nil
}

// choice is what --controllers says of one.
type choice int

const (
	no choice = iota
	all
	named
)

// wanted reads --controllers: "*" is all, "-name" leaves one out, a name puts one in. The first that says something of a
// controller is believed.
func wanted(list []string, name, short string) choice {
	out := no
	for _, c := range list {
		switch c {
		case name, short:
			return named
		case "-" + name, "-" + short:
			return no
		case "*":
			out = all
		}
	}
	return out
}

func (c *Config) nodes() nodelifecycle.Config {
	return nodelifecycle.Config{
		Grace: c.NodeGrace, StartupGrace: c.NodeStartupGrace, Period: c.NodePeriod,
		Rate: c.EvictionRate, SecondaryRate: c.SecondaryRate, Unhealthy: c.UnhealthyZone, Large: int(c.LargeCluster),
	}
}

func (c *Config) attach() attachdetach.Config {
	out := attachdetach.Config{NoForce: c.NoForceDetach, Resync: c.AttachResync}
	if c.NoAttachResync {
		out.Resync = 0
	}
	return out
}

func collector(p parts) (*runtime.Controller, error) {
	if !p.c.CollectGarbage {
		return nil, nil
	}
	return garbage.New(p.From("garbage-collector-controller"), p.objects), nil
}

func rootCA(p parts) (*runtime.Controller, error) {
	ca, err := p.c.rootCA()
	if ca == "" || err != nil {
		return nil, err
	}
	return rootca.New(p.From("root-ca-certificate-publisher-controller"), ca), nil
}

func trustBundle(p parts) (*runtime.Controller, error) {
	ca, err := p.c.rootCA()
	if ca == "" || err != nil {
		return nil, err
	}
	return trustbundle.New(p.From("kube-apiserver-serving-clustertrustbundle-publisher-controller"), ca), nil
}

// rootCA reads the bundle of --root-ca-file, "" if there is none.
func (c *Config) rootCA() (string, error) {
	if c.RootCAFile == "" {
		return "", nil
	}
	ca, err := os.ReadFile(c.RootCAFile)
	if err != nil {
		return "", fmt.Errorf("reading --root-ca-file: %w", err)
	}
	return string(ca), nil
}

func nodeIPAM(p parts) (*runtime.Controller, error) {
	if !p.c.AllocateNodeCIDRs || p.c.AllocatorType != "RangeAllocator" {
		return nil, nil
	}
	cidrs, bits, err := p.c.nodeRanges()
	if err != nil {
		return nil, err
	}
	var services []netip.Prefix
	if services, err = p.c.serviceRanges(); err != nil {
		return nil, err
	}
	return nodeipam.New(p.From("cidrAllocator"), cidrs, bits, services), nil
}

func addressPool(p parts) (*runtime.Controller, error) {
	pool, err := loadbalancer.ParsePool(p.c.LoadBalancerPool)
	if err != nil || len(pool) == 0 {
		return nil, err
	}
	return loadbalancer.New(p.From("service-controller"), loadbalancer.Config{Pool: pool, NoClass: p.c.CloudProvider == ""}), nil
}

func localPath(p parts) (*runtime.Controller, error) {
	if p.c.LocalPath.Image == "" {
		return nil, nil
	}
	return localpath.New(p.From(localpath.Provisioner), p.c.LocalPath), nil
}

func signing(p parts) (*runtime.Controller, error) {
	c := p.c.Signing.config()
	if c == (certificates.Config{Duration: c.Duration}) {
		return nil, nil
	}
	return certificates.NewSigning(p.From("certificate-controller"), c), nil
}

func accountTokens(p parts) (*runtime.Controller, error) {
	if p.c.ServiceAccountKey == "" {
		return nil, nil
	}
	issuer, err := satoken.NewIssuer(p.c.ServiceAccountKey)
	if err != nil {
		return nil, fmt.Errorf("reading --service-account-private-key-file: %w", err)
	}
	var ca []byte
	if p.c.RootCAFile != "" {
		if ca, err = os.ReadFile(p.c.RootCAFile); err != nil {
			return nil, fmt.Errorf("reading --root-ca-file: %w", err)
		}
	}
	return satoken.New(p.From("serviceaccount-token-controller"), issuer, ca), nil
}
