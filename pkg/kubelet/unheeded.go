package kubelet

import (
	"sort"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// unheeded are the fields of a configuration which ask for something this kubelet does not do. Fields which tune how
// upstream does its work, and have nothing to tune here, are not among them.
func unheeded(k *kubeletv1beta1.KubeletConfiguration) []string {
	set := map[string]bool{
		"readOnlyPort":           k.ReadOnlyPort != 0,
		"cgroupsPerQOS":          k.CgroupsPerQOS != nil && !*k.CgroupsPerQOS,
		"qosReserved":            len(k.QOSReserved) > 0,
		"enableSystemLogHandler": k.EnableSystemLogQuery != nil && *k.EnableSystemLogQuery,
		"tracing":                k.Tracing != nil,
		"providerID":             k.ProviderID != "",
	}
	var out []string
	for name, on := range set {
		if on {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out
}
