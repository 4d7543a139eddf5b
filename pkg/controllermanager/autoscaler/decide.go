package autoscaler

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Config is how eager the autoscaler is, where an object does not say so itself.
type Config struct {
	Period    time.Duration // between two looks
	Window    time.Duration // in which the highest recommendation counts before it scales down
	Tolerance float64       // how far from its target a metric may be
	CPUStart  time.Duration // how long the CPU use of a pod that starts is not believed
	Delay     time.Duration // how long a pod that starts may be not ready without ever having been
}

// Proposal is what one metric asks for.
type Proposal struct {
	Replicas int32
	Name     string // in words: "cpu resource utilization (percentage of request)"
	Status   autoscalingv2.MetricStatus
	Reason   string // of the condition and event, when it failed: "FailedGetResourceMetric"
	What     string // could not be had then: "cpu resource metric value"
	Err      error
}

// Memory is what is remembered of one object between looks.
type Memory struct {
	Recommended []Past // what metrics asked for
	Scaled      []Past // by how many it was scaled, down is negative
}

// Past is a number at a time.
type Past struct {
	At time.Time
	N  int32
}

// Snapshot is what a decision is made on.
type Snapshot struct {
	HPA       *autoscalingv2.HorizontalPodAutoscaler
	Current   int32 // spec.replicas of the target
	Proposals []Proposal
	Memory    Memory
	Now       time.Time
	Config
}

// Plan is what is to be done.
type Plan struct {
	Scale  int32  // how many there are to be; -1 if it cannot be said
	Reason string // why it changes
	Status *autoscalingv2.HorizontalPodAutoscalerStatus
	Memory Memory
	Err    error   // why metrics said nothing
	Tell   []Event // of each metric that failed
}

// Event is a warning to users.
type Event struct{ Reason, Message string }

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "scale to %d", p.Scale)
	if p.Reason != "" {
		fmt.Fprintf(&b, ": %s", p.Reason)
	}
	b.WriteString("\n")
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status %d of %d\n", s.CurrentReplicas, s.DesiredReplicas)
		for _, c := range s.Conditions {
			fmt.Fprintf(&b, "  %s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	for _, e := range p.Tell {
		fmt.Fprintf(&b, "tell %s: %s\n", e.Reason, e.Message)
	}
	if p.Err != nil {
		fmt.Fprintf(&b, "error %v\n", p.Err)
	}
	return b.String()
}

// turn is a decision being made.
type turn struct {
	Snapshot
	plan     Plan
	status   *autoscalingv2.HorizontalPodAutoscalerStatus
	min, max int32
}

// decide says how many replicas there are to be.
func decide(s Snapshot) Plan {
	t := &turn{Snapshot: s, status: s.HPA.Status.DeepCopy(), min: 1, max: s.HPA.Spec.MaxReplicas}
	if m := s.HPA.Spec.MinReplicas; m != nil {
		t.min = *m
	}
	t.plan.Memory = s.Memory
	t.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	desired := t.Current
	switch {
	case t.Current == 0 && t.min != 0:
		t.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
	case t.Current > t.max:
		desired, t.plan.Reason = t.max, "Current number of replicas above Spec.MaxReplicas"
	case t.Current < t.min:
		desired, t.plan.Reason = t.min, "Current number of replicas below Spec.MinReplicas"
	default:
		desired = t.byMetrics()
	}
	t.plan.Scale = desired
	if desired >= 0 {
		t.scaled(desired)
	}
	t.status.CurrentReplicas, t.status.ObservedGeneration = t.Current, nil
	if s.HPA.Generation > 0 { // not every apiserver counts those of autoscalers
		t.status.ObservedGeneration = &s.HPA.Generation
	}
	if !equality.Semantic.DeepEqual(*t.status, s.HPA.Status) {
		t.plan.Status = t.status
	}
	return t.plan
}

// scaled writes down what was decided.
func (t *turn) scaled(desired int32) {
	t.status.DesiredReplicas = desired
	if desired == t.Current {
		return
	}
	t.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", desired))
	t.status.LastScaleTime = &metav1.Time{Time: t.Now.Truncate(time.Second)}
	keep := max(t.longest(), t.Window)
	t.plan.Memory.Scaled = append(slices.DeleteFunc(slices.Clone(t.plan.Memory.Scaled), func(p Past) bool { return t.Now.Sub(p.At) > keep }), Past{t.Now, desired - t.Current})
}

// longest is the longest period of a policy.
func (t *turn) longest() time.Duration {
	out := time.Duration(0)
	for _, r := range []*autoscalingv2.HPAScalingRules{t.rules(true), t.rules(false)} {
		for _, p := range r.Policies {
			out = max(out, time.Duration(p.PeriodSeconds)*time.Second)
		}
	}
	return out
}

// byMetrics answers what the metric that asks for most wants, within what behaviour and bounds allow; -1 if none can say.
func (t *turn) byMetrics() int32 {
	desired, failed, from := int32(-1), (*Proposal)(nil), ""
	t.status.CurrentMetrics = nil
	for i := range t.Proposals {
		p := &t.Proposals[i]
		if p.Err != nil {
			if failed == nil {
				failed = p
			}
			t.plan.Tell = append(t.plan.Tell, Event{p.Reason, p.Err.Error()})
			continue
		}
		t.status.CurrentMetrics = append(t.status.CurrentMetrics, p.Status)
		if p.Replicas > desired {
			desired, from = p.Replicas, p.Name
		}
	}
	// A metric that says nothing might have asked for more: nothing is taken on the word of the others.
	if failed != nil && (desired < 0 || desired < t.Current) {
		t.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, failed.Reason, fmt.Sprintf("the HPA was unable to compute the replica count: %v", failed.Err))
		t.plan.Err = fmt.Errorf("invalid metrics (%d invalid out of %d), first error is: failed to get %s: %w", len(t.plan.Tell), len(t.Proposals), failed.What, failed.Err)
		if desired < 0 {
			return -1
		}
		return t.Current
	}
	t.set(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from "+from)
	switch {
	case desired > t.Current:
		t.plan.Reason = from + " above target"
	case desired < t.Current:
		t.plan.Reason = "All metrics below target"
	}
	return t.limit(t.steady(desired))
}

// steady keeps a recommendation within what was recommended of late: up only as far as all of it, down as all of it.
func (t *turn) steady(desired int32) int32 {
	up, down := t.window(true), t.window(false)
	low, high := desired, desired
	keep := t.Memory.Recommended[:0:0]
	for _, p := range t.Memory.Recommended {
		age := t.Now.Sub(p.At)
		if age < up {
			low = min(low, p.N)
		}
		if age < down {
			high = max(high, p.N)
		}
		if age < max(up, down) {
			keep = append(keep, p)
		}
	}
	t.plan.Memory.Recommended = append(keep, Past{t.Now, desired})
	out := t.Current
	if out < low {
		out = low
	}
	if out > high {
		out = high
	}
	switch {
	case out == desired:
		t.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "ReadyForNewScale", "recommended size matches current size")
	case out > desired:
		t.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation")
	default:
		t.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation")
	}
	return out
}

// limit keeps a number within the bounds of the object and of how fast it may change.
func (t *turn) limit(desired int32) int32 {
	low, high, lowWhy, highWhy := t.min, t.max, "TooFewReplicas", "TooManyReplicas"
	lowText, highText := "the desired replica count is less than the minimum replica count", "the desired replica count is more than the maximum replica count"
	if desired > t.Current {
		if most := t.most(); most < high {
			high, highWhy, highText = max(most, t.Current), "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"
		}
	}
	if desired < t.Current {
		if least := t.least(); least > low {
			low, lowWhy, lowText = min(least, t.Current), "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"
		}
	}
	switch {
	case desired < low:
		t.set(autoscalingv2.ScalingLimited, corev1.ConditionTrue, lowWhy, lowText)
		return low
	case desired > high:
		t.set(autoscalingv2.ScalingLimited, corev1.ConditionTrue, highWhy, highText)
		return high
	}
	t.set(autoscalingv2.ScalingLimited, corev1.ConditionFalse, "DesiredWithinRange", "the desired count is within the acceptable range")
	return desired
}

// rules answers the object's own, or those that hold where it has none.
func (t *turn) rules(up bool) *autoscalingv2.HPAScalingRules {
	b := t.HPA.Spec.Behavior
	if b != nil && up && b.ScaleUp != nil {
		return b.ScaleUp
	}
	if b != nil && !up && b.ScaleDown != nil {
		return b.ScaleDown
	}
	all := []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}}
	if up {
		all = append(all, autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15})
	}
	return &autoscalingv2.HPAScalingRules{Policies: all}
}

func (t *turn) window(up bool) time.Duration {
	if s := t.rules(up).StabilizationWindowSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	if up {
		return 0
	}
	return t.Window
}

// before answers how many there were at the start of a period.
func (t *turn) before(seconds int32) int32 {
	n := t.Current
	for _, p := range t.Memory.Scaled {
		if t.Now.Sub(p.At) < time.Duration(seconds)*time.Second {
			n -= p.N
		}
	}
	return n
}

// most answers up to how many the policies allow, and least down to how many.
func (t *turn) most() int32 {
	r := t.rules(true)
	return pick(r, t.Current, false, func(p autoscalingv2.HPAScalingPolicy) int32 {
		if p.Type == autoscalingv2.PodsScalingPolicy {
			return t.before(p.PeriodSeconds) + p.Value
		}
		return int32(math.Ceil(float64(t.before(p.PeriodSeconds)) * (1 + float64(p.Value)/100)))
	})
}

func (t *turn) least() int32 {
	r := t.rules(false)
	return pick(r, t.Current, true, func(p autoscalingv2.HPAScalingPolicy) int32 {
		if p.Type == autoscalingv2.PodsScalingPolicy {
			return t.before(p.PeriodSeconds) - p.Value
		}
		return int32(float64(t.before(p.PeriodSeconds)) * (1 - float64(p.Value)/100))
	})
}

// pick answers the bound of the policy that changes most, or least, as the rules say.
func pick(r *autoscalingv2.HPAScalingRules, current int32, down bool, f func(autoscalingv2.HPAScalingPolicy) int32) int32 {
	how := autoscalingv2.MaxChangePolicySelect
	if r.SelectPolicy != nil {
		how = *r.SelectPolicy
	}
	if how == autoscalingv2.DisabledPolicySelect || len(r.Policies) == 0 {
		return current
	}
	out := f(r.Policies[0])
	for _, p := range r.Policies[1:] {
		if (how == autoscalingv2.MaxChangePolicySelect) != down {
			out = max(out, f(p))
		} else {
			out = min(out, f(p))
		}
	}
	return out
}

// set writes a condition.
func (t *turn) set(kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, message string) {
	next := autoscalingv2.HorizontalPodAutoscalerCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(t.Now.Truncate(time.Second))}
	for i, c := range t.status.Conditions {
		if c.Type == kind {
			if c.Status == status {
				next.LastTransitionTime = c.LastTransitionTime
			}
			t.status.Conditions[i] = next
			return
		}
	}
	t.status.Conditions = append(t.status.Conditions, next)
}
