package rules

import "k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

// volumeBinding holds a pod to the nodes that reach the volumes its claims are bound to.
var volumeBinding = filter{name: "VolumeBinding", helps: NodeAdded | NodeChanged | VolumeChanged,
	prepare: func(c *cycle) Verdict {
		for _, claim := range c.Claims {
			if claim.Problem != "" {
				return Verdict{Reasons: []string{claim.Problem}, Final: true}
			}
		}
		return Verdict{}
	},
	check: func(c *cycle, n *Node) Verdict {
		for _, claim := range c.Claims {
			if claim.Where == nil {
				continue
			}
			terms, err := nodeaffinity.NewNodeSelector(claim.Where)
			if err != nil || !terms.Match(n.Node) {
				return Verdict{Reasons: []string{"node(s) didn't match PersistentVolume's node affinity"}, Final: true}
			}
		}
		return Verdict{}
	}}
