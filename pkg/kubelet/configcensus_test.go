package kubelet

import (
	"reflect"
	"testing"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// untuned are the fields of a configuration which have no effect here, and why nobody need be told.
var untuned = map[string]string{
	"KubeletConfiguration.EventRecordQPS":          "events are spread out by client-go's own correlator",
	"KubeletConfiguration.EventBurst":              "events are spread out by client-go's own correlator",
	"KubeletConfiguration.RuntimeRequestTimeout":   "each call to the runtime has a bound of its own",
	"KubeletConfiguration.HairpinMode":             "the network plugin's",
	"KubeletConfiguration.PodCIDR":                 "the network plugin has the node's range from the node's object",
	"KubeletConfiguration.MaxOpenFiles":            "Go raises it to what the machine allows",
	"KubeletConfiguration.KubeAPIQPS":              "the server's fairness protects it, not the node",
	"KubeletConfiguration.KubeAPIBurst":            "the server's fairness protects it, not the node",
	"KubeletConfiguration.MakeIPTablesUtilChains":  "the proxy makes all rules",
	"KubeletConfiguration.IPTablesMasqueradeBit":   "the proxy makes all rules",
	"KubeletConfiguration.IPTablesDropBit":         "the proxy makes all rules",
	"KubeletConfiguration.ContainerLogMaxWorkers":  "one worker turns logs over",
	"KubeletConfiguration.KernelMemcgNotification": "memory is looked at every ten seconds, and every two under pressure",
	"KubeletConfiguration.EnableDebugFlagsHandler": "there is no such page",
}

// TestEveryFieldOfConfigurations holds that each is honoured somewhere, or told of when it is set, or has nothing to change here.
func TestEveryFieldOfConfigurations(t *testing.T) {
	have := selected(t)
	known := map[string]bool{}
	var walk func(typ reflect.Type)
	seen := map[reflect.Type]bool{}
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] || typ.PkgPath() != reflect.TypeFor[kubeletv1beta1.KubeletConfiguration]().PkgPath() {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Anonymous {
				continue
			}
			name := typ.Name() + "." + f.Name
			known[name] = true
			switch why, listed := untuned[name]; {
			case listed && why == "":
				t.Errorf("%s is listed without a reason", name)
			case listed == have[f.Name]:
				t.Errorf("%s is read: %v, and listed as without effect: %v", name, have[f.Name], listed)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[kubeletv1beta1.KubeletConfiguration]())
	for name := range untuned {
		if !known[name] {
			t.Errorf("%s is listed, and there is no such field", name)
		}
	}
}
