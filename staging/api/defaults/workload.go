package defaults

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Deployment fills in a deployment.
func Deployment(d *appsv1.Deployment) {
	Template(&d.Spec.Template)
	set(&d.Spec.Replicas, 1)
	s := &d.Spec.Strategy
	fill(&s.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if s.Type == appsv1.RollingUpdateDeploymentStrategyType {
		if s.RollingUpdate == nil {
			s.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		set(&s.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		set(&s.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	set(&d.Spec.RevisionHistoryLimit, 10)
	set(&d.Spec.ProgressDeadlineSeconds, 600)
}

// ReplicaSet fills in a replica set.
func ReplicaSet(r *appsv1.ReplicaSet) {
	Template(&r.Spec.Template)
	set(&r.Spec.Replicas, 1)
}

// ReplicationController fills in a replication controller; its labels and selector come from its template.
func ReplicationController(r *corev1.ReplicationController) {
	if r.Spec.Template != nil {
		Template(r.Spec.Template)
		if len(r.Spec.Selector) == 0 {
			r.Spec.Selector = maps.Clone(r.Spec.Template.Labels)
		}
		if len(r.Labels) == 0 {
			r.Labels = maps.Clone(r.Spec.Template.Labels)
		}
	}
	set(&r.Spec.Replicas, 1)
}

// DaemonSet fills in a daemon set.
func DaemonSet(d *appsv1.DaemonSet) {
	Template(&d.Spec.Template)
	s := &d.Spec.UpdateStrategy
	fill(&s.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	if s.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		if s.RollingUpdate == nil {
			s.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
		}
		set(&s.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		set(&s.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	set(&d.Spec.RevisionHistoryLimit, 10)
}

// StatefulSet fills in a stateful set.
func StatefulSet(s *appsv1.StatefulSet) {
	Template(&s.Spec.Template)
	fill(&s.Spec.PodManagementPolicy, appsv1.OrderedReadyPodManagement)
	u := &s.Spec.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateStatefulSetStrategyType
		if u.RollingUpdate == nil {
			u.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{}
		}
	}
	if u.Type == appsv1.RollingUpdateStatefulSetStrategyType && u.RollingUpdate != nil {
		set(&u.RollingUpdate.Partition, 0)
	}
	if p := s.Spec.PersistentVolumeClaimRetentionPolicy; p == nil {
		s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
		}
	} else {
		fill(&p.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
		fill(&p.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	}
	set(&s.Spec.Replicas, 1)
	set(&s.Spec.RevisionHistoryLimit, 10)
	for i := range s.Spec.VolumeClaimTemplates {
		t := &s.Spec.VolumeClaimTemplates[i]
		t.APIVersion, t.Kind = "v1", "PersistentVolumeClaim"
		PersistentVolumeClaim(t)
	}
}

// Job fills in a job.
func Job(j *batchv1.Job) {
	jobSpec(&j.Spec)
	if len(j.Labels) == 0 {
		j.Labels = maps.Clone(j.Spec.Template.Labels)
	}
}

func jobSpec(s *batchv1.JobSpec) {
	Template(&s.Template)
	if s.Completions == nil && s.Parallelism == nil {
		set(&s.Completions, 1)
	}
	set(&s.Parallelism, 1)
	if s.BackoffLimitPerIndex != nil {
		set(&s.BackoffLimit, 1<<31-1)
	}
	set(&s.BackoffLimit, 6)
	set(&s.CompletionMode, batchv1.NonIndexedCompletion)
	set(&s.Suspend, false)
	if s.PodReplacementPolicy == nil {
		if s.PodFailurePolicy != nil {
			set(&s.PodReplacementPolicy, batchv1.Failed)
		} else {
			set(&s.PodReplacementPolicy, batchv1.TerminatingOrFailed)
		}
	}
	if s.PodFailurePolicy == nil {
		return
	}
	for i := range s.PodFailurePolicy.Rules {
		for j := range s.PodFailurePolicy.Rules[i].OnPodConditions {
			fill(&s.PodFailurePolicy.Rules[i].OnPodConditions[j].Status, corev1.ConditionTrue)
		}
	}
}

// CronJob fills in a cron job.
func CronJob(c *batchv1.CronJob) {
	fill(&c.Spec.ConcurrencyPolicy, batchv1.AllowConcurrent)
	set(&c.Spec.Suspend, false)
	set(&c.Spec.SuccessfulJobsHistoryLimit, 3)
	set(&c.Spec.FailedJobsHistoryLimit, 1)
	Template(&c.Spec.JobTemplate.Spec.Template)
}
