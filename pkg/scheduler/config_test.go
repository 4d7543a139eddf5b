package scheduler

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

func configured(t *testing.T, file string, args ...string) (*Config, error) {
	t.Helper()
	c := &Config{}
	flags := pflag.NewFlagSet("scheduler", pflag.ContinueOnError)
	c.AddFlags(flags)
	if file != "" {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c, c.complete()
}

const header = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"

func TestConfiguration(t *testing.T) {
	c, err := configured(t, header+`
leaderElection: {leaderElect: false, resourceName: mine}
clientConnection: {kubeconfig: /k, qps: 100, contentType: application/json}
delayCacheUntilActive: true
parallelism: 16
percentageOfNodesToScore: 50
podMaxBackoffSeconds: 20
enableProfiling: false
profiles:
- schedulerName: default-scheduler
- schedulerName: packing
  plugins:
    score: {disabled: [{name: "*"}], enabled: [{name: NodeResourcesFit, weight: 7}]}
    filter: {disabled: [{name: NodePorts}]}
    multiPoint: {disabled: [{name: InterPodAffinity}], enabled: [{name: NodeDeclaredFeatures}, {name: TopologyPlacementGenerator}, {name: PodGroupPodsCount, weight: 1}]}
  pluginConfig:
  - {name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated}}}
  - {name: DefaultPreemption, args: {minCandidateNodesAbsolute: 7}}
  - {name: VolumeBinding, args: {bindTimeoutSeconds: 5}}
  - {name: DynamicResources, args: {apiVersion: kubescheduler.config.k8s.io/v1, kind: DynamicResourcesArgs, filterTimeout: 5s, bindingTimeout: 1m0s}}
extenders:
- {urlPrefix: "http://localhost:1", filterVerb: f, managedResources: [{name: x.io/gpu, ignoredByScheduler: true}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	p := c.profiles["packing"]
	if c.LeaderElect || c.LeaseName != "mine" || c.Kubeconfig != "/k" || c.maxBackoff != 20*time.Second || c.Profiling || len(c.profiles) != 2 || len(c.extenders) != 1 || c.contentType != "application/json" || !c.delayWatches {
		t.Errorf("read %+v", c)
	}
	if p.Fit.Type != "MostAllocated" || p.MinCandidates != 7 || p.BindTimeout != 5 || p.DeviceTimeout != 5*time.Second || p.DeviceBindTimeout != time.Minute || p.IgnoredResources[0] != "x.io/gpu" ||
		p.On("NodePorts", rules.Filter) || !p.On("NodePorts", rules.PreFilter) || p.On("InterPodAffinity", rules.Filter) || p.On("ImageLocality", rules.Score) || !p.On("NodeResourcesFit", rules.Score) {
		t.Errorf("read %+v", p)
	}
}

func TestBadConfiguration(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"apiVersion: v1\nkind: Pod\n", "unknown field"},
		{header + "profilez: []", "unknown field"},
		{header + "profiles: [{plugins: {filter: {enabled: [{name: Mine}]}}}]", `there is no plugin "Mine"`},
		{header + "profiles: [{plugins: {bind: {disabled: [{name: '*'}]}}}]", "no plugin is left for Bind"},
		{header + "profiles: [{}, {}]", "two profiles are called default-scheduler"},
		{header + "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: X}}}]}]", `"X" is not one of`},
		{header + "percentageOfNodesToScore: 101", "not in [0-100]"},
		{header + "profiles: [{percentageOfNodesToScore: -1}]", "not in [0-100]"},
		{header + "parallelism: 0", "parallelism: 0 is not above 0"},
		{header + "leaderElection: {resourceLock: endpoints}", `resourceLock "endpoints" is not served`},
		{header + "profiles: [{schedulerName: ''}]", "schedulerName is empty"},
		{header + "profiles: [{pluginConfig: [{name: TaintToleration, args: {a: 1}}]}]", "the plugin takes none"},
		{header + "profiles: [{pluginConfig: [{name: Mine, args: {a: 1}}]}]", "there is no such plugin"},
		{header + "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {}}, {name: NodeResourcesFit, args: {}}]}]", "has args twice"},
		{header + "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {resources: [{name: cpu, weight: 101}]}}}]}]", "not in [1-100]"},
		{header + "profiles: [{pluginConfig: [{name: VolumeBinding, args: {shape: [{utilization: 0, score: 0}]}}]}]", "shape: scoring by storage capacity is not served"},
		{header + "profiles: [{pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: -1}}]}]", "below 0"},
		{header + "profiles: [{pluginConfig: [{name: DynamicResources, args: {bindingTimeout: 10ms}}]}]", "below 1s"},
		{header + "profiles: [{pluginConfig: [{name: DynamicResources, args: {filterTimeout: -1s}}]}]", "below 0"},
		{header + "profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesAbsolute: 0, minCandidateNodesPercentage: 0}}]}]", "cannot both be 0"},
		{header + "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]", "not in [0-100]"},
		{header + "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 0, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]}}]}]", "maxSkew: 0"},
		{header + "profiles: [{pluginConfig: [{name: NodeAffinity, args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Near}]}]}}}}]}]", "addedAffinity"},
		{header + "profiles: [{pluginConfig: [{name: NodeAffinity, args: {kind: NodeResourcesFitArgs}}]}]", "want kind NodeAffinityArgs"},
		{header + "profiles: [{pluginConfig: [{name: NodeAffinity, args: {apiVersion: kubescheduler.config.k8s.io/v1beta3}}]}]", "of kubescheduler.config.k8s.io/v1,"},
		{header + "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {weigth: 1}}]}]", "unknown field"},
		{header + "extenders: [{urlPrefix: 'http://a', managedResources: [{name: x.io/g}]}, {urlPrefix: 'http://b', managedResources: [{name: x.io/g}]}]", "managed by another extender"},
		{header + "podInitialBackoffSeconds: 30", "podMaxBackoffSeconds"},
		{header + "leaderElection: {leaseDuration: 1s}", "leader election: want lease duration"},
	} {
		if _, err := configured(t, c.file); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "strict decoding error: ", ""), c.want) && !strings.Contains(err.Error(), "want kind") {
			t.Errorf("%s: %v; want %q", c.file, err, c.want)
		}
	}
}

// Every flag of upstream's is known, so that a command line written for it is taken.
func TestEveryFlagIsKnown(t *testing.T) {
	flags := pflag.NewFlagSet("scheduler", pflag.ContinueOnError)
	(&Config{}).AddFlags(flags)
	for name := range strings.FieldsSeq(`
		allow-metric-labels allow-metric-labels-manifest authentication-kubeconfig authentication-skip-lookup authentication-token-webhook-cache-ttl
		authentication-tolerate-lookup-failure authorization-always-allow-paths authorization-kubeconfig authorization-webhook-cache-authorized-ttl
		authorization-webhook-cache-unauthorized-ttl bind-address cert-dir client-ca-file config contention-profiling disable-http2-serving disabled-metrics
		emulated-version emulation-forward-compatible feature-gates http2-max-streams-per-connection kube-api-burst kube-api-content-type kube-api-qps kubeconfig
		leader-elect leader-elect-lease-duration leader-elect-renew-deadline leader-elect-resource-lock leader-elect-resource-name
		leader-elect-resource-namespace leader-elect-retry-period log-flush-frequency log-json-info-buffer-size log-json-split-stream
		log-text-info-buffer-size log-text-split-stream logging-format master min-compatibility-version permit-address-sharing permit-port-sharing
		pod-max-in-unschedulable-pods-duration profiling requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix
		requestheader-group-headers requestheader-uid-headers requestheader-username-headers runtime-config-emulation-forward-compatible secure-port
		show-hidden-metrics-for-version tls-cert-file tls-cipher-suites tls-curve-preferences tls-min-version tls-private-key-file tls-sni-cert-key v vmodule
		write-config-to`) {
		if flags.Lookup(name) == nil {
			t.Errorf("there is no --%s", name)
		}
	}
}

// Every field of the configuration is either heeded or told to be without effect; a release with a new one fails here until it is.
func TestEveryFieldIsKnown(t *testing.T) {
	heeded := strings.Fields(`
		clientConnection.acceptContentTypes clientConnection.contentType clientConnection.kubeconfig delayCacheUntilActive enableContentionProfiling enableProfiling
		leaderElection.leaderElect leaderElection.leaseDuration leaderElection.renewDeadline leaderElection.resourceLock leaderElection.resourceName
		leaderElection.resourceNamespace leaderElection.retryPeriod percentageOfNodesToScore podInitialBackoffSeconds podMaxBackoffSeconds
		extenders.bindVerb extenders.enableHTTPS extenders.filterVerb extenders.httpTimeout extenders.ignorable extenders.managedResources.ignoredByScheduler
		extenders.managedResources.name extenders.nodeCacheCapable extenders.preemptVerb extenders.prioritizeVerb extenders.tlsConfig.caData extenders.tlsConfig.caFile
		extenders.tlsConfig.certData extenders.tlsConfig.certFile extenders.tlsConfig.insecure extenders.tlsConfig.keyData extenders.tlsConfig.keyFile
		extenders.tlsConfig.serverName extenders.urlPrefix extenders.weight
		profiles.percentageOfNodesToScore profiles.pluginConfig.args profiles.pluginConfig.name profiles.schedulerName
		DefaultPreemptionArgs.minCandidateNodesAbsolute DefaultPreemptionArgs.minCandidateNodesPercentage
		InterPodAffinityArgs.hardPodAffinityWeight InterPodAffinityArgs.ignorePreferredTermsOfExistingPods NodeAffinityArgs.addedAffinity
		NodeResourcesBalancedAllocationArgs.resources.name NodeResourcesBalancedAllocationArgs.resources.weight
		NodeResourcesFitArgs.ignoredResourceGroups NodeResourcesFitArgs.ignoredResources NodeResourcesFitArgs.scoringStrategy.requestedToCapacityRatio.shape.score
		NodeResourcesFitArgs.scoringStrategy.requestedToCapacityRatio.shape.utilization NodeResourcesFitArgs.scoringStrategy.resources.name
		NodeResourcesFitArgs.scoringStrategy.resources.weight NodeResourcesFitArgs.scoringStrategy.type
		DynamicResourcesArgs.bindingTimeout DynamicResourcesArgs.filterTimeout
		PodTopologySpreadArgs.defaultConstraints PodTopologySpreadArgs.defaultingType VolumeBindingArgs.bindTimeoutSeconds`)
	for _, at := range []string{"preEnqueue", "queueSort", "preFilter", "filter", "postFilter", "preScore", "score", "reserve", "permit", "preBind", "bind", "postBind", "multiPoint"} {
		for _, field := range []string{"disabled.name", "disabled.weight", "enabled.name", "enabled.weight"} {
			heeded = append(heeded, "profiles.plugins."+at+"."+field)
		}
	}
	// Upstream refuses it as well, its gate being off.
	refused := []string{"VolumeBindingArgs.shape.score", "VolumeBindingArgs.shape.utilization"}
	known := slices.Concat(heeded, refused)
	var there []string
	for _, root := range []any{configv1.KubeSchedulerConfiguration{}, configv1.DefaultPreemptionArgs{}, configv1.DynamicResourcesArgs{}, configv1.InterPodAffinityArgs{}, configv1.NodeAffinityArgs{},
		configv1.NodeResourcesBalancedAllocationArgs{}, configv1.NodeResourcesFitArgs{}, configv1.PodTopologySpreadArgs{}, configv1.VolumeBindingArgs{}} {
		kind := reflect.TypeOf(root)
		path := kind.Name() + "."
		if path == "KubeSchedulerConfiguration." {
			path = ""
		}
		there = append(there, fieldsOf(kind, path)...)
	}
	inert := func(path string) bool {
		for name := range inertFields {
			if path == name || strings.HasPrefix(path, name+".") {
				return true
			}
		}
		return false
	}
	for _, path := range there {
		if slices.Contains(known, path) == inert(path) {
			t.Errorf("nothing is known of %s", path)
		}
	}
	for _, path := range known {
		if !slices.Contains(there, path) {
			t.Errorf("there is no %s", path)
		}
	}
}

// fieldsOf answers the paths of the leaves of a type by their names in JSON. What belongs to the API, and not to the configuration, is a leaf.
func fieldsOf(kind reflect.Type, path string) (out []string) {
	for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice {
		kind = kind.Elem()
	}
	if kind.Kind() != reflect.Struct || !strings.Contains(kind.PkgPath(), "config/v1") {
		return []string{strings.TrimSuffix(path, ".")}
	}
	for i := range kind.NumField() {
		f := kind.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Type == reflect.TypeFor[metav1.TypeMeta]():
		case name == "":
			out = append(out, fieldsOf(f.Type, path)...)
		default:
			out = append(out, fieldsOf(f.Type, path+name+".")...)
		}
	}
	return out
}

// What has no effect is said to have none, once, at the start.
func TestWithoutEffect(t *testing.T) {
	c, err := configured(t, header+"parallelism: 16\nclientConnection: {qps: 5}\nprofiles: [{plugins: {placementScore: {disabled: [{name: '*'}]}}}]", "--feature-gates=A=true", "--permit-port-sharing", "--v=0")
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(c.inert(c.file))); !slices.Equal(got, []string{"--feature-gates", "--permit-port-sharing", "clientConnection.qps", "parallelism", "profiles.plugins.placementScore"}) {
		t.Errorf("without effect: %v", got)
	}
	for name := range maps.Keys(inertFlags) {
		if f := c.flags.Lookup(name); f == nil || !strings.HasPrefix(f.Usage, "Has no effect: ") {
			t.Errorf("--%s: %v", name, f)
		}
	}
}

// What kubeadm and distributions put on upstream's command line is taken.
func TestFlags(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.yaml")
	_, err := configured(t, "", "--authentication-kubeconfig=/a", "--authorization-kubeconfig=/b", "--bind-address=127.0.0.1", "--kubeconfig=/k", "--leader-elect=true",
		"--secure-port=10259", "--profiling=false", "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "--feature-gates=A=true,B=false", "--kube-api-qps=50",
		"--kube-api-burst=100", "--authorization-always-allow-paths=/healthz", "--logging-format=json", "--v=2", "--write-config-to="+out)
	if !errors.Is(err, ErrWritten) {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := configured(t, string(raw)); err != nil || !strings.Contains(string(raw), "kubeconfig: /k") {
		t.Errorf("%v in\n%s", err, raw)
	}
}
