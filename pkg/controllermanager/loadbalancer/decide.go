package loadbalancer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// Class is the class of services that this controller serves; without a cloud it serves those of no class too.
	Class = "sextant.dev/address-pool"
	// Condition says of a service whether it has its addresses.
	Condition = "sextant.dev/LoadBalancerAddress"
)

// Snapshot is what a decision about a service is made on.
type Snapshot struct {
	Service *corev1.Service
	Pool    Pool
	Taken   func(netip.Addr) bool // by other services
	NoClass bool                  // services of no class are ours too
	Now     time.Time
}

// Plan is what a service is to have.
type Plan struct {
	Holds  []netip.Addr // addresses that are its own from now on
	Status *corev1.ServiceStatus
	Tell   []Event
	Lacks  bool // it waits for an address
}

// Event is what users are told.
type Event struct{ Type, Reason, Message string }

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "holds %v\n", p.Holds)
	if p.Status != nil {
		b.WriteString("status")
		for _, i := range p.Status.LoadBalancer.Ingress {
			fmt.Fprintf(&b, " %s", i.IP)
		}
		for _, c := range p.Status.Conditions {
			fmt.Fprintf(&b, ", %s %s %s", c.Type, c.Status, c.Reason)
		}
		b.WriteString("\n")
	}
	for _, e := range p.Tell {
		fmt.Fprintf(&b, "tell %s %s: %s\n", e.Type, e.Reason, e.Message)
	}
	return b.String()
}

// ours tells whether a service wants its addresses from the pool.
func ours(s *corev1.Service, noClass bool) bool {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.DeletionTimestamp != nil {
		return false
	}
	if c := s.Spec.LoadBalancerClass; c != nil {
		return *c == Class
	}
	return noClass
}

// decide gives a service an address of each of its families: what it has, if that is of the pool and nobody else's; else
// the one that it asks for; else the first that is free.
func decide(s Snapshot) Plan {
	var p Plan
	svc := s.Service
	if !ours(svc, s.NoClass) {
		p.giveBack(svc)
		return p
	}
	usable := func(text string, four bool) (netip.Addr, bool) {
		a, err := netip.ParseAddr(text)
		return a, err == nil && a.Is4() == four && s.Pool.has(a) && !s.Taken(a)
	}
	fault := ""
	for _, f := range svc.Spec.IPFamilies {
		four := f == corev1.IPv4Protocol
		if !slices.ContainsFunc(s.Pool, func(x span) bool { return x.first.Is4() == four }) && svc.Spec.IPFamilyPolicy != nil && *svc.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyPreferDualStack {
			continue
		}
		asked, ok := usable(svc.Spec.LoadBalancerIP, four)
		if a, err := netip.ParseAddr(svc.Spec.LoadBalancerIP); err == nil && a.Is4() == four && !ok {
			fault = fmt.Sprintf("the address %s that it asks for is not free, or not of the pool", a)
			continue
		}
		for _, i := range svc.Status.LoadBalancer.Ingress {
			if a, had := usable(i.IP, four); had && !ok {
				asked, ok = a, true
			}
		}
		if !ok {
			asked, ok = s.Pool.free(four, s.Taken)
		}
		if !ok {
			fault = fmt.Sprintf("no %s address of the pool is free", f)
			continue
		}
		p.Holds = append(p.Holds, asked)
	}
	if fault == "" && len(p.Holds) == 0 {
		fault = "the pool has no address of its families"
	}
	p.Lacks = fault != ""
	p.report(s, fault)
	return p
}

// giveBack takes what we wrote off a service that is not ours any more.
func (p *Plan) giveBack(svc *corev1.Service) {
	if meta.FindStatusCondition(svc.Status.Conditions, Condition) == nil || svc.DeletionTimestamp != nil {
		return
	}
	next := svc.Status.DeepCopy()
	meta.RemoveStatusCondition(&next.Conditions, Condition)
	next.LoadBalancer = corev1.LoadBalancerStatus{}
	p.Status = next
}

// report writes addresses and condition, and tells of them if that changes anything.
func (p *Plan) report(s Snapshot, fault string) {
	next := s.Service.Status.DeepCopy()
	was := next.LoadBalancer.Ingress
	next.LoadBalancer.Ingress = nil
	for _, a := range p.Holds {
		i := corev1.LoadBalancerIngress{IP: a.String(), IPMode: new(corev1.LoadBalancerIPModeVIP)}
		for _, w := range was {
			if w.IP == i.IP {
				i = w // with what others wrote of it
			}
		}
		next.LoadBalancer.Ingress = append(next.LoadBalancer.Ingress, i)
	}
	c := metav1.Condition{
		Type: Condition, Status: metav1.ConditionTrue, Reason: "Assigned", Message: "The service has its addresses",
		LastTransitionTime: metav1.NewTime(s.Now.Truncate(time.Second)),
	}
	if fault != "" {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, "PoolExhausted", fault
	}
	before := meta.FindStatusCondition(s.Service.Status.Conditions, Condition)
	meta.SetStatusCondition(&next.Conditions, c)
	if equality.Semantic.DeepEqual(*next, s.Service.Status) {
		return
	}
	p.Status = next
	slices.SortFunc(p.Status.Conditions, func(a, b metav1.Condition) int { return cmp.Compare(a.Type, b.Type) })
	switch {
	case fault != "" && (before == nil || before.Message != fault):
		p.Tell = append(p.Tell, Event{corev1.EventTypeWarning, "SyncLoadBalancerFailed", "Error syncing load balancer: failed to ensure load balancer: " + fault})
	case fault == "":
		p.Tell = append(p.Tell, Event{corev1.EventTypeNormal, "EnsuredLoadBalancer", "Ensured load balancer"})
	}
}
