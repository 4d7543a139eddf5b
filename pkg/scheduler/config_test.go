package scheduler

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

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
    multiPoint: {disabled: [{name: InterPodAffinity}]}
  pluginConfig:
  - {name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated}}}
  - {name: DefaultPreemption, args: {minCandidateNodesAbsolute: 7}}
  - {name: VolumeBinding, args: {bindTimeoutSeconds: 5}}
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
	if p.Fit.Type != "MostAllocated" || p.MinCandidates != 7 || p.BindTimeout != 5 || p.IgnoredResources[0] != "x.io/gpu" ||
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
		{header + "profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesAbsolute: 0, minCandidateNodesPercentage: 0}}]}]", "cannot both be 0"},
		{header + "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]", "not in [0-100]"},
		{header + "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 0, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]}}]}]", "maxSkew: 0"},
		{header + "profiles: [{pluginConfig: [{name: NodeAffinity, args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Near}]}]}}}}]}]", "addedAffinity"},
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
