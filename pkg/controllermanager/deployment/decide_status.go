package deployment

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// counts are the numbers of the status.
func (r *rollout) counts() appsv1.DeploymentStatus {
	all := r.all()
	s := appsv1.DeploymentStatus{
		ObservedGeneration: r.d.Generation,
		Replicas:           sum(all, func(s *appsv1.ReplicaSet) int32 { return s.Status.Replicas }),
		ReadyReplicas:      sum(all, func(s *appsv1.ReplicaSet) int32 { return s.Status.ReadyReplicas }),
		AvailableReplicas:  sum(all, func(s *appsv1.ReplicaSet) int32 { return s.Status.AvailableReplicas }),
		CollisionCount:     r.d.Status.CollisionCount,
		Conditions:         append([]appsv1.DeploymentCondition{}, r.d.Status.Conditions...),
	}
	terminating := int32(0)
	for _, set := range all {
		if t := set.Status.TerminatingReplicas; t != nil {
			terminating += *t
		}
	}
	s.TerminatingReplicas = &terminating
	if r.now != nil {
		s.UpdatedReplicas = r.now.Status.Replicas
	}
	s.UnavailableReplicas = max(0, sum(all, replicas)-s.AvailableReplicas)
	return s
}

// complete tells that only new pods are there, all of them available.
func (r *rollout) complete() bool {
	s := r.counts()
	return s.UpdatedReplicas == r.want() && s.Replicas == r.want() && s.AvailableReplicas == r.want() && r.now != nil && r.now.Generation <= r.now.Status.ObservedGeneration
}

func (r *rollout) status() {
	s := r.counts()
	r.availability(&s)
	r.progress(&s)
	r.failure(&s)
	if len(s.Conditions) == 0 {
		s.Conditions = nil
	}
	if !equality.Semantic.DeepEqual(r.d.Status, s) {
		r.plan.Status = &s
	}
}

// failure passes on what a set could not do: the current one's words before those of others.
func (r *rollout) failure(s *appsv1.DeploymentStatus) {
	for _, set := range append([]*appsv1.ReplicaSet{r.now}, r.old...) {
		if set == nil {
			continue
		}
		for _, c := range set.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				r.set(s, appsv1.DeploymentReplicaFailure, c.Status, c.Reason, c.Message)
				return
			}
		}
	}
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == appsv1.DeploymentReplicaFailure })
}

func (r *rollout) availability(s *appsv1.DeploymentStatus) {
	if s.AvailableReplicas >= r.want()-r.unavailable {
		r.set(s, appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability.")
	} else {
		r.set(s, appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
	}
}

// progress says how the update goes; one that got nowhere within its deadline has failed.
func (r *rollout) progress(s *appsv1.DeploymentStatus) {
	if r.d.Spec.ProgressDeadlineSeconds == nil || *r.d.Spec.ProgressDeadlineSeconds == 1<<31-1 {
		return
	}
	name, subject := r.d.Name, "Deployment"
	if r.now != nil {
		name, subject = r.now.Name, "ReplicaSet"
	}
	was := condition(r.d.Status.Conditions, appsv1.DeploymentProgressing)
	switch {
	case r.d.Spec.Paused:
		if was == nil || was.Reason != "ProgressDeadlineExceeded" {
			r.set(s, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused")
		}
	case was != nil && was.Reason == "DeploymentPaused":
		r.set(s, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentResumed", "Deployment is resumed")
	case r.plan.Create != nil:
		r.set(s, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetCreated", fmt.Sprintf("Created new replica set %q", r.plan.Create.Name))
	case r.complete() && r.plan.Scale == nil:
		r.set(s, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetAvailable", fmt.Sprintf("%s %q has successfully progressed.", subject, name))
	case r.moved(s):
		r.touch(s, "ReplicaSetUpdated", fmt.Sprintf("%s %q is progressing.", subject, name))
	default:
		r.deadline(s, was, subject, name)
	}
}

// moved tells that the update came nearer its end since the status was written.
func (r *rollout) moved(s *appsv1.DeploymentStatus) bool {
	old := r.d.Status
	return s.UpdatedReplicas > old.UpdatedReplicas || s.Replicas-s.UpdatedReplicas < old.Replicas-old.UpdatedReplicas ||
		s.ReadyReplicas > old.ReadyReplicas || s.AvailableReplicas > old.AvailableReplicas
}

func (r *rollout) deadline(s *appsv1.DeploymentStatus, was *appsv1.DeploymentCondition, subject, name string) {
	if was == nil || was.Reason == "NewReplicaSetAvailable" && was.Status == corev1.ConditionTrue || was.Reason == "ProgressDeadlineExceeded" {
		return
	}
	left := was.LastUpdateTime.Add(time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second).Sub(r.Now)
	if left > 0 {
		r.plan.Again = left + time.Second
		return
	}
	r.set(s, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", fmt.Sprintf("%s %q has timed out progressing.", subject, name))
}

func condition(list []appsv1.DeploymentCondition, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range list {
		if list[i].Type == t {
			return &list[i]
		}
	}
	return nil
}

// set writes a condition; one that says the same as before keeps its times.
func (r *rollout) set(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) {
	now := metav1.NewTime(r.Now.Truncate(time.Second))
	next := appsv1.DeploymentCondition{Type: t, Status: status, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now}
	was := condition(s.Conditions, t)
	if was == nil {
		s.Conditions = append(s.Conditions, next)
		return
	}
	if was.Status == status && was.Reason == reason && was.Message == message {
		return
	}
	if was.Status == status {
		next.LastTransitionTime = was.LastTransitionTime
	}
	*was = next
}

// touch is set for a condition whose time counts: it says "just now" even if nothing else changed.
func (r *rollout) touch(s *appsv1.DeploymentStatus, reason, message string) {
	r.set(s, appsv1.DeploymentProgressing, corev1.ConditionTrue, reason, message)
	condition(s.Conditions, appsv1.DeploymentProgressing).LastUpdateTime = metav1.NewTime(r.Now.Truncate(time.Second))
}
