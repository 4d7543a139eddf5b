package loadbalancer

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide serves services one after another, each with what those before it hold.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		pool, err := ParsePool(strings.Fields(files["pool"]))
		if err != nil {
			return err.Error() + "\n"
		}
		held := map[netip.Addr]bool{}
		for a := range strings.FieldsSeq(files["taken"]) {
			held[netip.MustParseAddr(a)] = true
		}
		var b strings.Builder
		for _, s := range golden.Objects[corev1.Service](t, files["services.yaml"]) {
			p := decide(Snapshot{Service: s, Pool: pool, NoClass: files["cloud"] == "", Now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), Taken: func(a netip.Addr) bool { return held[a] }})
			for _, a := range p.Holds {
				held[a] = true
			}
			b.WriteString(s.Name + "\n" + p.String())
		}
		return b.String()
	})
}

// TestNobodyShares serves random services over and over: no address is of two, all are of the pool, and who has one keeps it.
func TestNobodyShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool, err := ParsePool([]string{"192.0.2.0/30", "2001:db8::1-2001:db8::3"})
		if err != nil {
			t.Fatal(err)
		}
		held := map[netip.Addr]int{}
		list := make([]*corev1.Service, 6)
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) {},
			"serve": func(t *rapid.T) {
				i := rapid.IntRange(0, len(list)-1).Draw(t, "service")
				if list[i] == nil {
					list[i] = &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}}}
				}
				p := decide(Snapshot{Service: list[i], Pool: pool, NoClass: true, Taken: func(a netip.Addr) bool { by, ok := held[a]; return ok && by != i }})
				for _, a := range p.Holds {
					if by, ok := held[a]; ok && by != i || !pool.has(a) {
						t.Fatalf("%s is given to %d", a, i)
					}
					held[a] = i
				}
				for _, in := range list[i].Status.LoadBalancer.Ingress {
					if by, ok := held[netip.MustParseAddr(in.IP)]; ok && by == i && !strings.Contains(p.String(), in.IP) {
						t.Fatalf("%s is taken from %d", in.IP, i)
					}
				}
				if p.Status != nil {
					list[i].Status = *p.Status
				}
			},
			"end": func(t *rapid.T) {
				i := rapid.IntRange(0, len(list)-1).Draw(t, "service")
				list[i] = nil
				for a, by := range held {
					if by == i {
						delete(held, a)
					}
				}
			},
		})
	})
}
