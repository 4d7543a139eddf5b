package controllermanager

import (
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func (s *space) deployment(n int32) *appsv1.Deployment {
	s.t.Helper()
	d, err := s.admin.AppsV1().Deployments(s.ns).Create(s.t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: appLabels}, Template: template()},
	}, metav1.CreateOptions{})
	s.ok(err)
	return d
}

func driveDeployment(s *space) {
	s.deployment(3)
	s.play(corev1.PodRunning, 3)
	s.wait("the deployment", func() error {
		d, err := s.admin.AppsV1().Deployments(s.ns).Get(s.t.Context(), "web", metav1.GetOptions{})
		if err == nil && (d.Status.AvailableReplicas != 3 || d.Annotations["deployment.kubernetes.io/revision"] != "1") {
			return fmt.Errorf("%v %v", d.Annotations, d.Status)
		}
		return err
	})
	s.event("web", "ScalingReplicaSet", "deployment-controller")
	sets, err := s.admin.AppsV1().ReplicaSets(s.ns).List(s.t.Context(), metav1.ListOptions{})
	s.ok(err)
	s.event(sets.Items[0].Name, "SuccessfulCreate", "replicaset-controller")
	_, err = s.admin.AppsV1().Deployments(s.ns).Patch(s.t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{})
	s.ok(err)
	s.play(corev1.PodRunning, 1)
}

func driveStatefulSet(s *space) {
	_, err := s.admin.AppsV1().StatefulSets(s.ns).Create(s.t.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: appLabels}, Template: template(), ServiceName: "db",
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		}}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	s.play(corev1.PodRunning, 1) // the second waits for the first
	s.play(corev1.PodRunning, 2)
	s.wait("the set", func() error {
		d, err := s.admin.AppsV1().StatefulSets(s.ns).Get(s.t.Context(), "db", metav1.GetOptions{})
		if err == nil && d.Status.AvailableReplicas != 2 {
			return fmt.Errorf("%v", d.Status)
		}
		return err
	})
	_, err = s.admin.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), "data-db-1", metav1.GetOptions{})
	s.ok(err)
	s.event("db", "SuccessfulCreate", "statefulset-controller")
	set, err := s.admin.AppsV1().StatefulSets(s.ns).Get(s.t.Context(), "db", metav1.GetOptions{})
	s.ok(err)
	for _, p := range s.pods() {
		if p.Labels[appsv1.ControllerRevisionHashLabelKey] != set.Status.CurrentRevision {
			s.t.Errorf("%s is labelled %v, the revision is %s", p.Name, p.Labels, set.Status.CurrentRevision)
		}
	}
	_, err = s.admin.AppsV1().StatefulSets(s.ns).Patch(s.t.Context(), "db", types.MergePatchType, []byte(`{"spec":{"replicas":1,"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Delete"}}}`), metav1.PatchOptions{})
	s.ok(err)
	s.wait("the claim to belong to its pod", func() error {
		c, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), "data-db-1", metav1.GetOptions{})
		if err == nil && (len(c.OwnerReferences) != 1 || c.OwnerReferences[0].Name != "db-1") {
			return fmt.Errorf("it belongs to %v", c.OwnerReferences)
		}
		if apierrors.IsNotFound(err) { // it went with it already
			return nil
		}
		return err
	})
}

func driveJob(s *space) {
	_, err := s.admin.BatchV1().Jobs(s.ns).Create(s.t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "sum"}, Spec: batchv1.JobSpec{
		Parallelism: new(int32(2)), Completions: new(int32(2)), Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: template().Spec.Containers}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	s.play(corev1.PodSucceeded, 2)
	s.wait("the job", func() error {
		j, err := s.admin.BatchV1().Jobs(s.ns).Get(s.t.Context(), "sum", metav1.GetOptions{})
		if err == nil && (j.Status.Succeeded != 2 || j.Status.CompletionTime == nil) {
			return fmt.Errorf("%v", j.Status)
		}
		return err
	})
	for _, p := range s.pods() {
		if len(p.Finalizers) > 0 {
			s.t.Errorf("%s keeps its finalizers %v", p.Name, p.Finalizers)
		}
	}
	s.event("sum", "Completed", "job-controller")
	_, err = s.admin.BatchV1().Jobs(s.ns).Create(s.t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "given-up"}, Spec: batchv1.JobSpec{
		CompletionMode: new(batchv1.IndexedCompletion), Parallelism: new(int32(2)), Completions: new(int32(2)), BackoffLimitPerIndex: new(int32(0)),
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: template().Spec.Containers}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	s.wait("pods of each index", func() error {
		have := map[string]bool{}
		for _, p := range s.pods() {
			have[p.Annotations[batchv1.JobCompletionIndexAnnotation]] = true
		}
		if !have["0"] || !have["1"] {
			return fmt.Errorf("%v", have)
		}
		return nil
	})
	background := metav1.DeletePropagationBackground
	s.ok(s.admin.BatchV1().Jobs(s.ns).Delete(s.t.Context(), "given-up", metav1.DeleteOptions{PropagationPolicy: &background}))
	s.wait("the end of its pods", func() error {
		for _, p := range s.pods() {
			if p.Annotations[batchv1.JobCompletionIndexAnnotation] != "" {
				return fmt.Errorf("%s with finalizers %v", p.Name, p.Finalizers)
			}
		}
		return nil
	})
}

// driveReplication lets a replication controller adopt a pod, make another, let one go, and say that it may not.
func driveReplication(s *space) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "orphan", Labels: appLabels}, Spec: template().Spec}
	s.wait("a pod", func() error {
		_, err := s.admin.CoreV1().Pods(s.ns).Create(s.t.Context(), p, metav1.CreateOptions{})
		return err
	})
	if s.silent { // an orphan that is not seen yet is not adopted
		time.Sleep(3 * lateness)
	}
	pod := template()
	_, err := s.admin.CoreV1().ReplicationControllers(s.ns).Create(s.t.Context(), &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "rc"}, Spec: corev1.ReplicationControllerSpec{
		Replicas: new(int32(2)), Selector: appLabels, Template: &pod,
	}}, metav1.CreateOptions{})
	s.ok(err)
	s.play(corev1.PodRunning, 2)
	s.wait("the orphan to be adopted", func() error {
		p, err := s.admin.CoreV1().Pods(s.ns).Get(s.t.Context(), "orphan", metav1.GetOptions{})
		if err == nil && metav1.GetControllerOf(p) == nil {
			return errors.New("it is an orphan")
		}
		return err
	})
	if s.silent { // a new quota counts what is seen
		time.Sleep(3 * lateness)
	}
	_, err = s.admin.CoreV1().ResourceQuotas(s.ns).Create(s.t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"pods": resource.MustParse("2")}}}, metav1.CreateOptions{})
	s.ok(err)
	s.wait("the quota", func() error {
		q, err := s.admin.CoreV1().ResourceQuotas(s.ns).Get(s.t.Context(), "q", metav1.GetOptions{})
		if used := q.Status.Used["pods"]; err == nil && used.String() != "2" {
			return fmt.Errorf("%v", q.Status.Used)
		}
		return err
	})
	_, err = s.admin.CoreV1().Pods(s.ns).Patch(s.t.Context(), "orphan", types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"other"}}}`), metav1.PatchOptions{})
	s.ok(err)
	s.wait("the pod to be let go, and the failure to replace it to be told", func() error {
		p, err := s.admin.CoreV1().Pods(s.ns).Get(s.t.Context(), "orphan", metav1.GetOptions{})
		if err != nil || metav1.GetControllerOf(p) != nil {
			return fmt.Errorf("it is still owned: %v", err)
		}
		rc, err := s.admin.CoreV1().ReplicationControllers(s.ns).Get(s.t.Context(), "rc", metav1.GetOptions{})
		if err == nil && (len(rc.Status.Conditions) != 1 || rc.Status.Conditions[0].Type != corev1.ReplicationControllerReplicaFailure) {
			return fmt.Errorf("%v", rc.Status)
		}
		return err
	})
	s.ok(s.admin.CoreV1().ResourceQuotas(s.ns).Delete(s.t.Context(), "q", metav1.DeleteOptions{}))
	s.wait("the failure to be over", func() error {
		rc, err := s.admin.CoreV1().ReplicationControllers(s.ns).Get(s.t.Context(), "rc", metav1.GetOptions{})
		if err == nil && (len(rc.Status.Conditions) != 0 || rc.Status.Replicas != 2) {
			return fmt.Errorf("%v", rc.Status)
		}
		return err
	})
	s.event("rc", "SuccessfulCreate", "replication-controller")
}

// driveCron lets a job's time come; it ends, and goes after its time.
func driveCron(s *space) {
	cj, err := s.admin.BatchV1().CronJobs(s.ns).Create(s.t.Context(), &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "tick"}, Spec: batchv1.CronJobSpec{
		Schedule: "@every 1s", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
			TTLSecondsAfterFinished: new(int32(0)), Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: template().Spec.Containers}},
		}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	// A job that is made is written down as long as it is there, whoever dies in between. One that ended and went before the next life
	// looked leaves no trace, since nothing is due while it is suspended: so none ends before.
	s.wait("a job with a pod to be written down", func() error {
		cj, err := s.admin.BatchV1().CronJobs(s.ns).Get(s.t.Context(), cj.Name, metav1.GetOptions{})
		if err == nil && (cj.Status.LastScheduleTime == nil || len(s.pods()) == 0) {
			return fmt.Errorf("%v", cj.Status)
		}
		return err
	})
	_, err = s.admin.BatchV1().CronJobs(s.ns).Patch(s.t.Context(), cj.Name, types.MergePatchType, []byte(`{"spec":{"suspend":true}}`), metav1.PatchOptions{})
	s.ok(err)
	s.event("tick", "SuccessfulCreate", "cronjob-controller")
	s.wait("the jobs to be over and gone", func() error {
		for _, p := range s.pods() {
			p.Status.Phase = corev1.PodSucceeded
			if _, err := s.admin.CoreV1().Pods(s.ns).UpdateStatus(s.t.Context(), &p, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return err
			}
		}
		cj, err := s.admin.BatchV1().CronJobs(s.ns).Get(s.t.Context(), cj.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		jobs, err := s.admin.BatchV1().Jobs(s.ns).List(s.t.Context(), metav1.ListOptions{})
		if err == nil && (len(jobs.Items) > 0 || len(cj.Status.Active) > 0 || cj.Status.LastSuccessfulTime == nil && cj.Status.LastScheduleTime == nil) {
			return fmt.Errorf("%d jobs, %v", len(jobs.Items), cj.Status)
		}
		return err
	})
}

// driveAutoscaler brings a deployment within its bounds, and says that nobody serves metrics.
func driveAutoscaler(s *space) {
	s.deployment(3)
	_, err := s.admin.AutoscalingV2().HorizontalPodAutoscalers(s.ns).Create(s.t.Context(), &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, MaxReplicas: 2,
		Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(80))},
		}}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	s.event("web", "SuccessfulRescale", "horizontal-pod-autoscaler")
	const silent = "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"
	s.wait("two replicas, and a word about metrics", func() error {
		d, err := s.admin.AppsV1().Deployments(s.ns).Get(s.t.Context(), "web", metav1.GetOptions{})
		if err != nil || *d.Spec.Replicas != 2 {
			return fmt.Errorf("%d replicas, %v", *d.Spec.Replicas, err)
		}
		h, err := s.admin.AutoscalingV2().HorizontalPodAutoscalers(s.ns).Get(s.t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range h.Status.Conditions {
			if c.Type == autoscalingv2.ScalingActive && c.Reason == "FailedGetResourceMetric" && c.Message == "the HPA was unable to compute the replica count: "+silent {
				return nil
			}
		}
		return fmt.Errorf("%v", h.Status)
	})
	for reason, message := range map[string]string{
		"FailedGetResourceMetric":      silent,
		"FailedComputeMetricsReplicas": "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: " + silent,
	} {
		s.event("web", reason, "horizontal-pod-autoscaler")
		if s.crashing || s.silent {
			continue
		}
		list, err := s.admin.CoreV1().Events(s.ns).List(s.t.Context(), metav1.ListOptions{FieldSelector: "reason=" + reason})
		s.ok(err)
		if len(list.Items) == 0 || list.Items[0].Message != message {
			s.t.Errorf("%s: %v", reason, list.Items)
		}
	}
}
