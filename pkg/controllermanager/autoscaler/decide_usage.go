package autoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Sample is one pod's value, in thousandths.
type Sample struct {
	Milli  int64
	At     time.Time
	Window time.Duration
}

// Goal is what a metric is to be.
type Goal struct {
	Utilization *int32 // percent of what pods ask for
	Milli       int64  // or a value, in thousandths
	Container   string // of this container alone, "" = of the pod
	Resource    corev1.ResourceName
	// How far above and below it a metric may be before anything changes, as a part of 1.
	Above, Below float64
}

func (g Goal) within(ratio float64) bool { return ratio <= 1+g.Above && ratio >= 1-g.Below }

// Load is what pods use.
type Load struct {
	Current int32
	Pods    []*corev1.Pod
	Samples map[string]Sample // by pod
	Goal    Goal
	Now     time.Time
	Config
}

// sorted is pods by how their samples count.
type sorted struct {
	ready            int
	waiting, missing []*corev1.Pod
	samples          map[string]Sample
}

func (l Load) sort() sorted {
	out := sorted{samples: map[string]Sample{}}
	for _, p := range l.Pods {
		s, known := l.Samples[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
		case p.Status.Phase == corev1.PodPending, known && l.Goal.Resource == corev1.ResourceCPU && l.starting(p, s):
			out.waiting = append(out.waiting, p)
		case !known:
			out.missing = append(out.missing, p)
		default:
			out.ready++
			out.samples[p.Name] = s
		}
	}
	return out
}

// starting tells whether the CPU use of a pod is that of its start, which says nothing of its work.
func (l Load) starting(p *corev1.Pod, s Sample) bool {
	var c *corev1.PodCondition
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == corev1.PodReady {
			c = &p.Status.Conditions[i]
		}
	}
	if c == nil || p.Status.StartTime == nil {
		return true
	}
	if p.Status.StartTime.Add(l.CPUStart).After(l.Now) {
		return c.Status == corev1.ConditionFalse || s.At.Before(c.LastTransitionTime.Add(s.Window))
	}
	return c.Status == corev1.ConditionFalse && p.Status.StartTime.Add(l.Delay).After(c.LastTransitionTime.Time)
}

// request is what a pod asks for, in thousandths.
func (l Load) request(p *corev1.Pod) (int64, error) {
	sum := int64(0)
	for _, c := range p.Spec.Containers {
		if l.Goal.Container != "" && c.Name != l.Goal.Container {
			continue
		}
		q, ok := c.Resources.Requests[l.Goal.Resource]
		if !ok {
			return 0, fmt.Errorf("missing request for %s in container %s of Pod %s", l.Goal.Resource, c.Name, p.Name)
		}
		sum += q.MilliValue()
	}
	return sum, nil
}

// Use is what was found of the load.
type Use struct {
	Replicas    int32
	Utilization int32 // percent, where the goal is one
	Milli       int64 // average of the pods
}

// replicas answers how many pods would bring their average to the goal. Pods of which nothing is known are taken for what
// speaks against a change; those that start for idle when it would go up.
func (l Load) replicas() (Use, error) {
	by := l.sort()
	if len(by.samples) == 0 {
		return Use{}, errors.New("did not receive metrics for targeted pods (pods might be unready)")
	}
	requests := map[string]int64{}
	if l.Goal.Utilization != nil {
		for _, p := range l.Pods {
			r, err := l.request(p)
			if err != nil {
				return Use{}, err
			}
			requests[p.Name] = r
		}
	}
	ratio, use, err := l.ratio(by.samples, requests)
	if err != nil {
		return Use{}, err
	}
	use.Replicas = l.Current
	up := len(by.waiting) > 0 && ratio > 1
	if !up && len(by.missing) == 0 {
		if !l.Goal.within(ratio) {
			use.Replicas = int32(math.Ceil(ratio * float64(by.ready)))
		}
		return use, nil
	}
	for _, p := range by.missing {
		if ratio == 1 {
			break // nothing is to change, so nothing needs to be guessed
		}
		value := int64(0)
		if ratio < 1 {
			value = l.Goal.Milli
			if u := l.Goal.Utilization; u != nil {
				value = requests[p.Name] * int64(max(100, *u)) / 100
			}
		}
		by.samples[p.Name] = Sample{Milli: value}
	}
	if up {
		for _, p := range by.waiting {
			by.samples[p.Name] = Sample{}
		}
	}
	again, _, err := l.ratio(by.samples, requests)
	if err != nil {
		return Use{}, err
	}
	n := int32(math.Ceil(again * float64(len(by.samples))))
	turned := ratio < 1 && again > 1 || ratio > 1 && again < 1
	if !l.Goal.within(again) && !turned && (again < 1) == (n < l.Current) && n != l.Current {
		use.Replicas = n
	}
	return use, nil
}

// ratio answers how the load compares to the goal.
func (l Load) ratio(samples map[string]Sample, requests map[string]int64) (float64, Use, error) {
	sum, asked := int64(0), int64(0)
	for name, s := range samples {
		sum += s.Milli
		asked += requests[name]
	}
	use := Use{Milli: sum / int64(len(samples))}
	if u := l.Goal.Utilization; u != nil {
		if asked == 0 {
			return 0, use, errors.New("no metrics returned matched known pods")
		}
		use.Utilization = int32(sum * 100 / asked)
		return float64(use.Utilization) / float64(*u), use, nil
	}
	if l.Goal.Milli == 0 {
		return 0, use, errors.New("the target of a metric is zero")
	}
	return float64(use.Milli) / float64(l.Goal.Milli), use, nil
}

// byValue answers how many replicas a value of something else asks for: so many times those that are ready as the value is
// of its goal.
func byValue(milli int64, g Goal, current, ready int32) int32 {
	ratio := float64(milli) / float64(g.Milli)
	switch {
	case current == 0:
		return int32(math.Ceil(ratio))
	case g.within(ratio):
		return current
	}
	return int32(math.Ceil(ratio * float64(ready)))
}

// byShare answers how many replicas a value asks for of which each is to have a share of its own.
func byShare(milli int64, g Goal, current int32) int32 {
	if current > 0 && g.within(float64(milli)/(float64(g.Milli)*float64(current))) {
		return current
	}
	return int32(math.Ceil(float64(milli) / float64(g.Milli)))
}
