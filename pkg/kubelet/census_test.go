package kubelet

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// elsewhere are the fields of a pod's spec which this kubelet does not read, and why.
var elsewhere = map[string]string{
	"VolumeSource.GCEPersistentDisk":                               "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"GCEPersistentDiskVolumeSource.*":                              "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"VolumeSource.AWSElasticBlockStore":                            "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"AWSElasticBlockStoreVolumeSource.*":                           "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"VolumeSource.AzureFile":                                       "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"AzureFileVolumeSource.*":                                      "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"VolumeSource.AzureDisk":                                       "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"AzureDiskVolumeSource.*":                                      "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"VolumeSource.Cinder":                                          "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"CinderVolumeSource.*":                                         "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"VolumeSource.VsphereVolume":                                   "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"VsphereVirtualDiskVolumeSource.*":                             "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"VolumeSource.PortworxVolume":                                  "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"PortworxVolumeSource.*":                                       "a provider's disk: its CSI driver serves it, and a pod which asks for it in this old form is told that no plugin matched",
	"VolumeSource.Glusterfs":                                       "no Kubernetes of this release serves it",
	"GlusterfsVolumeSource.*":                                      "no Kubernetes of this release serves it",
	"VolumeSource.RBD":                                             "no Kubernetes of this release serves it",
	"RBDVolumeSource.*":                                            "no Kubernetes of this release serves it",
	"VolumeSource.CephFS":                                          "no Kubernetes of this release serves it",
	"CephFSVolumeSource.*":                                         "no Kubernetes of this release serves it",
	"VolumeSource.Flocker":                                         "no Kubernetes of this release serves it",
	"FlockerVolumeSource.*":                                        "no Kubernetes of this release serves it",
	"VolumeSource.Quobyte":                                         "no Kubernetes of this release serves it",
	"QuobyteVolumeSource.*":                                        "no Kubernetes of this release serves it",
	"VolumeSource.PhotonPersistentDisk":                            "no Kubernetes of this release serves it",
	"PhotonPersistentDiskVolumeSource.*":                           "no Kubernetes of this release serves it",
	"VolumeSource.ScaleIO":                                         "no Kubernetes of this release serves it",
	"ScaleIOVolumeSource.*":                                        "no Kubernetes of this release serves it",
	"VolumeSource.StorageOS":                                       "no Kubernetes of this release serves it",
	"StorageOSVolumeSource.*":                                      "no Kubernetes of this release serves it",
	"VolumeSource.ISCSI":                                           "storage networks are served through their CSI drivers only",
	"ISCSIVolumeSource.*":                                          "storage networks are served through their CSI drivers only",
	"VolumeSource.FC":                                              "storage networks are served through their CSI drivers only",
	"FCVolumeSource.*":                                             "storage networks are served through their CSI drivers only",
	"VolumeSource.FlexVolume":                                      "programs for volumes gave way to CSI",
	"FlexVolumeSource.*":                                           "programs for volumes gave way to CSI",
	"GitRepoVolumeSource.*":                                        "refused whole: it runs git on the node (CVE-2025-0426)",
	"SecretVolumeSource.DefaultUser":                               "of the alpha AtomicWriteVolumeUserFields, which is off",
	"DownwardAPIVolumeSource.DefaultUser":                          "of the alpha AtomicWriteVolumeUserFields, which is off",
	"ConfigMapVolumeSource.DefaultUser":                            "of the alpha AtomicWriteVolumeUserFields, which is off",
	"ProjectedVolumeSource.DefaultUser":                            "of the alpha AtomicWriteVolumeUserFields, which is off",
	"VolumeMount.BindMountOptions":                                 "of the alpha VolumeBindMountOptions, which is off",
	"EphemeralVolumeSource.VolumeClaimTemplate":                    "the control plane makes the claim from it",
	"PersistentVolumeClaimSpec.*":                                  "the control plane makes the claim from it",
	"TypedLocalObjectReference.*":                                  "the control plane makes the claim from it",
	"TypedObjectReference.*":                                       "the control plane makes the claim from it",
	"SecurityContext.WindowsOptions":                               "Windows",
	"PodSecurityContext.WindowsOptions":                            "Windows",
	"WindowsSecurityContextOptions.*":                              "Windows",
	"PodSecurityContext.SELinuxChangePolicy":                       "volumes are labelled by the runtime, the way Recursive says; mount options for labels are not made",
	"PodSpec.Affinity":                                             "read by k8s.io/component-helpers' nodeaffinity",
	"Affinity.NodeAffinity":                                        "read by k8s.io/component-helpers' nodeaffinity",
	"NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution":  "read by k8s.io/component-helpers' nodeaffinity",
	"NodeSelector.*":                                               "read by k8s.io/component-helpers' nodeaffinity",
	"NodeSelectorTerm.*":                                           "read by k8s.io/component-helpers' nodeaffinity",
	"PodSpec.SchedulerName":                                        "the scheduler's",
	"PodSpec.TopologySpreadConstraints":                            "the scheduler's",
	"TopologySpreadConstraint.*":                                   "the scheduler's",
	"PodSpec.SchedulingGates":                                      "the scheduler's",
	"PodSpec.SchedulingGroup":                                      "the scheduler's",
	"PodSchedulingGroup.*":                                         "the scheduler's",
	"PodSpec.PreemptionPolicy":                                     "the scheduler's",
	"NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution": "the scheduler's",
	"PreferredSchedulingTerm.*":                                    "the scheduler's",
	"Affinity.PodAffinity":                                         "the scheduler's",
	"Affinity.PodAntiAffinity":                                     "the scheduler's",
	"PodAffinity.*":                                                "the scheduler's",
	"PodAntiAffinity.*":                                            "the scheduler's",
	"PodAffinityTerm.*":                                            "the scheduler's",
	"WeightedPodAffinityTerm.*":                                    "the scheduler's",
	"PodSpec.PriorityClassName":                                    "admission turned it into priority",
	"PodSpec.AutomountServiceAccountToken":                         "admission turned it into a volume",
	"PodSpec.DeprecatedServiceAccount":                             "the old name of serviceAccountName, which the API keeps equal",
	"Toleration.TolerationSeconds":                                 "who evicts by taints counts these seconds",
	"PodSpec.EvictionResponders":                                   "whoever asks for an eviction reads it",
	"EvictionResponder.*":                                          "whoever asks for an eviction reads it",
	"PodResourceClaim.ResourceClaimTemplateName":                   "the claim made from it stands in the status",
}

// selected are the names of all fields which the sources below this folder select.
func selected(t *testing.T) map[string]bool {
	out := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				out[s.Sel.Name] = true
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// fieldsOf walks what is in a type of the core API, each type once, and calls f for each field.
func fieldsOf(typ reflect.Type, seen map[reflect.Type]bool, f func(owner reflect.Type, field reflect.StructField)) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || seen[typ] || typ.PkgPath() != reflect.TypeFor[v1.Pod]().PkgPath() {
		return
	}
	seen[typ] = true
	for i := range typ.NumField() {
		if !typ.Field(i).Anonymous {
			f(typ, typ.Field(i))
		}
		fieldsOf(typ.Field(i).Type, seen, f)
	}
}

// TestEveryFieldOfPods holds that whatever a pod can ask for is read somewhere here, or is known to be of no concern to a
// node. It goes by names: that the reading does what it should, the other tests tell.
func TestEveryFieldOfPods(t *testing.T) {
	have := selected(t)
	known := map[string]bool{}
	fieldsOf(reflect.TypeFor[v1.PodSpec](), map[reflect.Type]bool{}, func(owner reflect.Type, field reflect.StructField) {
		name := owner.Name() + "." + field.Name
		known[name] = true
		why, listed := elsewhere[name]
		if !listed {
			why, listed = elsewhere[owner.Name()+".*"]
			known[owner.Name()+".*"] = true
		}
		switch {
		case !have[field.Name] && !listed:
			t.Errorf("nobody reads %s, and no reason is given for that", name)
		case listed && why == "":
			t.Errorf("%s is listed without a reason", name)
		}
	})
	for name := range elsewhere {
		if !known[name] {
			t.Errorf("%s is listed, and there is no such field", name)
		}
	}
}
