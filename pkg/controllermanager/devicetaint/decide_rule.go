package devicetaint

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

const (
	// settling is how long a rule is looked at before anything is said of it: a pod may be on its way to a device whose taint the
	// scheduler had not seen.
	settling = 5 * time.Second
	// recounting is how long a number of pods stands.
	recounting = 10 * time.Second
)

// RuleSnapshot is what a decision about a rule is made on.
type RuleSnapshot struct {
	Rule    *resourcev1.DeviceTaintRule
	Slices  []*resourcev1.ResourceSlice
	Claims  []*resourcev1.ResourceClaim
	Pods    map[types.UID]*corev1.Pod // those that the claims are for
	Evicted int                       // pods that left for this rule since the start
	Now     time.Time
}

// RulePlan is what is to be said of a rule.
type RulePlan struct {
	Condition *metav1.Condition // nil = what it says already
	Again     time.Duration     // until the next look, 0 = none
}

// String is the plan in words.
func (p RulePlan) String() string {
	var b strings.Builder
	if c := p.Condition; c != nil {
		fmt.Fprintf(&b, "%s is %s, of generation %d: %s: %s\n", c.Type, c.Status, c.ObservedGeneration, c.Reason, c.Message)
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "look again in %s\n", p.Again)
	}
	return b.String()
}

// decideRule answers what a rule says of the pods that it drives out, or would.
func decideRule(s RuleSnapshot) RulePlan {
	spec, old := s.Rule.Spec, meta.FindStatusCondition(s.Rule.Status.Conditions, resourcev1.DeviceTaintConditionEvictionInProgress)
	said := old != nil && old.ObservedGeneration == s.Rule.Generation
	if added := spec.Taint.TimeAdded; added != nil && !said {
		if wait := settling - s.Now.Sub(added.Time); wait > 0 {
			return RulePlan{Again: min(wait, settling)}
		}
	}
	next := metav1.Condition{Type: resourcev1.DeviceTaintConditionEvictionInProgress, Status: metav1.ConditionFalse, ObservedGeneration: s.Rule.Generation, Reason: "Effect" + string(spec.Taint.Effect)}
	var words []string
	var again time.Duration
	switch spec.Taint.Effect {
	case resourcev1.DeviceTaintEffectNone:
		if said {
			return RulePlan{} // told once, so that nobody counts for ever
		}
		published, allocated := s.devices()
		pods, namespaces := s.leaving()
		next.Reason = "NoEffect"
		words = append(words, many(published, "published device")+" selected.", many(allocated, "allocated device")+" selected.",
			many(pods, "pod")+" would be evicted in "+inNamespaces(namespaces)+" if the effect was NoExecute.",
			"This information will not be updated again. Recreate the DeviceTaintRule to trigger an update.")
	case resourcev1.DeviceTaintEffectNoExecute:
		again = recounting
		pods, namespaces := s.leaving()
		switch {
		case pods > 0:
			next.Status, next.Reason = metav1.ConditionTrue, "PodsPendingEviction"
			need := " need"
			if pods == 1 {
				need = " needs"
			}
			words = append(words, many(pods, "pod")+need+" to be evicted in "+inNamespaces(namespaces)+".")
		case s.Evicted > 0:
			next.Reason = "Completed"
		default:
			next.Reason = "NotStarted"
		}
	}
	if s.Evicted > 0 && spec.Taint.Effect != resourcev1.DeviceTaintEffectNone {
		words = append(words, many(s.Evicted, "pod")+" evicted since starting the controller.")
	}
	next.Message = strings.Join(words, " ")
	next.LastTransitionTime = metav1.NewTime(s.Now)
	if old != nil {
		if old.Status == next.Status {
			next.LastTransitionTime = old.LastTransitionTime
		}
		if *old == next {
			return RulePlan{Again: again}
		}
	}
	return RulePlan{Condition: &next, Again: again}
}

func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprint(n, " ", what, "s")
}

func inNamespaces(n int) string {
	if n == 1 {
		return "1 namespace"
	}
	return fmt.Sprint(n, " different namespaces")
}

// leaving counts the pods that the rule drives out, now or when they no longer tolerate it, and their namespaces; it does so as if
// the rule's effect were to drive out.
func (s RuleSnapshot) leaving() (pods, namespaces int) {
	taint := s.Rule.Spec.Taint
	taint.Effect = resourcev1.DeviceTaintEffectNoExecute
	in := map[string]bool{}
	for _, p := range s.Pods {
		if !stays(p) && s.drives(taint, p) {
			pods++
			in[p.Namespace] = true
		}
	}
	return pods, len(in)
}

// stays tells whether nobody has to move a pod: it is going, it has ended, or it never began.
func stays(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil || p.Spec.NodeName == "" || runtime.Finished(p)
}

func (s RuleSnapshot) drives(taint resourcev1.DeviceTaint, p *corev1.Pod) bool {
	for _, c := range s.Claims {
		if c.Namespace != p.Namespace || c.Status.Allocation == nil || !reserved(c, p) {
			continue
		}
		for _, r := range c.Status.Allocation.Devices.Results {
			if about(s.Rule, r) {
				if _, out := until(taint, r.Tolerations); out {
					return true
				}
			}
		}
	}
	return false
}

// device names one.
type device struct{ driver, pool, name string }

// devices counts those that the rule is about: what the newest generations of pools publish, and what claims have.
func (s RuleSnapshot) devices() (published, allocated int) {
	newest := map[device]int64{}
	for _, x := range s.Slices {
		pool := device{x.Spec.Driver, x.Spec.Pool.Name, ""}
		newest[pool] = max(newest[pool], x.Spec.Pool.Generation)
	}
	for _, x := range s.Slices {
		if x.Spec.Pool.Generation != newest[device{x.Spec.Driver, x.Spec.Pool.Name, ""}] {
			continue
		}
		for _, d := range x.Spec.Devices {
			if about(s.Rule, resourcev1.DeviceRequestAllocationResult{Driver: x.Spec.Driver, Pool: x.Spec.Pool.Name, Device: d.Name}) {
				published++
			}
		}
	}
	had := map[device]bool{}
	for _, c := range s.Claims {
		if c.Status.Allocation == nil {
			continue
		}
		for _, r := range c.Status.Allocation.Devices.Results {
			if about(s.Rule, r) {
				had[device{r.Driver, r.Pool, r.Device}] = true
			}
		}
	}
	return published, len(had)
}

// blamed answers the rules for which a pod leaves now.
func blamed(s Snapshot, now time.Time) (out []types.UID) {
	for _, x := range s.Rules {
		one := s
		one.Slices, one.Rules = nil, []*resourcev1.DeviceTaintRule{x}
		if at, leaves := decide(one); leaves && !at.After(now) {
			out = append(out, x.UID)
		}
	}
	return out
}
