package garbage

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Standing is what is known of an owner.
type Standing int

// What an owner can be.
const (
	Unknown Standing = iota // nobody looked yet
	Solid                   // there, and staying
	Waiting                 // being deleted once its dependents are
	Gone                    // not there
)

// Snapshot is what a decision about one object is made on.
type Snapshot struct {
	Object     *Node
	Dependents []*Node
	Owners     map[types.UID]Standing
}

// Plan is what is to be done.
type Plan struct {
	Look     []metav1.OwnerReference // owners to be looked for first
	Delete   metav1.DeletionPropagation
	Drop     []types.UID // owner references to take off the object
	Unblock  bool        // the object's owners are not to wait for it, as it waits for one of them
	Unfinish string      // a finalizer to take off the object
	Release  []*Node     // dependents that lose the object as owner
	Poke     []*Node     // dependents that are to be decided about
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	for _, l := range p.Look {
		fmt.Fprintf(&b, "look for %s %s\n", l.Kind, l.Name)
	}
	if p.Unblock {
		b.WriteString("unblock owners\n")
	}
	if p.Delete != "" {
		fmt.Fprintf(&b, "delete %s\n", p.Delete)
	}
	for _, d := range p.Drop {
		fmt.Fprintf(&b, "drop owner %s\n", d)
	}
	for _, n := range p.Release {
		fmt.Fprintf(&b, "release %s\n", n.Name)
	}
	for _, n := range p.Poke {
		fmt.Fprintf(&b, "poke %s\n", n.Name)
	}
	if p.Unfinish != "" {
		fmt.Fprintf(&b, "take off %s\n", p.Unfinish)
	}
	return b.String()
}

// decide says what becomes of an object, given its owners and dependents.
func decide(s Snapshot) Plan {
	o := s.Object
	if o.Deleting {
		switch {
		case o.has(metav1.FinalizerOrphanDependents):
			if len(s.Dependents) > 0 {
				return Plan{Release: s.Dependents}
			}
			return Plan{Unfinish: metav1.FinalizerOrphanDependents}
		case o.has(metav1.FinalizerDeleteDependents):
			return foreground(s)
		}
		return Plan{}
	}
	var p Plan
	var drop []types.UID
	solid, waiting := false, false
	for _, ref := range o.Owners {
		switch s.Owners[ref.UID] {
		case Unknown:
			p.Look = append(p.Look, ref)
		case Solid:
			solid = true
		case Waiting:
			waiting = true
			drop = append(drop, ref.UID)
		case Gone:
			drop = append(drop, ref.UID)
		}
	}
	switch {
	case len(p.Look) > 0 || len(o.Owners) == 0:
	case solid:
		p.Drop = drop
	case waiting && len(s.Dependents) > 0:
		// Its own dependents go before it, as its owner waits for all of them.
		// Where one of them waits for its dependents too, that may be a circle, which would wait for ever.
		p.Unblock = slices.ContainsFunc(s.Dependents, func(d *Node) bool { return d.Deleting && d.has(metav1.FinalizerDeleteDependents) })
		p.Delete = metav1.DeletePropagationForeground
	case o.has(metav1.FinalizerOrphanDependents):
		p.Delete = metav1.DeletePropagationOrphan
	case o.has(metav1.FinalizerDeleteDependents):
		p.Delete = metav1.DeletePropagationForeground
	default:
		p.Delete = metav1.DeletePropagationBackground
	}
	return p
}

// foreground waits for the dependents that block their owner's deletion.
func foreground(s Snapshot) Plan {
	var p Plan
	blocked := false
	for _, d := range s.Dependents {
		if !d.Deleting {
			p.Poke = append(p.Poke, d)
		}
		if slices.ContainsFunc(d.Owners, func(r metav1.OwnerReference) bool {
			return r.UID == s.Object.UID && blocks(r)
		}) {
			blocked = true
		}
	}
	if !blocked {
		p.Unfinish = metav1.FinalizerDeleteDependents
	}
	return p
}

// blocks tells whether an owner is to wait for its dependent.
func blocks(r metav1.OwnerReference) bool {
	return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion
}
