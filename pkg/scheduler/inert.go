package scheduler

import (
	"slices"

	"github.com/spf13/pflag"
	configv1 "k8s.io/kube-scheduler/config/v1"
)

// inertFlags are flags of upstream that say nothing here, and why: a command line written for it is taken as it stands.
var inertFlags = map[string]string{
	"feature-gates":                                "features are what the release has on by default",
	"kube-api-qps":                                 "there is no client-side rate limit",
	"kube-api-burst":                               "there is no client-side rate limit",
	"kube-api-content-type":                        "protobuf is spoken",
	"allow-metric-labels":                          "all labels are served",
	"allow-metric-labels-manifest":                 "all labels are served",
	"log-json-info-buffer-size":                    "logs are not buffered",
	"log-text-info-buffer-size":                    "logs are not buffered",
	"min-compatibility-version":                    "the version is " + Release,
	"tls-curve-preferences":                        "Go's choice",
	"requestheader-uid-headers":                    "callers speak for themselves",
	"authentication-token-webhook-cache-ttl":       "answers are kept for 10 seconds",
	"authorization-webhook-cache-authorized-ttl":   "answers are kept for 10 seconds",
	"authorization-webhook-cache-unauthorized-ttl": "answers are kept for 10 seconds",
	"requestheader-client-ca-file":                 "callers speak for themselves",
	"requestheader-allowed-names":                  "callers speak for themselves",
	"requestheader-username-headers":               "callers speak for themselves",
	"requestheader-group-headers":                  "callers speak for themselves",
	"requestheader-extra-headers-prefix":           "callers speak for themselves",
	"http2-max-streams-per-connection":             "Go's choice",
	"show-hidden-metrics-for-version":              "no metric is hidden",
	"vmodule":                                      "see --v",
	"log-flush-frequency":                          "logs are not buffered",
	"disabled-metrics":                             "all metrics are served",
	"emulated-version":                             "the version is " + Release,
}

// inertSwitches are those of them that need no value.
var inertSwitches = map[string]string{
	"permit-address-sharing":                      "the port is not shared",
	"permit-port-sharing":                         "the port is not shared",
	"authentication-skip-lookup":                  "see --client-ca-file",
	"authentication-tolerate-lookup-failure":      "a failed lookup is retried, and callers are refused until it succeeds",
	"emulation-forward-compatible":                "the version is " + Release,
	"runtime-config-emulation-forward-compatible": "the version is " + Release,
	"log-json-split-stream":                       "logs go to stderr",
	"log-text-split-stream":                       "logs go to stderr",
}

// inertFields are such fields of KubeSchedulerConfiguration, alone or with all below them.
var inertFields = map[string]struct {
	given func(*configv1.KubeSchedulerConfiguration) bool
	why   string
}{
	"parallelism":            {func(f *configv1.KubeSchedulerConfiguration) bool { return f.Parallelism != nil }, "one decision takes no more than one thread"},
	"clientConnection.qps":   {func(f *configv1.KubeSchedulerConfiguration) bool { return f.ClientConnection.QPS != 0 }, "there is no client-side rate limit"},
	"clientConnection.burst": {func(f *configv1.KubeSchedulerConfiguration) bool { return f.ClientConnection.Burst != 0 }, "there is no client-side rate limit"},
	"profiles.plugins.placementGenerate": {anyProfile(func(p *configv1.Plugins) configv1.PluginSet { return p.PlacementGenerate }),
		"a gang's topology domains are tried one by one, the largest first"},
	"profiles.plugins.placementScore": {anyProfile(func(p *configv1.Plugins) configv1.PluginSet { return p.PlacementScore }),
		"a gang's topology domains are tried one by one, the largest first"},
	"profiles.plugins.podGroupPostFilter": {anyProfile(func(p *configv1.Plugins) configv1.PluginSet { return p.PodGroupPostFilter }),
		"nobody is evicted for a gang"},
}

func anyProfile(set func(*configv1.Plugins) configv1.PluginSet) func(*configv1.KubeSchedulerConfiguration) bool {
	return func(f *configv1.KubeSchedulerConfiguration) bool {
		return slices.ContainsFunc(f.Profiles, func(p configv1.KubeSchedulerProfile) bool {
			return p.Plugins != nil && len(set(p.Plugins).Enabled)+len(set(p.Plugins).Disabled) > 0
		})
	}
}

func addInert(f *pflag.FlagSet) {
	for name, why := range inertFlags {
		f.String(name, "", "Has no effect: "+why+".")
	}
	for name, why := range inertSwitches {
		f.Bool(name, false, "Has no effect: "+why+".")
	}
}

// inert answers what was given and has no effect, with why.
func (c *Config) inert(file *configv1.KubeSchedulerConfiguration) map[string]string {
	out := map[string]string{}
	if c.flags != nil {
		c.flags.Visit(func(f *pflag.Flag) {
			for _, known := range []map[string]string{inertFlags, inertSwitches} {
				if why, ok := known[f.Name]; ok {
					out["--"+f.Name] = why
				}
			}
		})
	}
	for name, field := range inertFields {
		if field.given(file) {
			out[name] = field.why
		}
	}
	return out
}
