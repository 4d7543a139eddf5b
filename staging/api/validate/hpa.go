package validate

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The longest time that a scaling rule may look at or back, in seconds.
const (
	scalingPeriod = 1800
	scalingWindow = 3600
)

// HorizontalPodAutoscaler answers what is wrong with an autoscaler.
func HorizontalPodAutoscaler(h *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	return append(validation.ValidateObjectMeta(&h.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata), scaling(&h.Spec)...)
}

// HorizontalPodAutoscalerUpdate answers what is wrong with an autoscaler in the place of old.
func HorizontalPodAutoscalerUpdate(h, old *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	errs := common(&h.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&h.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, scaling(&h.Spec)...)
}

func scaling(s *autoscalingv2.HorizontalPodAutoscalerSpec) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if n := s.MinReplicas; n != nil && *n < 1 {
		errs = append(errs, field.Invalid(spec.Child("minReplicas"), *n, "must be greater than or equal to 1"))
	}
	most := spec.Child("maxReplicas")
	switch {
	case s.MaxReplicas == 0:
		errs = append(errs, field.Required(most, "must be set and greater than 0"))
	case s.MaxReplicas < 1:
		errs = append(errs, field.Invalid(most, s.MaxReplicas, "must be greater than or equal to 1"))
	}
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		errs = append(errs, field.Invalid(most, s.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	errs = append(errs, crossVersion(s.ScaleTargetRef, spec.Child("scaleTargetRef"), s.ScaleTargetRef.Kind == "ReplicationController")...)
	sources := 0
	for i := range s.Metrics {
		errs = append(errs, metric(&s.Metrics[i], spec.Child("metrics").Index(i))...)
		if s.Metrics[i].Object != nil || s.Metrics[i].External != nil {
			sources++
		}
	}
	if n := s.MinReplicas; n != nil && *n == 0 && sources == 0 {
		errs = append(errs, field.Forbidden(spec.Child("metrics"), "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	if b := s.Behavior; b != nil {
		errs = append(errs, scalingRules(b.ScaleUp, spec.Child("behavior", "scaleUp"))...)
		errs = append(errs, scalingRules(b.ScaleDown, spec.Child("behavior", "scaleDown"))...)
	}
	return errs
}

// crossVersion checks a reference; core tells whether it may be to something of the core group. Of what is there nothing scales but
// replication controllers, while much of it has metrics.
func crossVersion(r autoscalingv2.CrossVersionObjectReference, at *field.Path, core bool) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct{ name, value string }{{"kind", r.Kind}, {"name", r.Name}} {
		if f.value == "" {
			errs = append(errs, field.Required(at.Child(f.name), ""))
		} else {
			errs = append(errs, wrong(at.Child(f.name), f.value, path.IsValidPathSegmentName(f.value))...)
		}
	}
	gv, err := schema.ParseGroupVersion(r.APIVersion)
	switch {
	case err != nil:
		errs = append(errs, field.Invalid(at.Child("apiVersion"), r.APIVersion, err.Error()))
	case gv.Group == "" && !core:
		errs = append(errs, field.Invalid(at.Child("apiVersion"), r.APIVersion, "apiVersion must specify API group"))
	}
	return errs
}

// metric checks a metric: its source is of the type it says, and of no other.
func metric(m *autoscalingv2.MetricSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	kinds := []autoscalingv2.MetricSourceType{
		autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType, autoscalingv2.ObjectMetricSourceType,
		autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType,
	}
	if m.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), "must specify a metric source type"))
	}
	unknown := among(at.Child("type"), m.Type, kinds...)
	errs = append(errs, unknown...)
	present, expected := map[string]bool{}, ""
	if s := m.Object; s != nil {
		present["object"] = true
		errs = append(errs, crossVersion(s.DescribedObject, at.Child("object", "describedObject"), true)...)
		errs = append(errs, metricName(s.Metric, at.Child("object"))...)
		errs = append(errs, metricTarget(s.Target, at.Child("object", "target"))...)
		if s.Target.Value == nil && s.Target.AverageValue == nil {
			errs = append(errs, field.Required(at.Child("object", "target", "averageValue"), "must set either a target value or averageValue"))
		}
	}
	if s := m.External; s != nil {
		present["external"] = true
		errs = append(errs, metricName(s.Metric, at.Child("external"))...)
		errs = append(errs, metricTarget(s.Target, at.Child("external", "target"))...)
		target := at.Child("external", "target")
		if s.Target.Value == nil && s.Target.AverageValue == nil {
			errs = append(errs, field.Required(target.Child("averageValue"), "must set either a target value for metric or a per-pod target"))
		}
		if s.Target.Value != nil && s.Target.AverageValue != nil {
			errs = append(errs, field.Forbidden(target.Child("value"), "may not set both a target value for metric and a per-pod target"))
		}
	}
	if s := m.Pods; s != nil {
		present["pods"] = true
		errs = append(errs, metricName(s.Metric, at.Child("pods"))...)
		errs = append(errs, metricTarget(s.Target, at.Child("pods", "target"))...)
		if v := s.Target.AverageValue; v == nil || v.Sign() != 1 {
			errs = append(errs, field.Required(at.Child("pods", "target", "averageValue"), "must specify a positive target averageValue"))
		}
	}
	if s := m.ContainerResource; s != nil {
		present["containerResource"] = true
		if s.Container == "" {
			errs = append(errs, field.Required(at.Child("containerResource", "container"), "must specify a container"))
		}
		errs = append(errs, resourceMetric(string(s.Name), s.Target, at.Child("containerResource"))...)
	}
	if s := m.Resource; s != nil {
		present["resource"] = true
		errs = append(errs, resourceMetric(string(s.Name), s.Target, at.Child("resource"))...)
	}
	switch m.Type {
	case autoscalingv2.ObjectMetricSourceType:
		expected = "object"
	case autoscalingv2.ExternalMetricSourceType:
		expected = "external"
	case autoscalingv2.PodsMetricSourceType:
		expected = "pods"
	case autoscalingv2.ResourceMetricSourceType:
		expected = "resource"
	case autoscalingv2.ContainerResourceMetricSourceType:
		expected = "containerResource"
	default:
		return append(errs, unknown...)
	}
	if !present[expected] {
		errs = append(errs, field.Required(at.Child(expected), "must populate information for the given metric source"))
	}
	if len(present) != 1 {
		for _, name := range []string{"containerResource", "external", "object", "pods", "resource"} {
			if present[name] && name != expected {
				errs = append(errs, field.Forbidden(at.Child(name), "must populate the given metric source only"))
			}
		}
	}
	return errs
}

func metricName(m autoscalingv2.MetricIdentifier, at *field.Path) field.ErrorList {
	at = at.Child("metric", "name")
	if m.Name == "" {
		return field.ErrorList{field.Required(at, "must specify a metric name")}
	}
	return wrong(at, m.Name, path.IsValidPathSegmentName(m.Name))
}

func resourceMetric(name string, t autoscalingv2.MetricTarget, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(at.Child("name"), "must specify a resource name"))
	}
	at = at.Child("target")
	errs = append(errs, metricTarget(t, at)...)
	if t.AverageUtilization == nil && t.AverageValue == nil {
		errs = append(errs, field.Required(at.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	}
	if t.AverageUtilization != nil && t.AverageValue != nil {
		errs = append(errs, field.Forbidden(at.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func metricTarget(t autoscalingv2.MetricTarget, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), "must specify a metric target type"))
	}
	switch t.Type {
	case autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType:
	default:
		errs = append(errs, field.Invalid(at.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	for _, v := range []struct {
		name string
		q    *resource.Quantity
	}{{"value", t.Value}, {"averageValue", t.AverageValue}} {
		if v.q != nil && v.q.Sign() != 1 {
			errs = append(errs, field.Invalid(at.Child(v.name), v.q, "must be positive"))
		}
	}
	if u := t.AverageUtilization; u != nil && *u < 1 {
		errs = append(errs, field.Invalid(at.Child("averageUtilization"), u, "must be greater than 0"))
	}
	return errs
}

func scalingRules(r *autoscalingv2.HPAScalingRules, at *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if w := r.StabilizationWindowSeconds; w != nil {
		if *w < 0 {
			errs = append(errs, field.Invalid(at.Child("stabilizationWindowSeconds"), *w, "must be greater than or equal to zero"))
		}
		if *w > scalingWindow {
			errs = append(errs, field.Invalid(at.Child("stabilizationWindowSeconds"), *w, "must be less than or equal to 3600"))
		}
	}
	if p := r.SelectPolicy; p != nil {
		errs = append(errs, among(at.Child("selectPolicy"), *p, autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect)...)
	}
	policies := at.Child("policies")
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(policies, "must specify at least one Policy"))
	}
	for i, p := range r.Policies {
		at := policies.Index(i)
		errs = append(errs, among(at.Child("type"), p.Type, autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)...)
		if p.Value <= 0 {
			errs = append(errs, field.Invalid(at.Child("value"), p.Value, "must be greater than zero"))
		}
		if p.PeriodSeconds <= 0 {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, "must be greater than zero"))
		}
		if p.PeriodSeconds > scalingPeriod {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, "must be less than or equal to 1800"))
		}
	}
	return errs
}
