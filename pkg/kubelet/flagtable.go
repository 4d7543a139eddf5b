package kubelet

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// fieldFlag is a flag which says a field of the configuration.
type fieldFlag struct {
	name string
	// field is the path of it in the file's form, parts between dots.
	field string
	kind  flagKind
}

// flagKind is how a flag's text becomes the value of a field.
type flagKind int

const (
	asText flagKind = iota
	asWhole
	asYesNo
	asSpan
	asList
	asPairs
	asSwitches
	asThresholds
	asHeaders
	asMemories
)

// fieldFlags are those flags of upstream's kubelet which do nothing but override the file.
var fieldFlags = []fieldFlag{
	{"allowed-unsafe-sysctls", "allowedUnsafeSysctls", asList},
	{"authentication-token-webhook-cache-ttl", "authentication.webhook.cacheTTL", asSpan},
	{"authorization-webhook-cache-authorized-ttl", "authorization.webhook.cacheAuthorizedTTL", asSpan},
	{"authorization-webhook-cache-unauthorized-ttl", "authorization.webhook.cacheUnauthorizedTTL", asSpan},
	{"cgroups-per-qos", "cgroupsPerQOS", asYesNo},
	{"container-log-max-files", "containerLogMaxFiles", asWhole},
	{"container-log-max-size", "containerLogMaxSize", asText},
	{"contention-profiling", "enableContentionProfiling", asYesNo},
	{"cpu-cfs-quota", "cpuCFSQuota", asYesNo},
	{"cpu-cfs-quota-period", "cpuCFSQuotaPeriod", asSpan},
	{"cpu-manager-policy", "cpuManagerPolicy", asText},
	{"cpu-manager-policy-options", "cpuManagerPolicyOptions", asPairs},
	{"cpu-manager-reconcile-period", "cpuManagerReconcilePeriod", asSpan},
	{"enable-controller-attach-detach", "enableControllerAttachDetach", asYesNo},
	{"enable-debugging-handlers", "enableDebuggingHandlers", asYesNo},
	{"enable-server", "enableServer", asYesNo},
	{"enforce-node-allocatable", "enforceNodeAllocatable", asList},
	{"event-burst", "eventBurst", asWhole},
	{"event-qps", "eventRecordQPS", asWhole},
	{"eviction-hard", "evictionHard", asThresholds},
	{"eviction-max-pod-grace-period", "evictionMaxPodGracePeriod", asWhole},
	{"eviction-minimum-reclaim", "evictionMinimumReclaim", asPairs},
	{"eviction-pressure-transition-period", "evictionPressureTransitionPeriod", asSpan},
	{"eviction-soft", "evictionSoft", asThresholds},
	{"eviction-soft-grace-period", "evictionSoftGracePeriod", asPairs},
	{"fail-cgroupv1", "failCgroupV1", asYesNo},
	{"feature-gates", "featureGates", asSwitches},
	{"file-check-frequency", "fileCheckFrequency", asSpan},
	{"hairpin-mode", "hairpinMode", asText},
	{"healthz-bind-address", "healthzBindAddress", asText},
	{"http-check-frequency", "httpCheckFrequency", asSpan},
	{"image-gc-high-threshold", "imageGCHighThresholdPercent", asWhole},
	{"image-gc-low-threshold", "imageGCLowThresholdPercent", asWhole},
	{"kernel-memcg-notification", "kernelMemcgNotification", asYesNo},
	{"kube-api-burst", "kubeAPIBurst", asWhole},
	{"kube-api-content-type", "contentType", asText},
	{"kube-api-qps", "kubeAPIQPS", asWhole},
	{"kube-reserved", "kubeReserved", asPairs},
	{"kube-reserved-cgroup", "kubeReservedCgroup", asText},
	{"kubelet-cgroups", "kubeletCgroups", asText},
	{"local-storage-capacity-isolation", "localStorageCapacityIsolation", asYesNo},
	{"logging-format", "logging.format", asText},
	{"make-iptables-util-chains", "makeIPTablesUtilChains", asYesNo},
	{"manifest-url-header", "staticPodURLHeader", asHeaders},
	{"max-open-files", "maxOpenFiles", asWhole},
	{"memory-manager-policy", "memoryManagerPolicy", asText},
	{"minimum-image-ttl-duration", "imageMinimumGCAge", asSpan},
	{"node-status-max-images", "nodeStatusMaxImages", asWhole},
	{"node-status-update-frequency", "nodeStatusUpdateFrequency", asSpan},
	{"oom-score-adj", "oomScoreAdj", asWhole},
	{"pod-cidr", "podCIDR", asText},
	{"pod-max-pids", "podPidsLimit", asWhole},
	{"pods-per-core", "podsPerCore", asWhole},
	{"protect-kernel-defaults", "protectKernelDefaults", asYesNo},
	{"provider-id", "providerID", asText},
	{"qos-reserved", "qosReserved", asPairs},
	{"registry-burst", "registryBurst", asWhole},
	{"registry-qps", "registryPullQPS", asWhole},
	{"reserved-cpus", "reservedSystemCPUs", asText},
	{"reserved-memory", "reservedMemory", asMemories},
	{"runonce", "runOnce", asYesNo},
	{"runtime-request-timeout", "runtimeRequestTimeout", asSpan},
	{"seccomp-default", "seccompDefault", asYesNo},
	{"serialize-image-pulls", "serializeImagePulls", asYesNo},
	{"streaming-connection-idle-timeout", "streamingConnectionIdleTimeout", asSpan},
	{"sync-frequency", "syncFrequency", asSpan},
	{"system-cgroups", "systemCgroups", asText},
	{"system-reserved", "systemReserved", asPairs},
	{"system-reserved-cgroup", "systemReservedCgroup", asText},
	{"tls-cipher-suites", "tlsCipherSuites", asList},
	{"tls-min-version", "tlsMinVersion", asText},
	{"topology-manager-policy", "topologyManagerPolicy", asText},
	{"topology-manager-policy-options", "topologyManagerPolicyOptions", asPairs},
	{"topology-manager-scope", "topologyManagerScope", asText},
	{"volume-plugin-dir", "volumePluginDir", asText},
	{"volume-stats-agg-period", "volumeStatsAggPeriod", asSpan},
}

// overlay collects what such flags say, as the file would.
type overlay map[string]any

// declare adds the flags of the table.
func (o overlay) declare(fs *pflag.FlagSet) {
	for _, f := range fieldFlags {
		usage := "overrides " + f.field + " of --config"
		switch f.kind {
		case asYesNo:
			fs.VarPF(&fieldValue{o, f, ""}, f.name, "", usage).NoOptDefVal = "true"
		default:
			fs.Var(&fieldValue{o, f, ""}, f.name, usage)
		}
	}
}

// apply writes what was said over a configuration.
func (o overlay) apply(k *kubeletv1beta1.KubeletConfiguration) error {
	if len(o) == 0 {
		return nil
	}
	raw, err := json.Marshal(o)
	if err != nil {
		return err
	}
	// A map which a flag gives replaces the file's.
	var blank struct {
		EvictionHard, EvictionSoft, EvictionSoftGracePeriod, EvictionMinimumReclaim, KubeReserved, SystemReserved, QOSReserved any
	}
	if err := json.Unmarshal(raw, &blank); err != nil {
		return err
	}
	for _, m := range []struct {
		given any
		field *map[string]string
	}{{blank.EvictionHard, &k.EvictionHard}, {blank.EvictionSoft, &k.EvictionSoft}, {blank.EvictionSoftGracePeriod, &k.EvictionSoftGracePeriod}, {blank.EvictionMinimumReclaim, &k.EvictionMinimumReclaim},
		{blank.KubeReserved, &k.KubeReserved}, {blank.SystemReserved, &k.SystemReserved}, {blank.QOSReserved, &k.QOSReserved}} {
		if m.given != nil {
			*m.field = nil
		}
	}
	return yaml.UnmarshalStrict(raw, k)
}

// fieldValue is one flag of the table while the command line is read.
type fieldValue struct {
	into overlay
	flag fieldFlag
	said string
}

// String is what the flag was given.
func (v *fieldValue) String() string { return v.said }

// Type is how help calls the value.
func (v *fieldValue) Type() string {
	return [...]string{"string", "int", "bool", "duration", "strings", "key=value,...", "key=bool,...", "signal<value,...", "key:value", "node:type=size"}[v.flag.kind]
}

// Set takes one value; a list and a map may be given in parts.
func (v *fieldValue) Set(s string) error {
	path := strings.Split(v.flag.field, ".")
	at := map[string]any(v.into)
	for _, p := range path[:len(path)-1] {
		next, ok := at[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[p] = next
		}
		at = next
	}
	last := path[len(path)-1]
	value, err := v.flag.kind.value(s, at[last])
	if err != nil {
		return err
	}
	at[last], v.said = value, s
	return nil
}

// value reads a flag's text; have is what was given before.
func (k flagKind) value(s string, have any) (any, error) {
	switch k {
	case asWhole:
		return strconv.ParseInt(s, 10, 64)
	case asYesNo:
		return strconv.ParseBool(s)
	case asSpan:
		d, err := time.ParseDuration(s)
		return d.String(), err
	case asList:
		out, _ := have.([]string)
		for _, part := range strings.Split(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
		if out == nil {
			out = []string{}
		}
		return out, nil
	case asPairs, asSwitches, asThresholds:
		return k.mapped(s, have)
	case asHeaders:
		out, ok := have.(http.Header)
		if !ok {
			out = http.Header{}
		}
		name, value, ok := strings.Cut(s, ":")
		if !ok {
			return nil, fmt.Errorf("want name:value")
		}
		out.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return out, nil
	case asMemories:
		return reservedMemories(s, have)
	}
	return s, nil
}

func (k flagKind) mapped(s string, have any) (any, error) {
	out, ok := have.(map[string]any)
	if !ok {
		out = map[string]any{}
	}
	sign := "="
	if k == asThresholds {
		sign = "<"
	}
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		key, value, ok := strings.Cut(part, sign)
		if !ok {
			return nil, fmt.Errorf("%q: want %s between name and value", part, sign)
		}
		out[strings.TrimSpace(key)] = strings.TrimSpace(value)
		if k == asSwitches {
			on, err := strconv.ParseBool(strings.TrimSpace(value))
			if err != nil {
				return nil, err
			}
			out[strings.TrimSpace(key)] = on
		}
	}
	return out, nil
}

// reservedMemories reads node:type=size,type=size, several between semicolons.
func reservedMemories(s string, have any) (any, error) {
	out, _ := have.([]map[string]any)
	for _, part := range strings.Split(s, ";") {
		node, sizes, ok := strings.Cut(part, ":")
		n, err := strconv.ParseInt(strings.TrimSpace(node), 10, 32)
		if !ok || err != nil {
			return nil, fmt.Errorf("%q: want node:type=size,type=size", part)
		}
		limits, err := asPairs.mapped(sizes, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, map[string]any{"numaNode": n, "limits": limits})
	}
	return out, nil
}
