package servicecidr

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	finalizer = "networking.k8s.io/service-cidr-finalizer"
	// grace is how long a range that is being deleted stays although no address is of it: apiservers that have not heard
	// yet may be giving one away.
	grace = 10 * time.Second
)

// Snapshot is what a decision about a range is made on.
type Snapshot struct {
	Range     *networkingv1.ServiceCIDR
	Others    []*networkingv1.ServiceCIDR
	Addresses []netip.Addr // all that services have
	Now       time.Time
}

// Plan is what is to be written, and when to look again.
type Plan struct {
	Finalizers []string // nil = as they are
	Ready      *metav1.Condition
	Again      time.Duration
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	if p.Finalizers != nil {
		fmt.Fprintf(&b, "finalizers %v\n", p.Finalizers)
	}
	if c := p.Ready; c != nil {
		fmt.Fprintf(&b, "%s %s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %s\n", p.Again)
	}
	return b.String()
}

// decide keeps a range until it can go: when others hold every address that is of it, or none is.
func decide(s Snapshot) Plan {
	var p Plan
	r := s.Range
	has := slices.Contains(r.Finalizers, finalizer)
	switch {
	case r.DeletionTimestamp == nil:
		if !has {
			p.Finalizers = append(slices.Clone(r.Finalizers), finalizer)
		}
		p.is(r, metav1.ConditionTrue, "", "Kubernetes Service CIDR is ready", s.Now)
	case !has: // somebody else holds it
	case needed(s):
		p.is(r, metav1.ConditionFalse, networkingv1.ServiceCIDRReasonTerminating, "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR", s.Now)
	default:
		if left := grace - s.Now.Sub(r.DeletionTimestamp.Time); left > 0 && !covered(s) {
			p.Again = left
			return p
		}
		p.Finalizers = slices.DeleteFunc(append([]string{}, r.Finalizers...), func(f string) bool { return f == finalizer })
	}
	return p
}

func (p *Plan) is(r *networkingv1.ServiceCIDR, status metav1.ConditionStatus, reason, message string, now time.Time) {
	if c := meta.FindStatusCondition(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady); c != nil && c.Status == status {
		return
	}
	p.Ready = &metav1.Condition{
		Type: networkingv1.ServiceCIDRConditionReady, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	}
}

// needed tells whether there is an address of the range that no other range holds.
func needed(s Snapshot) bool {
	mine, others := prefixes(s.Range), standing(s)
	return slices.ContainsFunc(s.Addresses, func(a netip.Addr) bool { return holds(mine, a) && !holds(others, a) })
}

// covered tells whether every part of the range lies in another.
func covered(s Snapshot) bool {
	others := standing(s)
	for _, p := range prefixes(s.Range) {
		if !slices.ContainsFunc(others, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) }) {
			return false
		}
	}
	return true
}

// standing are the other ranges that nobody deletes.
func standing(s Snapshot) (out []netip.Prefix) {
	for _, o := range s.Others {
		if o.DeletionTimestamp == nil && o.Name != s.Range.Name {
			out = append(out, prefixes(o)...)
		}
	}
	return out
}

func holds(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// prefixes reads a range; the apiserver lets nothing else in.
func prefixes(r *networkingv1.ServiceCIDR) (out []netip.Prefix) {
	for _, text := range r.Spec.CIDRs {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}
