// Package topology gives a pod's resources from NUMA nodes that lie together.
//
// Flow: Manager.Admit asks every Provider (CPUs, memory, devices) from which nodes it could serve -> decide merges the
// answers by the policy -> every Provider allocates from the nodes decided, container by container, or the pod is refused.
// Machine and its CPUs are read from /sys once. Admit is not for concurrent use: its caller serializes it, since
// what one pod takes the next may not.
package topology

import (
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
)

// Provider hands out one kind of resource.
type Provider interface {
	// Hints are the ways to serve a container; PodHints those to serve all containers of a pod from the same nodes.
	Hints(pod *v1.Pod, c *v1.Container) Hints
	PodHints(pod *v1.Pod) Hints
	// Allocate gives a container what it asks for, once.
	Allocate(pod *v1.Pod, c *v1.Container, from Hint) error
}

// Refusal is an error which tells the reason pods are refused for.
type Refusal struct{ Reason, Message string }

func (r *Refusal) Error() string { return r.Message }

// refused is what a pod gets whose resources do not lie together.
var refused = &Refusal{Reason: "TopologyAffinityError", Message: "Resources cannot be allocated with Topology locality"}

// Manager decides for one machine.
type Manager struct {
	Policy  string
	PerPod  bool
	Options Options
	Machine Machine
	// Providers allocate in this order.
	Providers []Provider
}

// New checks the policy, its scope and options. Names are those of KubeletConfiguration.
func New(policy, scope string, options map[string]string, m Machine, providers ...Provider) (*Manager, error) {
	t := &Manager{Policy: policy, Machine: m, Providers: providers, Options: Options{MaxNodes: 8}}
	switch policy {
	case "":
		t.Policy = None
	case None, BestEffort, Restricted, SingleNode:
	default:
		return nil, fmt.Errorf("topologyManagerPolicy %q: want none, best-effort, restricted or single-numa-node", policy)
	}
	switch scope {
	case "", "container":
	case "pod":
		t.PerPod = true
	default:
		return nil, fmt.Errorf("topologyManagerScope %q: want container or pod", scope)
	}
	for name, value := range options {
		var err error
		switch name {
		case "prefer-closest-numa-nodes":
			t.Options.Closest, err = yes(value)
		case "max-allowable-numa-nodes":
			if _, err = fmt.Sscan(value, &t.Options.MaxNodes); err == nil && t.Options.MaxNodes < 8 {
				err = errors.New("the minimum value is 8")
			}
		default:
			err = errors.New("no such option")
		}
		if err != nil {
			return nil, fmt.Errorf("topologyManagerPolicyOptions %s=%s: %w", name, value, err)
		}
	}
	if t.Policy != None && len(m.Nodes) > t.Options.MaxNodes {
		return nil, fmt.Errorf("unsupported on machines with more than %d NUMA Nodes: set topologyManagerPolicy none, or the option max-allowable-numa-nodes", t.Options.MaxNodes)
	}
	return t, nil
}

func yes(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("want true or false")
}

// Admit allocates for every container of a pod; on an error some may have been served, and must be released.
func (t *Manager) Admit(pod *v1.Pod) error {
	whole := Hint{}
	if t.PerPod && t.Policy != None {
		var offers []Hints
		for _, p := range t.Providers {
			offers = append(offers, p.PodHints(pod))
		}
		h, ok := decide(t.Policy, t.Machine, t.Options, offers)
		if !ok {
			return refused
		}
		whole = h
	}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			h := whole
			if !t.PerPod && t.Policy != None {
				var offers []Hints
				for _, p := range t.Providers {
					offers = append(offers, p.Hints(pod, &list[i]))
				}
				ok := false
				if h, ok = decide(t.Policy, t.Machine, t.Options, offers); !ok {
					return refused
				}
			}
			for _, p := range t.Providers {
				if err := p.Allocate(pod, &list[i], h); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
