package proxy

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"
)

// shape is a Service of the scripts with its slices.
type shape struct {
	*v1.Service
	slices []*discoveryv1.EndpointSlice
}

func (s shape) port(is func(*v1.ServicePort) bool) bool {
	return slices.ContainsFunc(s.Spec.Ports, func(p v1.ServicePort) bool { return is(&p) })
}

func (s shape) protocol(p v1.Protocol) bool {
	return s.port(func(q *v1.ServicePort) bool { return q.Protocol == p || q.Protocol == "" && p == v1.ProtocolTCP })
}

func (s shape) end(is func(*discoveryv1.Endpoint) bool) bool {
	return slices.ContainsFunc(s.slices, func(o *discoveryv1.EndpointSlice) bool {
		return slices.ContainsFunc(o.Endpoints, func(e discoveryv1.Endpoint) bool { return is(&e) })
	})
}

func (s shape) ready(node string) bool {
	return s.end(func(e *discoveryv1.Endpoint) bool {
		return e.NodeName != nil && *e.NodeName == node && (e.Conditions.Ready == nil || *e.Conditions.Ready)
	})
}

func (s shape) leaving(node string) bool {
	return s.end(func(e *discoveryv1.Endpoint) bool {
		return e.NodeName != nil && *e.NodeName == node && e.Conditions.Serving != nil && *e.Conditions.Serving && e.Conditions.Terminating != nil && *e.Conditions.Terminating
	})
}

func (s shape) family(v6 bool) bool {
	return slices.ContainsFunc(append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP), func(ip string) bool { return ip != "" && ip != "None" && strings.Contains(ip, ":") == v6 })
}

func (s shape) inner() bool {
	return s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == v1.ServiceInternalTrafficPolicyLocal
}

func (s shape) outer() bool {
	return s.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal
}

func (s shape) balanced() bool { return len(s.Status.LoadBalancer.Ingress) > 0 }
func (s shape) sticky() bool   { return s.Spec.SessionAffinity == v1.ServiceAffinityClientIP }

// shapes are all that a Service and its endpoints may be, for the kernel.
var shapes = map[string]func(shape) bool{
	"IPv4 alone":                func(s shape) bool { return s.family(false) && !s.family(true) },
	"IPv6 alone":                func(s shape) bool { return s.family(true) && !s.family(false) },
	"both families":             func(s shape) bool { return s.family(true) && s.family(false) },
	"headless":                  func(s shape) bool { return s.Spec.ClusterIP == "None" },
	"a name outside":            func(s shape) bool { return s.Spec.Type == v1.ServiceTypeExternalName },
	"another proxy's":           func(s shape) bool { return s.Labels["service.kubernetes.io/service-proxy-name"] != "" },
	"TCP":                       func(s shape) bool { return s.protocol(v1.ProtocolTCP) },
	"UDP":                       func(s shape) bool { return s.protocol(v1.ProtocolUDP) },
	"SCTP":                      func(s shape) bool { return s.protocol(v1.ProtocolSCTP) },
	"a number in two protocols": func(s shape) bool { return s.protocol(v1.ProtocolTCP) && s.protocol(v1.ProtocolUDP) },
	"several ports":             func(s shape) bool { return len(s.Spec.Ports) > 1 },
	"slices of different ports": func(s shape) bool {
		return len(s.slices) > 1 && *s.slices[0].Ports[0].Port != *s.slices[1].Ports[0].Port
	},
	"no endpoint": func(s shape) bool { return s.Spec.ClusterIP != "None" && len(s.slices) == 0 },
	"no endpoint, node port": func(s shape) bool {
		return len(s.slices) == 0 && s.port(func(p *v1.ServicePort) bool { return p.NodePort > 0 })
	},
	"node port": func(s shape) bool { return s.port(func(p *v1.ServicePort) bool { return p.NodePort > 0 }) },
	"node port over UDP": func(s shape) bool {
		return s.port(func(p *v1.ServicePort) bool { return p.NodePort > 0 && p.Protocol == v1.ProtocolUDP })
	},
	"external address":            func(s shape) bool { return len(s.Spec.ExternalIPs) > 0 },
	"external address, kept here": func(s shape) bool { return len(s.Spec.ExternalIPs) > 0 && s.outer() },
	"balancer":                    shape.balanced,
	"balancer without node port": func(s shape) bool {
		return s.balanced() && !s.port(func(p *v1.ServicePort) bool { return p.NodePort > 0 })
	},
	"balancer that keeps its address": func(s shape) bool {
		return s.balanced() && s.Status.LoadBalancer.Ingress[0].IPMode != nil && *s.Status.LoadBalancer.Ingress[0].IPMode == v1.LoadBalancerIPModeProxy
	},
	"balancer by name": func(s shape) bool {
		return slices.ContainsFunc(s.Status.LoadBalancer.Ingress, func(i v1.LoadBalancerIngress) bool { return i.Hostname != "" })
	},
	"balancer for some sources": func(s shape) bool { return s.balanced() && len(s.Spec.LoadBalancerSourceRanges) > 0 },
	"for some sources, of both families": func(s shape) bool {
		v6 := func(r string) bool { return strings.Contains(r, ":") }
		return slices.ContainsFunc(s.Spec.LoadBalancerSourceRanges, v6) && slices.ContainsFunc(s.Spec.LoadBalancerSourceRanges, func(r string) bool { return !v6(r) })
	},
	"for some sources, no endpoint": func(s shape) bool { return len(s.Spec.LoadBalancerSourceRanges) > 0 && len(s.slices) == 0 },
	"clients stay":                  shape.sticky,
	"clients stay for a while":      func(s shape) bool { return s.sticky() && s.Spec.SessionAffinityConfig != nil },
	"clients stay, by node port": func(s shape) bool {
		return s.sticky() && s.port(func(p *v1.ServicePort) bool { return p.NodePort > 0 })
	},
	"clients stay, kept here":       func(s shape) bool { return s.sticky() && s.outer() },
	"clients stay, over UDP":        func(s shape) bool { return s.sticky() && s.protocol(v1.ProtocolUDP) },
	"clients stay, over IPv6":       func(s shape) bool { return s.sticky() && s.family(true) },
	"inside kept here":              func(s shape) bool { return s.inner() && s.ready("a") },
	"inside kept here, nobody is":   func(s shape) bool { return s.inner() && !s.ready("a") && s.ready("b") },
	"outside kept here":             func(s shape) bool { return s.outer() && s.ready("a") },
	"outside kept here, nobody is":  func(s shape) bool { return s.outer() && !s.ready("a") && !s.leaving("a") && s.ready("b") },
	"outside kept here, one leaves": func(s shape) bool { return s.outer() && !s.ready("a") && s.leaving("a") },
	"both kept here":                func(s shape) bool { return s.outer() && s.inner() },
	"health port":                   func(s shape) bool { return s.Spec.HealthCheckNodePort > 0 },
	"not ready, published":          func(s shape) bool { return s.Spec.PublishNotReadyAddresses },
	"not ready": func(s shape) bool {
		return s.end(func(e *discoveryv1.Endpoint) bool { return e.Conditions.Ready != nil && !*e.Conditions.Ready })
	},
	"leaves, and does not say whether it serves": func(s shape) bool {
		return s.end(func(e *discoveryv1.Endpoint) bool {
			return e.Conditions.Terminating != nil && *e.Conditions.Terminating && e.Conditions.Serving == nil
		})
	},
	"all leave": func(s shape) bool { return s.leaving("a") && !s.ready("a") && !s.ready("b") },
	"hints to zones": func(s shape) bool {
		return s.end(func(e *discoveryv1.Endpoint) bool { return e.Hints != nil && len(e.Hints.ForZones) > 0 })
	},
	"hints to nodes": func(s shape) bool {
		return s.end(func(e *discoveryv1.Endpoint) bool { return e.Hints != nil && len(e.Hints.ForNodes) > 0 })
	},
	"hints, but not all": func(s shape) bool {
		return s.end(func(e *discoveryv1.Endpoint) bool { return e.Hints != nil }) && s.end(func(e *discoveryv1.Endpoint) bool { return e.Hints == nil })
	},
	"one endpoint in two slices": twice,
	"hints to zones, outside kept here": func(s shape) bool {
		return s.outer() && s.end(func(e *discoveryv1.Endpoint) bool { return e.Hints != nil })
	},
}

func twice(s shape) bool {
	seen := map[string]bool{}
	for _, o := range s.slices {
		for _, e := range o.Endpoints {
			if seen[e.Addresses[0]] {
				return true
			}
			seen[e.Addresses[0]] = true
		}
	}
	return false
}

// Every shape is in a script, and so in the goldens of every back end.
func TestCensusOfShapes(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for name := range shapes {
		missing[name] = true
	}
	for _, path := range scripts {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var services []*v1.Service
		of := map[string][]*discoveryv1.EndpointSlice{}
		for _, doc := range strings.Split(string(ar.Files[0].Data), "---\n") {
			if strings.Contains(doc, "kind: Service\n") {
				o := &v1.Service{}
				if err := yaml.Unmarshal([]byte(doc), o); err != nil {
					t.Fatal(err)
				}
				services = append(services, o)
				continue
			}
			o := &discoveryv1.EndpointSlice{}
			if err := yaml.Unmarshal([]byte(doc), o); err != nil {
				t.Fatal(err)
			}
			key := o.Namespace + "/" + o.Labels[discoveryv1.LabelServiceName]
			of[key] = append(of[key], o)
		}
		for _, svc := range services {
			for name, is := range shapes {
				if is(shape{svc, of[svc.Namespace+"/"+svc.Name]}) {
					delete(missing, name)
				}
			}
		}
	}
	for name := range missing {
		t.Errorf("no script has: %s", name)
	}
}
