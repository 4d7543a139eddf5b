package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	configv1 "k8s.io/kube-scheduler/config/v1"
)

// Whichever plugin is off, at all points or at one, decisions are made without it: it refuses nobody, and what the others would have had
// of it is missed by none.
func TestWithoutAPlugin(t *testing.T) {
	for _, plugin := range Plugins() {
		if plugin == prioritySort || plugin == defaultBinder {
			continue // the only ones for what they do; a profile without them is refused
		}
		for _, at := range append([]Point{""}, plugin.Points...) {
			t.Run(plugin.Name+string(at), func(t *testing.T) {
				off := configv1.PluginSet{Disabled: []configv1.Plugin{{Name: plugin.Name}}}
				plugins := &configv1.Plugins{}
				for point, set := range map[Point]*configv1.PluginSet{"": &plugins.MultiPoint, PreEnqueue: &plugins.PreEnqueue, PreFilter: &plugins.PreFilter,
					Filter: &plugins.Filter, PostFilter: &plugins.PostFilter, PreScore: &plugins.PreScore, Score: &plugins.Score, Reserve: &plugins.Reserve,
					Permit: &plugins.Permit, PreBind: &plugins.PreBind} {
					if point == at {
						*set = off
					}
				}
				profile, err := NewProfile(&configv1.KubeSchedulerProfile{Plugins: plugins})
				if err != nil {
					t.Fatal(err)
				}
				crowd(t, profile, func(plan Plan) {
					if (at == "" || at == Filter && !slices.Contains(plugin.Points, PreFilter)) && slices.Contains(plan.Rejectors, plugin.Name) {
						t.Errorf("it refused: %s", plan)
					}
					if len(plan.Victims) > 0 && plugin == defaultPreemption && (at == "" || at == PostFilter) {
						t.Errorf("it evicts: %s", plan)
					}
					if len(plan.Volumes) > 0 && plugin == volumeBinding && (at == "" || at == Filter || at == Reserve || at == PreBind) {
						t.Errorf("it binds volumes: %s", plan)
					}
				})
			})
		}
	}
}

// crowd has pods of all kinds decided on a small full cluster.
func crowd(t *testing.T, profile *Profile, see func(Plan)) {
	random := rand.New(rand.NewPCG(11, 1))
	table := motley(random, 40)
	claim := &v1.PersistentVolumeClaim{}
	claim.Namespace, claim.Name = "default", "data"
	claim.Spec.StorageClassName = new(string)
	table.Storage.SetClaim("default/data", claim)
	for i := range 60 {
		p := NewPod(replica(90000+i, fmt.Sprint("app", i%4), func(p *v1.Pod) {
			p.Spec.Priority = new(int32(i % 5))
			p.Spec.Containers[0].Resources.Requests["cpu"] = *resource.NewMilliQuantity(100+random.Int64N(1900), resource.DecimalSI)
			if shape := shapes[i%len(shapes)].shape; shape != nil {
				shape(p)
			}
			switch i % 7 {
			case 0:
				p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
			case 1:
				p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "missing"}}}}
			case 2:
				p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu", ResourceClaimName: new("missing")}}
			case 3:
				p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80}}
			case 4:
				p.Spec.NodeSelector = map[string]string{v1.LabelTopologyZone: "zone-9"}
			}
		}))
		for range 2 {
			plan, err := Decide(Snapshot{Table: table, Pod: p, Profile: profile})
			if err != nil {
				t.Fatal(err)
			}
			see(plan)
			if plan.Node == "" {
				for _, kind := range []Kind{NodeAdded, NodeChanged, PodGone, PodPlaced, StorageChanged} {
					table.Helps(p, profile, plan.Rejectors, Event{Kind: kind, Node: "node-00007", Pod: p})
				}
				if plan.Nominated != "" {
					table.Nominate(p, plan.Nominated)
					for _, v := range plan.Victims {
						table.DeletePod(v.Key)
					}
				}
				continue
			}
			table.SetPod(p, plan.Node)
			break
		}
	}
}
