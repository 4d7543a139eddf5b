package kubelet

import (
	"sort"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// unheeded are the fields of a configuration which ask for something this kubelet does not do. Fields which tune how
// upstream does its work, and have nothing to tune here, are not among them.
func unheeded(k *kubeletv1beta1.KubeletConfiguration) []string {
	off := func(b *bool) bool { return b != nil && !*b }
	on := func(b *bool) bool { return b != nil && *b }
	set := map[string]bool{
		"readOnlyPort":                  k.ReadOnlyPort != 0,
		"enableSystemLogQuery":          on(k.EnableSystemLogQuery),
		"tracing":                       k.Tracing != nil,
		"kubeletCgroups":                k.KubeletCgroups != "",
		"systemCgroups":                 k.SystemCgroups != "",
		"runOnce":                       k.RunOnce,
		"enableControllerAttachDetach":  off(k.EnableControllerAttachDetach),
		"showHiddenMetricsForVersion":   k.ShowHiddenMetricsForVersion != "",
		"volumePluginDir":               k.VolumePluginDir != "",
		"memoryThrottlingFactor":        k.MemoryThrottlingFactor != nil,
		"memoryReservationPolicy":       k.MemoryReservationPolicy != "" && k.MemoryReservationPolicy != kubeletv1beta1.NoneMemoryReservationPolicy,
		"localStorageCapacityIsolation": off(k.LocalStorageCapacityIsolation),
		"enableContentionProfiling":     k.EnableContentionProfiling,
		"logging.format":                k.Logging.Format != "" && k.Logging.Format != "text",
	}
	var out []string
	for name, on := range set {
		if on {
			out = append(out, name)
		}
	}
	for _, name := range idle(k.FeatureGates) {
		out = append(out, "featureGates."+name)
	}
	sort.Strings(out)
	return out
}
