package autoscaling

import (
	"encoding/json"
	"fmt"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// HorizontalPodAutoscaler is the row of horizontalpodautoscalers: stored as v2, served as v1 too.
func HorizontalPodAutoscaler() *kind.Def {
	v1 := kind.In[autoscalingv1.HorizontalPodAutoscaler, autoscalingv1.HorizontalPodAutoscalerList](autoscalingv1.SchemeGroupVersion, defaultV1)
	v1.ToHub, v1.FromHub = fromV1, toV1
	return kind.Row(kind.Def{
		Kind: "HorizontalPodAutoscaler", Resource: "horizontalpodautoscalers", ShortNames: []string{"hpa"}, Categories: []string{"all"},
		Namespaced: true,
		Check:      kind.Valid(validate.HorizontalPodAutoscaler, validate.HorizontalPodAutoscalerUpdate),
		Columns:    kind.Columns("Name Reference Targets MinPods MaxPods Replicas Age"),
		Row:        kind.Of(row),
		Subs:       []kind.Sub{kind.Status},
	}, kind.In[autoscalingv2.HorizontalPodAutoscaler, autoscalingv2.HorizontalPodAutoscalerList](autoscalingv2.SchemeGroupVersion, defaults.HorizontalPodAutoscaler), v1)
}

func defaultV1(h *autoscalingv1.HorizontalPodAutoscaler) {
	if h.Spec.MinReplicas == nil {
		h.Spec.MinReplicas = new(int32(1))
	}
}

func cpu(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

// The annotations in which v1 keeps what only v2 can say.
const (
	metricsNote   = "autoscaling.alpha.kubernetes.io/metrics"
	statusNote    = "autoscaling.alpha.kubernetes.io/current-metrics"
	conditionNote = "autoscaling.alpha.kubernetes.io/conditions"
	behaviorNote  = "autoscaling.alpha.kubernetes.io/behavior"
)

func toV1(hub kind.Object) (kind.Object, error) {
	h := hub.(*autoscalingv2.HorizontalPodAutoscaler)
	out := &autoscalingv1.HorizontalPodAutoscaler{
		ObjectMeta: *h.ObjectMeta.DeepCopy(),
		Spec: autoscalingv1.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv1.CrossVersionObjectReference(h.Spec.ScaleTargetRef),
			MinReplicas:    h.Spec.MinReplicas, MaxReplicas: h.Spec.MaxReplicas,
		},
		Status: autoscalingv1.HorizontalPodAutoscalerStatus{
			ObservedGeneration: h.Status.ObservedGeneration, LastScaleTime: h.Status.LastScaleTime,
			CurrentReplicas: h.Status.CurrentReplicas, DesiredReplicas: h.Status.DesiredReplicas,
		},
	}
	var rest []autoscalingv2.MetricSpec
	for _, m := range h.Spec.Metrics {
		if u := utilization(m); u != nil && out.Spec.TargetCPUUtilizationPercentage == nil {
			out.Spec.TargetCPUUtilizationPercentage = u
		} else {
			rest = append(rest, m)
		}
	}
	var restStatus []autoscalingv2.MetricStatus
	for _, m := range h.Status.CurrentMetrics {
		if m.Resource != nil && m.Resource.Name == corev1.ResourceCPU && out.Status.CurrentCPUUtilizationPercentage == nil {
			out.Status.CurrentCPUUtilizationPercentage = m.Resource.Current.AverageUtilization
		} else {
			restStatus = append(restStatus, m)
		}
	}
	for note, v := range map[string]any{metricsNote: rest, statusNote: restStatus, conditionNote: h.Status.Conditions, behaviorNote: h.Spec.Behavior} {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("converting to v1: %w", err)
		}
		if string(b) == "null" || string(b) == "[]" {
			continue
		}
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[note] = string(b)
	}
	return out, nil
}

func utilization(m autoscalingv2.MetricSpec) *int32 {
	if m.Type != autoscalingv2.ResourceMetricSourceType || m.Resource == nil || m.Resource.Name != corev1.ResourceCPU {
		return nil
	}
	return m.Resource.Target.AverageUtilization
}

func fromV1(obj kind.Object) (kind.Object, error) {
	h := obj.(*autoscalingv1.HorizontalPodAutoscaler)
	out := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: *h.ObjectMeta.DeepCopy(),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference(h.Spec.ScaleTargetRef),
			MinReplicas:    h.Spec.MinReplicas, MaxReplicas: h.Spec.MaxReplicas,
		},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			ObservedGeneration: h.Status.ObservedGeneration, LastScaleTime: h.Status.LastScaleTime,
			CurrentReplicas: h.Status.CurrentReplicas, DesiredReplicas: h.Status.DesiredReplicas,
		},
	}
	for note, v := range map[string]any{
		metricsNote: &out.Spec.Metrics, statusNote: &out.Status.CurrentMetrics, conditionNote: &out.Status.Conditions, behaviorNote: &out.Spec.Behavior,
	} {
		if text := out.Annotations[note]; text != "" {
			// An annotation that cannot be read was written by hand: it stays one.
			if json.Unmarshal([]byte(text), v) == nil {
				delete(out.Annotations, note)
			}
		}
	}
	if len(out.Annotations) == 0 {
		out.Annotations = nil
	}
	if p := h.Spec.TargetCPUUtilizationPercentage; p != nil {
		out.Spec.Metrics = append([]autoscalingv2.MetricSpec{cpu(*p)}, out.Spec.Metrics...)
	}
	if len(out.Spec.Metrics) == 0 {
		out.Spec.Metrics = []autoscalingv2.MetricSpec{cpu(80)}
	}
	if u := h.Status.CurrentCPUUtilizationPercentage; u != nil {
		out.Status.CurrentMetrics = append([]autoscalingv2.MetricStatus{{
			Type:     autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricStatus{Name: corev1.ResourceCPU, Current: autoscalingv2.MetricValueStatus{AverageUtilization: u}},
		}}, out.Status.CurrentMetrics...)
	}
	return out, nil
}

func row(h *autoscalingv2.HorizontalPodAutoscaler) []any {
	minPods := "<unset>"
	if h.Spec.MinReplicas != nil {
		minPods = fmt.Sprint(*h.Spec.MinReplicas)
	}
	return []any{
		h.Name, h.Spec.ScaleTargetRef.Kind + "/" + h.Spec.ScaleTargetRef.Name, targets(h), minPods, int64(h.Spec.MaxReplicas),
		int64(h.Status.CurrentReplicas), kind.Age(h.CreationTimestamp),
	}
}

// targets shows up to two metrics as what is measured over what is wanted.
func targets(h *autoscalingv2.HorizontalPodAutoscaler) string {
	if len(h.Spec.Metrics) == 0 {
		return "<none>"
	}
	var list []string
	for i, m := range h.Spec.Metrics {
		var now *autoscalingv2.MetricStatus
		if i < len(h.Status.CurrentMetrics) {
			now = &h.Status.CurrentMetrics[i]
		}
		list = append(list, target(m, now))
	}
	if len(list) > 2 {
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:2], ", "), len(list)-2)
	}
	return strings.Join(list, ", ")
}

func target(m autoscalingv2.MetricSpec, now *autoscalingv2.MetricStatus) string {
	current := "<unknown>"
	switch {
	case m.Resource != nil:
		name := string(m.Resource.Name)
		if u := m.Resource.Target.AverageUtilization; u != nil {
			if now != nil && now.Resource != nil && now.Resource.Current.AverageUtilization != nil {
				current = fmt.Sprintf("%d%%", *now.Resource.Current.AverageUtilization)
			}
			return fmt.Sprintf("%s: %s/%d%%", name, current, *u)
		}
		if now != nil && now.Resource != nil && now.Resource.Current.AverageValue != nil {
			current = now.Resource.Current.AverageValue.String()
		}
		return fmt.Sprintf("%s: %s/%s", name, current, m.Resource.Target.AverageValue)
	case m.Pods != nil:
		if now != nil && now.Pods != nil && now.Pods.Current.AverageValue != nil {
			current = now.Pods.Current.AverageValue.String()
		}
		return fmt.Sprintf("%s/%s", current, m.Pods.Target.AverageValue)
	case m.Object != nil:
		if now != nil && now.Object != nil && now.Object.Current.Value != nil {
			current = now.Object.Current.Value.String()
		}
		return fmt.Sprintf("%s/%s", current, m.Object.Target.Value)
	}
	return current
}
