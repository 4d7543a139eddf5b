package rules

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each archive is a cluster, perhaps a profile, and pods: name.yaml is a pod, name.out what is decided about it and what every node says.
// Pods are decided against the same cluster; none is placed.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			table, profile := NewTable(1), DefaultProfile(v1.DefaultSchedulerName)
			want := map[string]string{}
			out := &txtar.Archive{Comment: archive.Comment}
			for _, f := range archive.Files {
				if strings.HasSuffix(f.Name, ".out") {
					want[strings.TrimSuffix(f.Name, ".out")] = string(f.Data)
				}
			}
			for _, f := range archive.Files {
				switch name := strings.TrimSuffix(f.Name, ".yaml"); {
				case strings.HasSuffix(f.Name, ".out"):
				case name == "cluster":
					out.Files = append(out.Files, f)
					fill(t, table, f.Data)
				case name == "profile":
					out.Files = append(out.Files, f)
					var p configv1.KubeSchedulerProfile
					if err := yaml.UnmarshalStrict(f.Data, &p); err != nil {
						t.Fatal(err)
					}
					if profile, err = NewProfile(&p); err != nil {
						t.Fatal(err)
					}
				default:
					got := outcome(t, table, profile, name, f.Data)
					out.Files = append(out.Files, f, txtar.File{Name: name + ".out", Data: []byte(got)})
					if got != want[name] && !*update {
						t.Errorf("%s: got\n%swant\n%s", name, got, want[name])
					}
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Every plugin is shown by an archive of its name, but for those whose work is none of a single decision.
func TestEveryPluginIsShown(t *testing.T) {
	elsewhere := map[string]string{
		"PrioritySort": "TestQueue of package scheduler", "GangScheduling": "TestAGang of package scheduler",
		"TopologyPlacementGenerator": "TestAGangInOneDomain of package scheduler", "PodGroupPodsCount": "TestAGangInOneDomain of package scheduler", "DefaultBinder": "TestAFailedBindIsUndone of package scheduler",
	}
	for _, plugin := range Plugins() {
		files, err := filepath.Glob("testdata/" + plugin.Name + "*.txtar")
		if shown := len(files) > 0; err != nil || shown == (elsewhere[plugin.Name] != "") {
			t.Errorf("%s: archives %v, and elsewhere %q; want either", plugin.Name, files, elsewhere[plugin.Name])
		}
	}
}

// objects decodes every document of a YAML file.
func objects(t *testing.T, raw []byte) (out []runtime.Object) {
	t.Helper()
	docs := yamlutil.NewYAMLReader(bufio.NewReader(strings.NewReader(string(raw))))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(doc)) == "" {
			continue
		}
		if doc, err = yaml.YAMLToJSON(doc); err != nil {
			t.Fatal(err)
		}
		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		out = append(out, obj)
	}
}

func fill(t *testing.T, table *Table, raw []byte) {
	t.Helper()
	for _, obj := range objects(t, raw) {
		key := ""
		if m, ok := obj.(metav1.Object); ok {
			key = m.GetNamespace() + "/" + m.GetName()
		}
		switch o := obj.(type) {
		case *v1.Node:
			if o.Labels == nil {
				o.Labels = map[string]string{}
			}
			o.Labels[v1.LabelHostname] = o.Name
			if o.Status.Allocatable == nil {
				o.Status.Allocatable = v1.ResourceList{}
			}
			for name, q := range map[v1.ResourceName]string{"cpu": "4", "memory": "8Gi", "pods": "10"} {
				if _, ok := o.Status.Allocatable[name]; !ok {
					o.Status.Allocatable[name] = resource.MustParse(q)
				}
			}
			table.SetNode(o)
		case *v1.Pod:
			o = admitted(o)
			node := o.Spec.NodeName
			if node == "" {
				table.Nominate(NewPod(o), o.Status.NominatedNodeName)
				continue
			}
			table.SetPod(NewPod(o), node)
		case *v1.Namespace:
			table.SetNamespace(o.Name, o.Labels)
		case *v1.Service:
			table.SetService("default", o.Name, o.Spec.Selector)
		case *appsv1.ReplicaSet:
			table.SetOwner("ReplicaSet", "default", o.Name, selector(o.Spec.Selector))
		case *v1.PersistentVolume:
			table.Storage.SetVolume(o.Name, o)
		case *v1.PersistentVolumeClaim:
			o.Namespace = "default"
			table.Storage.SetClaim("default/"+o.Name, o)
		case *storagev1.StorageClass:
			table.Storage.SetClass(o.Name, o)
		case *storagev1.CSINode:
			table.Storage.SetNode(o.Name, o)
		case *storagev1.CSIDriver:
			table.Storage.SetDriver(o.Name, o)
		case *storagev1.CSIStorageCapacity:
			table.Storage.SetCapacity(key, o)
		case *policyv1.PodDisruptionBudget:
			table.SetBudget(key, &Budget{Namespace: "default", Pods: selector(o.Spec.Selector), Allowed: o.Status.DisruptionsAllowed})
		case *resourcev1.ResourceClaim:
			o.Namespace, o.UID = "default", types.UID("uid-"+o.Name)
			table.Devices.SetClaim("default/"+o.Name, o)
		case *resourcev1.ResourceSlice:
			table.Devices.SetSlice(o.Name, o)
		case *resourcev1.DeviceClass:
			table.Devices.SetClass(o.Name, o)
		case *resourcev1.DeviceTaintRule:
			table.Devices.SetTaintRule(o.Name, o)
		default:
			t.Fatalf("a cluster of the golden files holds no %T", obj)
		}
	}
}

func outcome(t *testing.T, table *Table, profile *Profile, name string, raw []byte) string {
	t.Helper()
	p, ok := objects(t, raw)[0].(*v1.Pod)
	if !ok {
		t.Fatalf("%s is no pod", name)
	}
	namespace := p.Namespace
	p = admitted(p)
	if namespace != "" {
		p.Namespace = namespace
	}
	p.Name, p.UID = name, types.UID("uid-"+name)
	if reason, message := Gated(p); reason != "" {
		return fmt.Sprintf("%s: %s\n", reason, message)
	}
	e, err := Explain(Snapshot{Table: table, Pod: NewWaiting(p), Profile: profile})
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	b := &strings.Builder{}
	fmt.Fprintln(b, e.Plan)
	for _, n := range e.Nodes {
		if n.Fits {
			fmt.Fprintf(b, "%s: score %d\n", n.Name, n.Score)
		}
		for _, r := range n.Refusals {
			fmt.Fprintf(b, "%s: %s: %s\n", n.Name, r.Plugin, strings.Join(r.Reasons, ", "))
		}
	}
	return b.String()
}
