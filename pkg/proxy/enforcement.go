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
	whole  bool            // what was last seen is written
}

func newEnforcement(s *state) (*enforcement, error) {
	k, err := netpol.New(s.node)
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
	if e.state.policed() {
		if !e.begun {
			e.begun = true
			e.watch()
		}
		if !e.state.whole("pods", "namespaces") {
			return nil
		}
	}
	c := e.state.takePolicies()
	if look && !e.kernel.Check() {
		e.whole = false
	}
	if e.whole && within == e.within && len(c.Policies)+len(c.Pods)+len(c.Namespaces) == 0 {
		return nil
	}
	err := e.kernel.Sync(c, within)
	e.whole, e.within = err == nil, within
	return err
}
