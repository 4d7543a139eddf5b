package rules

import (
	"fmt"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// Nodes hold so many like devices each, and pods ask for some: a pod goes only where as many are free, the claim is given devices of that
// node which nobody holds, and it waits only when no node has as many. Claims come and go.
func TestDevicesAgainstCounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, profile := fleet(0), DefaultProfile(v1.DefaultSchedulerName)
		class := &resourcev1.DeviceClass{}
		class.Name = "gpu"
		table.Devices.SetClass("gpu", class)
		has := map[string]int{}
		for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
			n := &v1.Node{}
			n.Name = fmt.Sprint("n", i)
			n.Status.Allocatable = v1.ResourceList{"pods": *bytes(100), "cpu": *bytes(100), "memory": *bytes(1 << 40)}
			table.SetNode(n)
			if has[n.Name] = rapid.IntRange(0, 3).Draw(t, "devices"); has[n.Name] > 0 {
				s := &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{Driver: "gpu.x.io", NodeName: &n.Name,
					Pool: resourcev1.ResourcePool{Name: n.Name, ResourceSliceCount: 1}}}
				s.Name = n.Name
				for j := range has[n.Name] {
					s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: fmt.Sprint("d", j)})
				}
				table.Devices.SetSlice(n.Name, s)
			}
		}
		type holder struct {
			pod     *Pod
			claim   *resourcev1.ResourceClaim
			devices []string
		}
		held := map[string]bool{} // by node/device
		var holders []holder
		for step := range rapid.IntRange(1, 10).Draw(t, "steps") {
			if len(holders) > 0 && rapid.IntRange(0, 3).Draw(t, "one goes") == 0 {
				i := rapid.IntRange(0, len(holders)-1).Draw(t, "who")
				h := holders[i]
				table.DeletePod(h.pod.Key)
				table.Devices.SetClaim("default/"+h.claim.Name, nil)
				for _, d := range h.devices {
					delete(held, d)
				}
				holders = slices.Delete(holders, i, i+1)
				continue
			}
			want := rapid.IntRange(1, 3).Draw(t, "wanted")
			claim := &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
				{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: int64(want)}}}}}}
			claim.Namespace, claim.Name = "default", fmt.Sprint("claim", step)
			claim.UID = types.UID(claim.Name)
			table.Devices.SetClaim("default/"+claim.Name, claim)
			p := NewPod(replica(step, "x", func(p *v1.Pod) {
				p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "c", ResourceClaimName: &claim.Name}}
			}))
			plan, err := Decide(Snapshot{Table: table, Pod: p, Profile: profile})
			if err != nil {
				t.Fatal(err)
			}
			free := func(node string) int {
				n := has[node]
				for j := range has[node] {
					if held[fmt.Sprintf("%s/d%d", node, j)] {
						n--
					}
				}
				return n
			}
			possible := false
			for node := range has {
				possible = possible || free(node) >= want
			}
			if plan.Node == "" {
				if possible {
					t.Fatalf("%s; and yet a node has %d free devices", plan, want)
				}
				continue
			}
			if free(plan.Node) < want || len(plan.Claims) != 1 || len(plan.Claims[0].Allocation.Devices.Results) != want {
				t.Fatalf("%s with %v: %d devices wanted, %d free there", plan, plan.Claims, want, free(plan.Node))
			}
			h := holder{pod: p, claim: claim}
			for _, r := range plan.Claims[0].Allocation.Devices.Results {
				name := r.Pool + "/" + r.Device
				if held[name] || r.Pool != plan.Node {
					t.Fatalf("%s: device %s is another's, or another node's", plan, name)
				}
				held[name] = true
				h.devices = append(h.devices, name)
			}
			table.SetPod(p, plan.Node)
			table.Devices.Reserve(plan.Claims)
			if rapid.Bool().Draw(t, "written") { // and seen so
				claim = claim.DeepCopy()
				claim.Status.Allocation = plan.Claims[0].Allocation
				claim.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{Reservation(p.Name(), p.UID)}
				table.Devices.SetClaim("default/"+claim.Name, claim)
				h.claim = claim
			}
			holders = append(holders, h)
		}
	})
}
