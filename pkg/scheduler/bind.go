package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// bind writes the decision: volumes and device claims first, then the binding. It cannot bind a pod twice: the API server refuses a
// second node, and another pod's UID.
func (s *Scheduler) bind(ctx context.Context, w *waiting, raw *v1.Pod, plan rules.Plan, began time.Time) {
	pod := w.pod
	start := time.Now()
	err := s.prebind(ctx, raw, plan)
	if err == nil {
		err = s.stillThere(plan.Node)
	}
	s.metrics.point(rules.PreBind, raw.Spec.SchedulerName, start, err)
	if err == nil {
		start = time.Now()
		err = s.post(ctx, raw, plan.Node)
		s.metrics.point(rules.Bind, raw.Spec.SchedulerName, start, err)
	}
	if err == nil {
		s.mu.Lock()
		s.queue.done(pod.Key)
		s.mu.Unlock()
		s.count(w, "scheduled", began)
		s.metrics.tries.Observe(float64(w.attempts))
		s.metrics.sli.WithLabelValues(strconv.Itoa(min(w.attempts, 16))).Observe(time.Since(w.added).Seconds())
		slog.Info("bound", "pod", pod.Key, "node", plan.Node)
		s.tells(raw).Eventf(raw, v1.EventTypeNormal, "Scheduled", "Successfully assigned %s to %s", pod.Key, plan.Node)
		return
	}
	s.retract(context.WithoutCancel(ctx), raw, plan)
	s.locked(func(now time.Time) {
		// Unless it was seen bound meanwhile, the assumption was wrong.
		if s.assumed[pod.Key] == pod.UID {
			delete(s.assumed, pod.Key)
			s.table.DeletePod(pod.Key)
			s.table.Storage.Unreserve(plan.Volumes)
			s.table.Devices.Unreserve(plan.Claims)
			s.happened(rules.Event{Kind: rules.PodGone, Node: plan.Node, Pod: pod}, now)
			if apierrors.IsNotFound(err) && s.queue.find(pod.Key) == w { // another of its name may have come since
				s.queue.remove(pod.Key)
			}
		}
		s.explained.put(w, rules.Plan{Message: "binding rejected: " + err.Error()}, began)
		s.queue.retry(w, now)
	})
	s.count(w, "error", began)
	if ctx.Err() == nil && !apierrors.IsNotFound(err) {
		slog.Warn("bind", "pod", pod.Key, "node", plan.Node, "error", err)
		s.tellError(ctx, w, err)
	}
}

// tells answers who tells of a pod's scheduling: the profile that the pod names.
func (s *Scheduler) tells(p *v1.Pod) record.EventRecorder {
	if r := s.recorders[p.Spec.SchedulerName]; r != nil {
		return r
	}
	return s.recorder
}

// stillThere refuses a node that went away since the decision; the API server would take the binding.
func (s *Scheduler) stillThere(node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.Node(node) == nil {
		return fmt.Errorf("node %q is gone", node)
	}
	return nil
}

// post binds through the extender that wants to, or writes the binding.
func (s *Scheduler) post(ctx context.Context, raw *v1.Pod, node string) error {
	for _, e := range s.extenders {
		if e.binds() && e.interested(raw) {
			return s.boundBy(ctx, e, raw, node)
		}
	}
	return s.core.Pods(raw.Namespace).Bind(ctx, &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: raw.Namespace, Name: raw.Name, UID: raw.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
}

// refused tells the pod why it has no node, and evicts those who stand in its way.
func (s *Scheduler) refused(ctx context.Context, raw *v1.Pod, plan rules.Plan, clear bool) {
	s.tells(raw).Event(raw, v1.EventTypeWarning, "FailedScheduling", plan.Message)
	for _, key := range plan.Free {
		s.deallocate(ctx, key)
	}
	if len(plan.Victims) > 0 {
		s.metrics.preempted.Inc()
		s.metrics.victims.Observe(float64(len(plan.Victims)))
	}
	condition := v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: v1.PodReasonUnschedulable, Message: plan.Message, ObservedGeneration: raw.Generation}
	nominated := &plan.Nominated
	if plan.Nominated == "" && !clear {
		nominated = nil
	}
	// The nomination is written before the victims go, so that nobody else is given the room.
	s.tell(ctx, raw, condition, nominated)
	for _, victim := range plan.Victims {
		s.evict(ctx, raw, victim, plan.Nominated)
	}
}

// tellError tells a pod of an error that is none of its own.
func (s *Scheduler) tellError(ctx context.Context, w *waiting, err error) {
	s.mu.Lock()
	raw := w.raw
	s.mu.Unlock()
	s.tells(raw).Event(raw, v1.EventTypeWarning, "FailedScheduling", err.Error())
	s.tell(ctx, raw, v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: v1.PodReasonSchedulerError, Message: err.Error(), ObservedGeneration: raw.Generation}, nil)
}

// tell patches a pod's condition, unless it says so already. nominated nil leaves the nominated node alone.
func (s *Scheduler) tell(ctx context.Context, raw *v1.Pod, condition v1.PodCondition, nominated *string) {
	condition.LastTransitionTime = metav1.Now()
	for _, c := range raw.Status.Conditions {
		if c.Type != condition.Type {
			continue
		}
		if c.Status == condition.Status {
			condition.LastTransitionTime = c.LastTransitionTime
		}
		if c.Status == condition.Status && c.Reason == condition.Reason && c.Message == condition.Message &&
			(nominated == nil || *nominated == raw.Status.NominatedNodeName) {
			return
		}
	}
	status := map[string]any{"conditions": []v1.PodCondition{condition}}
	switch {
	case nominated != nil && *nominated == "":
		status["nominatedNodeName"] = nil
	case nominated != nil:
		status["nominatedNodeName"] = *nominated
	}
	s.patchStatus(ctx, raw.Namespace, raw.Name, raw.UID, status)
}

func (s *Scheduler) patchStatus(ctx context.Context, namespace, name string, uid types.UID, status map[string]any) {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid}, "status": status})
	if err == nil {
		_, err = s.core.Pods(namespace).Patch(ctx, name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		slog.Warn("patch pod status", "pod", namespace+"/"+name, "error", err)
	}
}

// evict deletes a pod for another of higher priority, saying so on it first.
func (s *Scheduler) evict(ctx context.Context, preemptor *v1.Pod, victim *rules.Pod, node string) {
	namespace, name := victim.Class.Namespace, victim.Name()
	s.patchStatus(ctx, namespace, name, victim.UID, map[string]any{"conditions": []v1.PodCondition{{
		Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonPreemptionByScheduler, LastTransitionTime: metav1.Now(),
		Message: preemptor.Spec.SchedulerName + ": preempting to accommodate a higher priority pod"}}})
	err := s.core.Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(victim.UID))})
	if err != nil {
		if !apierrors.IsNotFound(err) && ctx.Err() == nil {
			slog.Warn("evict", "pod", victim.Key, "for", preemptor.Namespace+"/"+preemptor.Name, "error", err)
		}
		return
	}
	who := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: victim.UID}}
	s.tells(preemptor).Eventf(who, v1.EventTypeNormal, "Preempted", "Preempted by pod %s on node %s", preemptor.UID, node)
}
