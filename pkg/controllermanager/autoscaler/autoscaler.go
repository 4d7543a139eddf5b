// Package autoscaler changes the number of replicas of something by what its pods use, or by other metrics.
//
// The flow: every period read the target's scale, ask the metrics APIs, turn each metric into a proposal, decide, write the
// scale and then the status. What was recommended and done of late is remembered by object, guarded by a mutex; a restart
// forgets it, which delays a scale-down by its window.
package autoscaler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	autoscalinglisters "k8s.io/client-go/listers/autoscaling/v2"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

type controller struct {
	runtime.Deps
	Config
	hpas autoscalinglisters.HorizontalPodAutoscalerLister
	pods corelisters.PodLister

	mu       sync.Mutex
	memories map[types.UID]Memory
	uids     map[runtime.Key]types.UID // of the objects that memories are about
}

// New answers the controller.
func New(d runtime.Deps, conf Config) *runtime.Controller {
	hpas, pods := d.Informers.Autoscaling().V2().HorizontalPodAutoscalers(), d.Informers.Core().V1().Pods()
	c := &controller{Deps: d, Config: conf, hpas: hpas.Lister(), pods: pods.Lister(), memories: map[types.UID]Memory{}, uids: map[runtime.Key]types.UID{}}
	return &runtime.Controller{
		Name: "horizontal-pod-autoscaler-controller", Account: "horizontal-pod-autoscaler", Queue: "horizontalpodautoscaler", For: "as many replicas as the load needs",
		Watches: []runtime.Watch{
			{What: "horizontalpodautoscalers", Informer: hpas.Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
				if old != nil && old.GetGeneration() == obj.GetGeneration() && obj.GetGeneration() != 0 {
					return nil // the status is ours
				}
				return []runtime.Key{runtime.KeyOf(obj)}
			}},
			{What: "pods", Informer: pods.Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return nil }},
		},
		Writes: []string{"horizontalpodautoscalers/status", "*/scale"}, Reconcile: c.reconcile,
	}
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	h, err := c.hpas.HorizontalPodAutoscalers(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if err := c.look(ctx, key, h); err != nil && !runtime.LostRace(err) {
		// It is looked at again at its time, not sooner: metrics do not come faster for being asked.
		slog.Debug("autoscaling", "key", key.String(), "err", err)
	}
	return c.Period, nil
}

func (c *controller) forget(key runtime.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.memories, c.uids[key])
	delete(c.uids, key)
}

// look decides about one object and does what is decided.
func (c *controller) look(ctx context.Context, key runtime.Key, h *autoscalingv2.HorizontalPodAutoscaler) error {
	scale, err := c.scaleOf(ctx, h)
	if err != nil {
		c.Event(h, runtime.Warning, "FailedGetScale", err.Error())
		return errors.Join(err, c.unable(ctx, h, "FailedGetScale", fmt.Sprintf("the HPA controller was unable to get the target's current scale: %v", err)))
	}
	s := Snapshot{HPA: h, Current: scale.object.Spec.Replicas, Now: time.Now(), Config: c.Config}
	c.mu.Lock()
	s.Memory = c.memories[h.UID]
	c.mu.Unlock()
	if s.Current > 0 || h.Spec.MinReplicas != nil && *h.Spec.MinReplicas == 0 {
		if s.Proposals, err = c.proposals(ctx, h, scale.object.Status.Selector, s.Current); err != nil {
			return errors.Join(err, c.unable(ctx, h, "InvalidSelector", err.Error()))
		}
	}
	p := decide(s)
	slog.Debug("autoscaling", "key", key.String(), "plan", p.String())
	for _, e := range p.Tell {
		c.Event(h, runtime.Warning, e.Reason, e.Message)
	}
	if p.Err != nil {
		c.Event(h, runtime.Warning, "FailedComputeMetricsReplicas", p.Err.Error())
	}
	if p.Scale >= 0 && p.Scale != s.Current {
		if err := c.rescale(ctx, scale, p.Scale); err != nil {
			c.Event(h, runtime.Warning, "FailedRescale", fmt.Sprintf("New size: %d; reason: %s; error: %v", p.Scale, p.Reason, err))
			return errors.Join(err, c.unable(ctx, h, "FailedUpdateScale", fmt.Sprintf("the HPA controller was unable to update the target scale: %v", err)))
		}
		c.Event(h, runtime.Normal, "SuccessfulRescale", fmt.Sprintf("New size: %d; reason: %s", p.Scale, p.Reason))
	}
	c.mu.Lock()
	c.memories[h.UID], c.uids[key] = p.Memory, h.UID
	c.mu.Unlock()
	if p.Status == nil {
		return nil
	}
	return c.write(ctx, h, p.Status)
}

func (c *controller) write(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, status *autoscalingv2.HorizontalPodAutoscalerStatus) error {
	next := h.DeepCopy()
	next.Status = *status
	_, err := c.Client.AutoscalingV2().HorizontalPodAutoscalers(h.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return err
}

// unable says in the status why nothing can be done.
func (c *controller) unable(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, reason, message string) error {
	t := turn{Snapshot: Snapshot{HPA: h, Now: time.Now()}, status: h.Status.DeepCopy()}
	before := len(t.status.Conditions)
	for _, x := range t.status.Conditions {
		if x.Type == autoscalingv2.AbleToScale && x.Reason == reason && x.Message == message && before > 0 {
			return nil
		}
	}
	t.set(autoscalingv2.AbleToScale, corev1.ConditionFalse, reason, message)
	return c.write(ctx, h, t.status)
}

// podsOf answers the pods that a target's selector selects.
func (c *controller) podsOf(namespace, selector string) ([]*corev1.Pod, error) {
	if selector == "" {
		return nil, errors.New("the HPA target's scale is missing a selector")
	}
	sel, err := labels.Parse(selector)
	if err != nil {
		return nil, fmt.Errorf("couldn't convert selector into a corresponding internal selector object: %w", err)
	}
	return c.pods.Pods(namespace).List(sel)
}
