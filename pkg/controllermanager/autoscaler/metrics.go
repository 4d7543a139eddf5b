package autoscaler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Where the metrics APIs are; other programs serve them behind the apiserver.
const (
	resourceMetrics = "/apis/metrics.k8s.io/v1beta1"
	customMetrics   = "/apis/custom.metrics.k8s.io"
	externalMetrics = "/apis/external.metrics.k8s.io/v1beta1"
)

// podMetrics is the part of metrics.k8s.io's PodMetricsList that is read.
type podMetrics struct {
	Items []struct {
		Metadata   metav1.ObjectMeta `json:"metadata"`
		Timestamp  metav1.Time       `json:"timestamp"`
		Window     metav1.Duration   `json:"window"`
		Containers []struct {
			Name  string              `json:"name"`
			Usage corev1.ResourceList `json:"usage"`
		} `json:"containers"`
	} `json:"items"`
}

// values is the part of the lists of custom and external metrics that is read.
type values struct {
	Items []struct {
		DescribedObject corev1.ObjectReference `json:"describedObject"`
		Timestamp       metav1.Time            `json:"timestamp"`
		WindowSeconds   *int64                 `json:"windowSeconds"`
		Window          *int64                 `json:"window"` // the same in v1beta1, in seconds too
		Value           resource.Quantity      `json:"value"`
	} `json:"items"`
}

// asking is a question of all metrics of one object.
type asking struct {
	*controller
	h        *autoscalingv2.HorizontalPodAutoscaler
	selector string
	pods     []*corev1.Pod
	current  int32
	now      time.Time
}

// proposals asks every metric how many replicas it wants.
func (c *controller) proposals(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, selector string, current int32) ([]Proposal, error) {
	pods, err := c.podsOf(h.Namespace, selector)
	if err != nil {
		return nil, err
	}
	a := asking{c, h, selector, pods, current, time.Now()}
	out := make([]Proposal, 0, len(h.Spec.Metrics))
	for i := range h.Spec.Metrics {
		m := &h.Spec.Metrics[i]
		p := Proposal{Status: autoscalingv2.MetricStatus{Type: m.Type}}
		switch {
		case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
			p.Reason, p.What = "FailedGetResourceMetric", string(m.Resource.Name)+" resource metric value"
			p.Err = a.resource(ctx, m.Resource.Name, "", m.Resource.Target, &p)
		case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
			p.Reason, p.What = "FailedGetContainerResourceMetric", string(m.ContainerResource.Name)+" container metric value"
			p.Err = a.resource(ctx, m.ContainerResource.Name, m.ContainerResource.Container, m.ContainerResource.Target, &p)
		case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
			p.Reason, p.What = "FailedGetPodsMetric", "pods metric value"
			p.Err = a.podsMetric(ctx, m.Pods, &p)
		case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
			p.Reason, p.What = "FailedGetObjectMetric", "object metric value"
			p.Err = a.object(ctx, m.Object, &p)
		case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
			p.Reason, p.What = "FailedGetExternalMetric", m.External.Metric.Name+" external metric value"
			p.Err = a.external(ctx, m.External, &p)
		default:
			p.Reason, p.What, p.Err = "InvalidMetricSourceType", "metric value", fmt.Errorf("unknown metric source type %q", m.Type)
		}
		out = append(out, p)
	}
	return out, nil
}

// What client-go says of an answer that does not explain itself.
const (
	unserved    = "the server could not find the requested resource"
	unavailable = "the server is currently unable to handle the request"
)

// unfetched says in which API a question failed, and for what it was where the answer names nothing.
func unfetched(api, what string, err error) error {
	if text := err.Error(); text == unserved || text == unavailable {
		err = fmt.Errorf("%s (get %s)", text, what)
	}
	return fmt.Errorf("unable to fetch metrics from %s metrics API: %w", api, err)
}

// versions are those of custom metrics that can be read, in both of which values are told alike. Many adapters serve the old one alone.
var versions = []string{"v1beta2", "v1beta1"}

// custom asks the custom metrics API in the version that it prefers, or one that can be read.
func (a asking) custom(ctx context.Context, object, name, metric string, query map[string]string, out *values) error {
	var group metav1.APIGroup
	if err := a.get(ctx, customMetrics, nil, &group); err != nil {
		if err.Error() == unserved {
			err = errors.New("no custom metrics API (custom.metrics.k8s.io) registered")
		}
		return unfetched("custom", "custom.metrics.k8s.io", err)
	}
	version := group.PreferredVersion.Version
	if !slices.Contains(versions, version) {
		served := slices.IndexFunc(group.Versions, func(v metav1.GroupVersionForDiscovery) bool { return slices.Contains(versions, v.Version) })
		if served < 0 {
			return unfetched("custom", "", errors.New("the custom metrics API is served in no version that can be read"))
		}
		version = group.Versions[served].Version
	}
	at := path.Join(customMetrics, version, "namespaces", a.h.Namespace, object, name, metric)
	what := object + ".custom.metrics.k8s.io " + name
	if object == "namespaces" {
		at = path.Join(customMetrics, version, "namespaces", a.h.Namespace, "metrics", metric)
		what = "metrics.custom.metrics.k8s.io " + metric
	}
	if err := a.get(ctx, at, query, out); err != nil {
		return unfetched("custom", what, err)
	}
	return nil
}

// goal reads what a metric is to be.
func (a asking) goal(t autoscalingv2.MetricTarget) Goal {
	g := Goal{Utilization: t.AverageUtilization, Above: a.Tolerance, Below: a.Tolerance}
	switch {
	case t.AverageValue != nil:
		g.Milli = t.AverageValue.MilliValue()
	case t.Value != nil:
		g.Milli = t.Value.MilliValue()
	}
	if b := a.h.Spec.Behavior; b != nil {
		if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
			g.Above = b.ScaleUp.Tolerance.AsApproximateFloat64()
		}
		if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
			g.Below = b.ScaleDown.Tolerance.AsApproximateFloat64()
		}
	}
	return g
}

func (a asking) load(g Goal, samples map[string]Sample) Load {
	return Load{Current: a.current, Pods: a.pods, Samples: samples, Goal: g, Now: a.now, Config: a.Config}
}

// resource asks what pods, or one container of each, use.
func (a asking) resource(ctx context.Context, name corev1.ResourceName, container string, target autoscalingv2.MetricTarget, p *Proposal) error {
	word := "utilization"
	if target.AverageUtilization == nil {
		word = "usage"
	}
	var list podMetrics
	err := a.get(ctx, path.Join(resourceMetrics, "namespaces", a.h.Namespace, "pods"), map[string]string{"labelSelector": a.selector}, &list)
	switch {
	case err != nil:
		err = unfetched("resource", "pods.metrics.k8s.io", err)
	case len(list.Items) == 0:
		err = errors.New("no metrics returned from resource metrics API")
	}
	if err != nil {
		return fmt.Errorf("failed to get %s %s: unable to get metrics for resource %s: %w", name, word, name, err)
	}
	samples := map[string]Sample{}
	for _, item := range list.Items {
		sum, known := int64(0), true
		for _, c := range item.Containers {
			if container != "" && c.Name != container {
				continue
			}
			q, ok := c.Usage[name]
			known = known && ok
			sum += q.MilliValue()
		}
		if known {
			samples[item.Metadata.Name] = Sample{sum, item.Timestamp.Time, item.Window.Duration}
		}
	}
	g := a.goal(target)
	g.Resource, g.Container = name, container
	use, err := a.load(g, samples).replicas()
	if err != nil {
		return fmt.Errorf("failed to get %s %s: %w", name, word, err)
	}
	p.Replicas = use.Replicas
	value := autoscalingv2.MetricValueStatus{AverageValue: resource.NewMilliQuantity(use.Milli, resource.DecimalSI)}
	kind := string(name) + " resource"
	if g.Utilization != nil {
		value.AverageUtilization = &use.Utilization
		kind += " utilization (percentage of request)"
	}
	p.Name = kind
	if container != "" {
		p.Name = string(name) + " container resource utilization (percentage of request)"
		p.Status.ContainerResource = &autoscalingv2.ContainerResourceMetricStatus{Name: name, Container: container, Current: value}
		return nil
	}
	p.Status.Resource = &autoscalingv2.ResourceMetricStatus{Name: name, Current: value}
	return nil
}

func selectorText(s *metav1.LabelSelector) (string, error) {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil || s == nil {
		return "", err
	}
	return sel.String(), nil
}

// podsMetric asks for a metric of the pods themselves.
func (a asking) podsMetric(ctx context.Context, m *autoscalingv2.PodsMetricSource, p *Proposal) error {
	sel, err := selectorText(m.Metric.Selector)
	if err != nil {
		return err
	}
	var list values
	err = a.custom(ctx, "pods", "*", m.Metric.Name, map[string]string{"labelSelector": a.selector, "metricLabelSelector": sel}, &list)
	if err == nil && len(list.Items) == 0 {
		err = errors.New("no metrics returned from custom metrics API")
	}
	if err != nil {
		return fmt.Errorf("unable to get metric %s: %w", m.Metric.Name, err)
	}
	samples := map[string]Sample{}
	for _, x := range list.Items {
		s := Sample{Milli: x.Value.MilliValue(), At: x.Timestamp.Time, Window: time.Minute}
		if w := cmp.Or(x.WindowSeconds, x.Window); w != nil {
			s.Window = time.Duration(*w) * time.Second
		}
		samples[x.DescribedObject.Name] = s
	}
	use, err := a.load(a.goal(m.Target), samples).replicas()
	if err != nil {
		return err
	}
	p.Replicas, p.Name = use.Replicas, "pods metric "+m.Metric.Name
	p.Status.Pods = &autoscalingv2.PodsMetricStatus{Metric: m.Metric, Current: autoscalingv2.MetricValueStatus{AverageValue: resource.NewMilliQuantity(use.Milli, resource.DecimalSI)}}
	return nil
}

// ready counts the pods that serve.
func (a asking) ready() int32 {
	n := int32(0)
	for _, pod := range a.pods {
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
				n++
			}
		}
	}
	return n
}

// valued turns a value of something else into a proposal.
func (a asking) valued(milli int64, t autoscalingv2.MetricTarget, p *Proposal) (autoscalingv2.MetricValueStatus, error) {
	g := a.goal(t)
	if g.Milli <= 0 {
		return autoscalingv2.MetricValueStatus{}, errors.New("the target of the metric is neither a value nor an average value")
	}
	if t.AverageValue != nil {
		p.Replicas = byShare(milli, g, a.current)
		return autoscalingv2.MetricValueStatus{AverageValue: resource.NewMilliQuantity(milli/int64(max(1, a.current)), resource.DecimalSI)}, nil
	}
	p.Replicas = byValue(milli, g, a.current, a.ready())
	return autoscalingv2.MetricValueStatus{Value: resource.NewMilliQuantity(milli, resource.DecimalSI)}, nil
}

// object asks for a metric of one other object.
func (a asking) object(ctx context.Context, m *autoscalingv2.ObjectMetricSource, p *Proposal) error {
	sel, err := selectorText(m.Metric.Selector)
	if err != nil {
		return err
	}
	_, name, err := a.controller.resource(m.DescribedObject.APIVersion, m.DescribedObject.Kind)
	if err != nil {
		return err
	}
	if gv, err := schema.ParseGroupVersion(m.DescribedObject.APIVersion); err == nil && gv.Group != "" {
		name += "." + gv.Group
	}
	var list values
	err = a.custom(ctx, name, m.DescribedObject.Name, m.Metric.Name, map[string]string{"metricLabelSelector": sel}, &list)
	if err == nil && len(list.Items) == 0 {
		err = errors.New("no metrics returned from custom metrics API")
	}
	if err != nil {
		return fmt.Errorf("unable to get metric %s: %s on %s %s/%w", m.Metric.Name, m.DescribedObject.Kind, a.h.Namespace, m.DescribedObject.Name, err)
	}
	p.Name = m.DescribedObject.Kind + " metric " + m.Metric.Name
	p.Status.Object = &autoscalingv2.ObjectMetricStatus{Metric: m.Metric, DescribedObject: m.DescribedObject}
	p.Status.Object.Current, err = a.valued(list.Items[0].Value.MilliValue(), m.Target, p)
	return err
}

// external asks for a metric of something that the cluster does not know.
func (a asking) external(ctx context.Context, m *autoscalingv2.ExternalMetricSource, p *Proposal) error {
	sel, err := selectorText(m.Metric.Selector)
	if err != nil {
		return err
	}
	var list values
	if err := a.get(ctx, path.Join(externalMetrics, "namespaces", a.h.Namespace, m.Metric.Name), map[string]string{"labelSelector": sel}, &list); err != nil {
		return fmt.Errorf("unable to get external metric %s/%s/%v: %w", a.h.Namespace, m.Metric.Name, m.Metric.Selector, unfetched("external", m.Metric.Name+".external.metrics.k8s.io", err))
	}
	if len(list.Items) == 0 {
		return fmt.Errorf("unable to get external metric %s/%s/%v: no metrics returned from external metrics API", a.h.Namespace, m.Metric.Name, m.Metric.Selector)
	}
	sum := int64(0)
	for _, x := range list.Items {
		sum += x.Value.MilliValue()
	}
	p.Name = "external metric " + m.Metric.Name
	p.Status.External = &autoscalingv2.ExternalMetricStatus{Metric: m.Metric}
	p.Status.External.Current, err = a.valued(sum, m.Target, p)
	return err
}
