package suite

import (
	"encoding/json"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/server"
)

// TestServiceTypes leads a service through all its types and both stacks: each has the addresses and ports that it needs, keeps
// those that it had, and lets go of what it has no use for.
func TestServiceTypes(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *server.Config) { c.ServiceClusterIPRange = "10.96.0.0/16,fd00:96::/112" })
	const at = "/api/v1/namespaces/default/services"
	merge := map[string]string{"Content-Type": "application/merge-patch+json"}
	s.Must(t, "POST", at, `{"metadata":{"name":"s"},"spec":{"type":"ExternalName","externalName":"x.example","ports":[{"name":"u","port":53,"protocol":"UDP"},{"name":"t","port":53}]}}`)
	var last corev1.Service
	for _, c := range []struct {
		patch                 string
		ips, nodePorts, stays int // how many; stays is how many of the addresses are those from before
	}{
		{`{"spec":{"type":"ClusterIP","externalName":null,"selector":{"a":"b"}}}`, 1, 0, 0},
		{`{"spec":{"type":"NodePort"}}`, 1, 2, 1},
		{`{"spec":{"ipFamilyPolicy":"PreferDualStack"}}`, 2, 2, 1},
		{`{"spec":{"type":"LoadBalancer","externalTrafficPolicy":"Local"}}`, 2, 2, 2},
		{`{"spec":{"ipFamilyPolicy":"SingleStack"}}`, 1, 2, 1},
		{`{"spec":{"type":"ClusterIP"}}`, 1, 0, 1},
		{`{"spec":{"type":"ExternalName","externalName":"y.example"}}`, 0, 0, 0},
		{`{"spec":{"type":"NodePort","externalName":null,"ipFamilyPolicy":"RequireDualStack","ipFamilies":["IPv6"]}}`, 2, 2, 0},
	} {
		code, _, b := s.Try(t, "PATCH", at+"/s", c.patch, merge)
		if code != http.StatusOK {
			t.Fatalf("%s: %d %s", c.patch, code, b)
		}
		var is corev1.Service
		if err := json.Unmarshal(b, &is); err != nil {
			t.Fatal(err)
		}
		ports := map[int32]bool{}
		for _, p := range is.Spec.Ports {
			if p.NodePort != 0 {
				ports[p.NodePort] = true
			}
		}
		stays := 0
		for i, ip := range is.Spec.ClusterIPs {
			if i < len(last.Spec.ClusterIPs) && last.Spec.ClusterIPs[i] == ip {
				stays++
			}
		}
		if len(is.Spec.ClusterIPs) != c.ips || len(is.Spec.IPFamilies) != c.ips || len(ports) != c.nodePorts || stays != c.stays || (is.Spec.HealthCheckNodePort != 0) != (is.Spec.ExternalTrafficPolicy == "Local") || c.ips > 0 && is.Spec.ClusterIP != is.Spec.ClusterIPs[0] {
			t.Errorf("%s makes %s", c.patch, b)
		}
		last = is
	}
	for body, want := range map[string]int{
		`{"metadata":{"name":"n"},"spec":{"clusterIPs":["None"],"ports":[{"port":1}]}}`:                                                         http.StatusUnprocessableEntity,
		`{"metadata":{"name":"n"},"spec":{"clusterIP":"x","ports":[{"port":1}]}}`:                                                               http.StatusUnprocessableEntity,
		`{"metadata":{"name":"n"},"spec":{"ipFamilies":["IPv4","IPv6"],"ports":[{"port":1}]}}`:                                                  http.StatusUnprocessableEntity,
		`{"metadata":{"name":"both"},"spec":{"type":"NodePort","ports":[{"name":"a","port":1},{"name":"b","port":1,"protocol":"UDP"}]}}`:        http.StatusCreated,
		`{"metadata":{"name":"none"},"spec":{"clusterIP":"None","ipFamilyPolicy":"RequireDualStack","selector":{"a":"b"}}}`:                     http.StatusCreated,
		`{"metadata":{"name":"v6"},"spec":{"clusterIP":"fd00:96::7","ports":[{"port":1}]}}`:                                                     http.StatusCreated,
		`{"metadata":{"name":"lb"},"spec":{"type":"LoadBalancer","allocateLoadBalancerNodePorts":false,"ports":[{"port":1,"nodePort":30009}]}}`: http.StatusCreated,
	} {
		if code, _, b := s.Try(t, "POST", at, body, nil); code != want {
			t.Errorf("%s: %d %s", body, code, b)
		}
	}
}
