package core

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// The labels by which a node says what it is for.
const (
	roleLabel       = "node-role.kubernetes.io/"
	legacyRoleLabel = "kubernetes.io/role"
)

var proxyMethods = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}

// Node is the row of nodes; proxy serves its kubelet's port.
func Node(proxy kind.ConnectFunc) *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Node", Resource: "nodes", ShortNames: []string{"no"}, Prefix: "minions", StatusOnCreate: true,
		Check:      kind.Valid(validate.Node, validate.NodeUpdate),
		FieldNames: []string{"spec.unschedulable"},
		Fields: kind.Of(func(n *corev1.Node) map[string]string {
			return map[string]string{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
		}),
		Columns: kind.Columns("Name Status Roles Age Version Internal-IP* External-IP* OS-Image* Kernel-Version* Container-Runtime*"),
		Row:     kind.Of(nodeRow),
		Subs: []kind.Sub{
			kind.Status,
			{Name: "proxy", Connect: &kind.Connect{Methods: proxyMethods, OptionsKind: "NodeProxyOptions", Serve: proxy, Path: true}},
		},
	}, kind.In[corev1.Node, corev1.NodeList](corev1.SchemeGroupVersion, func(n *corev1.Node) {
		if n.Status.Allocatable == nil && n.Status.Capacity != nil {
			n.Status.Allocatable = n.Status.Capacity.DeepCopy()
		}
		// The one range and the first of many are the same; the one wins.
		switch s := &n.Spec; {
		case s.PodCIDR == "" && len(s.PodCIDRs) > 0:
			s.PodCIDR = s.PodCIDRs[0]
		case s.PodCIDR != "" && (len(s.PodCIDRs) == 0 || s.PodCIDRs[0] != s.PodCIDR):
			s.PodCIDRs = []string{s.PodCIDR}
		}
	}))
}

func nodeRow(n *corev1.Node) []any {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			status = "NotReady"
			if c.Status == corev1.ConditionTrue {
				status = "Ready"
			}
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	var roles []string
	for k, v := range n.Labels {
		if r, ok := strings.CutPrefix(k, roleLabel); ok && r != "" {
			roles = append(roles, r)
		} else if k == legacyRoleLabel && v != "" {
			roles = append(roles, v)
		}
	}
	slices.Sort(roles)
	i := n.Status.NodeInfo
	return []any{
		n.Name, status, kind.None(strings.Join(slices.Compact(roles), ",")), kind.Age(n.CreationTimestamp), i.KubeletVersion,
		kind.None(address(n, corev1.NodeInternalIP)), kind.None(address(n, corev1.NodeExternalIP)),
		orUnknown(i.OSImage), orUnknown(i.KernelVersion), orUnknown(i.ContainerRuntimeVersion),
	}
}

func address(n *corev1.Node, t corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == t {
			return a.Address
		}
	}
	return ""
}

func orUnknown(s string) string {
	if s == "" {
		return "<unknown>"
	}
	return s
}
