package proxy

import (
	"net/netip"

	"github.com/sextant-k8s/sextant/pkg/proxy/netpol"
)

// enforcement holds the kernel to the cluster's network policies. Pods and namespaces are watched from the first policy on: without any,
// they cost nothing. Only the loop uses it.
type enforcement struct {
	state  *state
	kernel *netpol.Enforcer
	watch  func() // starts the watches of pods and namespaces
	begun  bool
	within [2]netip.Prefix // this node's pods, when last written
}

func newEnforcement(s *state) (*enforcement, error) {
	k, err := netpol.New()
	if err != nil {
		return nil, err
	}
	return &enforcement{state: s, kernel: k}, nil
}

// sync writes what changed; look asks for what others may have removed.
func (e *enforcement) sync(within [2]netip.Prefix, look bool) error {
	if !e.state.whole("networkpolicies") {
		return nil
	}
	s, changed := e.state.takePolicies()
	if len(s.Policies) > 0 && !e.begun {
		e.begun = true
		e.watch()
	}
	if len(s.Policies) > 0 && !e.state.whole("pods", "namespaces") {
		e.state.again()
		return nil
	}
	broken := look && !e.kernel.Check()
	if !changed && !broken && within == e.within {
		return nil
	}
	s.NodePods = within
	if err := e.kernel.Sync(s); err != nil {
		e.state.again()
		return err
	}
	e.within = within
	return nil
}
