package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// Service is the row of services; r is where addresses and ports come from.
func Service(r Ranges, proxy kind.ConnectFunc) *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Service", Resource: "services", ShortNames: []string{"svc"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "services/specs", ReturnDeleted: true,
		Prepare:    kind.On(r.prepareService),
		Begin:      r.reserve,
		Check:      kind.Valid(validate.Service, validate.ServiceUpdate),
		FieldNames: []string{"spec.clusterIP", "spec.type"},
		Fields: kind.Of(func(s *corev1.Service) map[string]string {
			return map[string]string{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		}),
		Columns: kind.Columns("Name Type Cluster-IP External-IP Port(s) Age Selector*"),
		Row:     kind.Of(serviceRow),
		Subs: []kind.Sub{
			{Name: "proxy", Connect: &kind.Connect{Methods: proxyMethods, OptionsKind: "ServiceProxyOptions", Serve: proxy, Path: true}},
			kind.Status,
		},
	}, kind.In[corev1.Service, corev1.ServiceList](corev1.SchemeGroupVersion, defaults.Service))
}

func serviceRow(s *corev1.Service) []any {
	ports := make([]string, len(s.Spec.Ports))
	for i, p := range s.Spec.Ports {
		ports[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.NodePort > 0 {
			ports[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		}
	}
	return []any{
		s.Name, string(s.Spec.Type), kind.None(s.Spec.ClusterIP), externalIP(s), kind.None(strings.Join(ports, ",")),
		kind.Age(s.CreationTimestamp), labels.FormatLabels(s.Spec.Selector),
	}
}

// externalIP is how a service is reached from outside, as a table shows it.
func externalIP(s *corev1.Service) string {
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		var ips []string
		for _, i := range s.Status.LoadBalancer.Ingress {
			if i.IP != "" {
				ips = append(ips, i.IP)
			} else if i.Hostname != "" {
				ips = append(ips, i.Hostname)
			}
		}
		ips = append(ips, s.Spec.ExternalIPs...)
		if len(ips) == 0 {
			return "<pending>"
		}
		return strings.Join(ips, ",")
	}
	return kind.None(strings.Join(s.Spec.ExternalIPs, ","))
}
