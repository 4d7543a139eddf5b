package scheduler

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// bind writes the decision. It cannot bind a pod twice: the API server refuses a second node, and another pod's UID.
func (s *Scheduler) bind(ctx context.Context, w *waiting, pod *rules.Pod, plan rules.Plan, began time.Time) {
	err := s.core.Pods(pod.Namespace).Bind(ctx, &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: plan.Node},
	}, metav1.CreateOptions{})
	if err == nil {
		s.mu.Lock()
		s.queue.done(pod.Key)
		s.mu.Unlock()
		s.count(pod, "scheduled", began)
		s.metrics.tries.Observe(float64(w.attempts))
		s.metrics.sli.WithLabelValues(strconv.Itoa(min(w.attempts, 16))).Observe(time.Since(w.added).Seconds())
		slog.Info("bound", "pod", pod.Key, "node", plan.Node)
		s.recorder.Eventf(pod.Pod, v1.EventTypeNormal, "Scheduled", "Successfully assigned %s to %s", pod.Key, plan.Node)
		return
	}
	s.locked(func(now time.Time) {
		// Unless it was seen bound meanwhile, the assumption was wrong.
		if s.assumed[pod.Key] == pod.UID {
			delete(s.assumed, pod.Key)
			s.table.DeletePod(pod.Key)
			s.queue.event(rules.PodGone, now)
			if apierrors.IsNotFound(err) {
				s.queue.remove(pod.Key)
			}
		}
		s.queue.retry(w, now)
	})
	s.count(pod, "error", began)
	if ctx.Err() == nil && !apierrors.IsNotFound(err) {
		slog.Warn("bind", "pod", pod.Key, "node", plan.Node, "error", err)
		s.recorder.Eventf(pod.Pod, v1.EventTypeWarning, "FailedScheduling", "binding rejected: %v", err)
	}
}

// refused tells the pod why it has no node, and evicts those who stand in its way.
func (s *Scheduler) refused(ctx context.Context, pod *rules.Pod, plan rules.Plan) {
	s.recorder.Event(pod.Pod, v1.EventTypeWarning, "FailedScheduling", plan.Message)
	for _, victim := range plan.Victims {
		s.evict(ctx, pod, victim, plan.Nominated)
	}
	if len(plan.Victims) > 0 {
		s.metrics.preempted.Inc()
		s.metrics.victims.Observe(float64(len(plan.Victims)))
	}
	condition := v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: v1.PodReasonUnschedulable, Message: plan.Message}
	s.tell(ctx, pod, condition, plan.Nominated)
}

// tell patches the pod's PodScheduled condition, unless it says so already.
func (s *Scheduler) tell(ctx context.Context, pod *rules.Pod, condition v1.PodCondition, nominated string) {
	condition.LastTransitionTime = metav1.Now()
	for _, c := range pod.Status.Conditions {
		if c.Type != condition.Type {
			continue
		}
		if c.Status == condition.Status {
			condition.LastTransitionTime = c.LastTransitionTime
		}
		if c.Status == condition.Status && c.Reason == condition.Reason && c.Message == condition.Message &&
			(nominated == "" || nominated == pod.Status.NominatedNodeName) {
			return
		}
	}
	status := map[string]any{"conditions": []v1.PodCondition{condition}}
	if nominated != "" {
		status["nominatedNodeName"] = nominated
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err == nil {
		_, err = s.core.Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
		slog.Warn("patch pod status", "pod", pod.Key, "error", err)
	}
}

// evict deletes a pod for another of higher priority, saying so on it first.
func (s *Scheduler) evict(ctx context.Context, for_, victim *rules.Pod, node string) {
	s.tell(ctx, victim, v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonPreemptionByScheduler,
		Message: for_.Spec.SchedulerName + ": preempting to accommodate a higher priority pod"}, "")
	err := s.core.Pods(victim.Namespace).Delete(ctx, victim.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(victim.UID))})
	if err != nil && !apierrors.IsNotFound(err) {
		slog.Warn("evict", "pod", victim.Key, "for", for_.Key, "error", err)
		return
	}
	s.recorder.Eventf(victim.Pod, v1.EventTypeNormal, "Preempted", "Preempted by pod %s on node %s", for_.UID, node)
}
