package endpointslice

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		s := Snapshot{
			Service: golden.Object[corev1.Service](t, files["service.yaml"]), Pods: golden.Objects[corev1.Pod](t, files["pods.yaml"]),
			Slices: golden.Objects[discoveryv1.EndpointSlice](t, files["slices.yaml"]), Zones: map[string]string{"n1": "east"},
		}
		p := decide(s)
		return p.String() + detail(slices.Concat(p.Create, p.Update))
	})
}

func detail(list []*discoveryv1.EndpointSlice) string {
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%s ports %v\n", s.AddressType, plain(s.Ports))
		for _, e := range s.Endpoints {
			fmt.Fprintf(&b, "  %s ready=%t serving=%t terminating=%t node=%s zone=%s\n", e.Addresses[0], *e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating, deref(e.NodeName), deref(e.Zone))
		}
	}
	return b.String()
}

// apply is the apiserver: it names new slices.
func apply(have []*discoveryv1.EndpointSlice, p Plan, made *int) []*discoveryv1.EndpointSlice {
	byName := map[string]*discoveryv1.EndpointSlice{}
	for _, s := range have {
		byName[s.Name] = s
	}
	for _, s := range p.Create {
		*made++
		s.Name = fmt.Sprintf("%s%04d", s.GenerateName, *made)
		byName[s.Name] = s
	}
	for _, s := range p.Update {
		byName[s.Name] = s
	}
	for _, s := range p.Delete {
		delete(byName, s.Name)
	}
	out := make([]*discoveryv1.EndpointSlice, 0, len(byName))
	for _, s := range byName {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// TestSlicesHoldThePods: after any changes of pods the slices hold each address once, none more than its bound, and a
// second look changes nothing.
func TestSlicesHoldThePods(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		svc := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
			Spec:       corev1.ServiceSpec{IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(80), Protocol: corev1.ProtocolTCP}}},
		}
		var have []*discoveryv1.EndpointSlice
		made := 0
		for range 5 {
			s := Snapshot{Service: svc, Slices: have}
			from := rapid.IntRange(0, 200).Draw(t, "from")
			want := map[string]bool{}
			for i := range rapid.IntRange(0, 350).Draw(t, "pods") {
				ip := fmt.Sprintf("10.0.%d.%d", (from+i)/250, (from+i)%250)
				want[ip] = true
				s.Pods = append(s.Pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: ip, UID: types.UID(ip)}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: ip}}}})
			}
			have = apply(have, decide(s), &made)
			got := map[string]bool{}
			for _, slice := range have {
				if len(slice.Endpoints) > perSlice {
					t.Fatalf("%s holds %d", slice.Name, len(slice.Endpoints))
				}
				for _, e := range slice.Endpoints {
					if got[e.Addresses[0]] || !want[e.Addresses[0]] {
						t.Fatalf("%s is held twice, or for no pod", e.Addresses[0])
					}
					got[e.Addresses[0]] = true
				}
			}
			if len(got) != len(want) {
				t.Fatalf("%d of %d pods are held", len(got), len(want))
			}
			if len(have) == 0 {
				t.Fatal("no slice is left")
			}
			s.Slices = have
			if again := decide(s).String(); again != "" {
				t.Fatalf("once is not enough: %s", again)
			}
		}
	})
}
