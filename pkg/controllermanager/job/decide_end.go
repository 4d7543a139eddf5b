package job

import (
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// verdict answers how the job ends, nil if it goes on. What was found once stands, whatever comes after.
func (r *run) verdict() *verdict {
	for _, c := range r.status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobSuccessCriteriaMet:
			return &verdict{batchv1.JobComplete, c.Reason, c.Message}
		case batchv1.JobFailureTarget:
			return &verdict{batchv1.JobFailed, c.Reason, c.Message}
		}
	}
	if message := r.forbidden(); message != "" {
		return &verdict{batchv1.JobFailed, batchv1.JobReasonPodFailurePolicy, message}
	}
	if r.tooOften() {
		return &verdict{batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit"}
	}
	if d := r.Job.Spec.ActiveDeadlineSeconds; d != nil && r.status.StartTime != nil && !suspended(r.Job) {
		left := r.status.StartTime.Add(time.Duration(*d) * time.Second).Sub(r.Now)
		if left <= 0 {
			return &verdict{batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline"}
		}
		r.again(left)
	}
	if r.perIndex() {
		most := r.Job.Spec.MaxFailedIndexes
		switch {
		case most != nil && len(r.lost) > int(*most):
			return &verdict{batchv1.JobFailed, batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes"}
		case len(r.lost) > 0 && len(r.lost)+len(r.done) >= r.completions():
			return &verdict{batchv1.JobFailed, batchv1.JobReasonFailedIndexes, "Job has failed indexes"}
		}
	}
	return r.enough()
}

// tooOften tells whether more pods failed, or restarted in place, than the job allows.
func (r *run) tooOften() bool {
	limit := 6
	if r.Job.Spec.BackoffLimit != nil {
		limit = int(*r.Job.Spec.BackoffLimit)
	}
	if r.failedTotal() > limit {
		return true
	}
	if r.Job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	restarts := 0
	for _, p := range r.Pods {
		if p.Status.Phase != corev1.PodRunning && p.Status.Phase != corev1.PodPending {
			continue
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			restarts += int(c.RestartCount)
		}
	}
	return restarts > 0 && restarts >= limit
}

// enough answers whether the indexes that succeeded are those that the success policy asks for.
func (r *run) enough() *verdict {
	if r.Job.Spec.SuccessPolicy == nil || !indexed(r.Job) {
		return nil
	}
	for i, rule := range r.Job.Spec.SuccessPolicy.Rules {
		required, have := len(r.done), len(r.done)
		if rule.SucceededIndexes != nil {
			required, have = 0, 0
			for _, x := range indexes(*rule.SucceededIndexes) {
				required++
				if r.done[x] {
					have++
				}
			}
		}
		if rule.SucceededCount != nil {
			required = int(*rule.SucceededCount)
		}
		if have >= required && have > 0 {
			return &verdict{batchv1.JobComplete, batchv1.JobReasonSuccessPolicy, fmt.Sprintf("Matched rules at index %d", i)}
		}
	}
	return nil
}

// complete answers the end of a job of which enough pods succeeded and none runs any more.
func (r *run) complete() *verdict {
	if len(r.active)+len(r.plan.Create) > 0 {
		return nil
	}
	c := r.Job.Spec.Completions
	if c == nil && r.succeededTotal() > 0 || c != nil && r.succeededTotal() >= int(*c) {
		return &verdict{batchv1.JobComplete, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods"}
	}
	return nil
}

// match answers what the pod failure policy says of a failed pod: the action of the first rule that it meets, "" if none,
// and in words which rule it was.
func match(policy *batchv1.PodFailurePolicy, p *corev1.Pod) (action batchv1.PodFailurePolicyAction, why string) {
	if policy == nil {
		return "", ""
	}
	for i, rule := range policy.Rules {
		if rule.OnExitCodes != nil {
			if c := exited(p, rule.OnExitCodes); c != nil {
				return rule.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %v matching %v rule at index %d",
					c.Name, p.Namespace, p.Name, c.State.Terminated.ExitCode, rule.Action, i)
			}
		}
		for _, pattern := range rule.OnPodConditions {
			for _, c := range p.Status.Conditions {
				if c.Type == pattern.Type && (c.Status == pattern.Status || pattern.Status == "" && c.Status == corev1.ConditionTrue) {
					return rule.Action, fmt.Sprintf("Pod %s/%s has condition %v matching %v rule at index %d", p.Namespace, p.Name, pattern.Type, rule.Action, i)
				}
			}
		}
	}
	return "", ""
}

// exited finds a container whose exit code a rule is about. A container that went well is none.
func exited(p *corev1.Pod, rule *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i, c := range list {
			if c.State.Terminated == nil || c.State.Terminated.ExitCode == 0 || rule.ContainerName != nil && *rule.ContainerName != c.Name {
				continue
			}
			if slices.Contains(rule.Values, c.State.Terminated.ExitCode) == (rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return &list[i]
			}
		}
	}
	return nil
}

// forbidden answers in words why the pod failure policy ends the job, "" if it does not.
func (r *run) forbidden() string {
	for _, p := range r.Pods {
		if !r.failed(p) {
			continue
		}
		if action, why := match(r.Job.Spec.PodFailurePolicy, p); action == batchv1.PodFailurePolicyActionFailJob {
			return why
		}
	}
	return ""
}

// counts tells whether a failed pod counts against the limits.
func (r *run) counts(p *corev1.Pod) bool {
	action, _ := match(r.Job.Spec.PodFailurePolicy, p)
	return action != batchv1.PodFailurePolicyActionIgnore
}
