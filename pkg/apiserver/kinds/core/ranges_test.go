package core

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// TestFamilies asks which IP families services get, as words: clusterIP, families, policy, "selected" if there is a selector.
func TestFamilies(t *testing.T) {
	service := func(words string) *corev1.Service {
		s := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP}}
		for _, w := range strings.Fields(words) {
			switch {
			case w == "selected":
				s.Spec.Selector = map[string]string{"a": "b"}
			case w == "None" || strings.ContainsAny(w, ".:"):
				s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, w)
				s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
			case strings.HasPrefix(w, "IPv"):
				s.Spec.IPFamilies = append(s.Spec.IPFamilies, corev1.IPFamily(w))
			default:
				p := corev1.IPFamilyPolicy(w)
				s.Spec.IPFamilyPolicy = &p
			}
		}
		return s
	}
	both := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/112")}
	for _, c := range []struct {
		cidrs          []netip.Prefix
		old, new, want string
	}{
		{both[:1], "", "selected", "IPv4 SingleStack"},
		{both[:1], "", "selected PreferDualStack", "IPv4 PreferDualStack"},
		{both[:1], "", "selected RequireDualStack", "refused: this cluster is not configured for dual-stack services"},
		{both[:1], "", "selected IPv6", "refused: not configured on this cluster"},
		{both[:1], "", "None selected", "IPv4 SingleStack"},
		{both[:1], "", "None", "IPv4 IPv6 RequireDualStack"},
		{both[:1], "", "None SingleStack IPv6", "IPv6 SingleStack"},
		{both[1:], "", "selected", "IPv6 SingleStack"},
		{both, "", "selected", "IPv4 SingleStack"},
		{both, "", "selected IPv6 PreferDualStack", "IPv6 IPv4 PreferDualStack"},
		{both, "", "selected fd00::5 RequireDualStack", "IPv6 IPv4 RequireDualStack"},
		{both, "", "selected IPv4 IPv6", "refused: must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"},
		{both, "", "selected 10.0.0.1 fd00::5 SingleStack", "refused: must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"},
		{both, "selected 10.0.0.1 fd00::5 IPv4 IPv6 RequireDualStack", "selected 10.0.0.1 fd00::5 IPv4 IPv6 SingleStack", "IPv4 SingleStack"},
		{both, "selected 10.0.0.1 fd00::5 IPv4 IPv6 RequireDualStack", "selected 10.0.0.1 IPv4 IPv6 RequireDualStack", "refused: must be 'SingleStack' to release the secondary cluster IP"},
	} {
		r, s := Ranges{ServiceCIDRs: c.cidrs}, service(c.new)
		var old *corev1.Service
		if c.old != "" {
			old = service(c.old)
		}
		r.prepareService(&kind.Op{}, s, old)
		var got []string
		for _, f := range s.Spec.IPFamilies {
			got = append(got, string(f))
		}
		got = append(got, string(*s.Spec.IPFamilyPolicy))
		if errs := r.unfit(s, old); len(errs) > 0 {
			got = []string{"refused: " + errs[0].Detail}
		}
		if words := strings.Join(got, " "); !strings.HasPrefix(words, c.want) || slices.Contains(got, "") {
			t.Errorf("%q in the place of %q: %s, want %s", c.new, c.old, words, c.want)
		}
	}
}

// TestSharedPort gives ports of one number one node port, in a new service.
func TestSharedPort(t *testing.T) {
	s := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 53, Protocol: "UDP"}, {Port: 80}, {Port: 53, Protocol: "TCP", NodePort: 30053}}}}
	for i, want := range []int32{30053, 0, 30053} {
		if got := sharedPort(s, i); got != want {
			t.Errorf("port %d: %d", i, got)
		}
	}
}
