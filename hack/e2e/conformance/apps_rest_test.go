//go:build e2e

package conformance

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/retry"
)

var appsRest = []behaviour{
	{name: "Job should fail when its back-off limit or its deadline is exceeded", test: jobGivesUp},
	{name: "Job should be removed after its time to live", test: jobTimeToLive},
	{name: "Job should suspend, resume and be scaled while it runs", test: jobElastic},
	{name: "Job should replace pods only when they are gone, if asked to", test: jobReplaces},
	{name: "Job should be left alone when another manages it", test: jobManagedBy},
	{name: "CronJob should keep as many jobs as its limits say, and be started by hand", test: cronByHand},
	{name: "StatefulSet should start and end its pods together, and number them from where it is told", test: statefulParallel},
	{name: "StatefulSet should update a pod only when it is deleted, and wait for a pod to be ready for long enough", test: statefulOnDelete},
	{name: "StatefulSet should make claims, and take them away as its policy says", test: statefulClaims},
	{name: "Daemon set should update a pod only when it is deleted, or make the new one first", test: daemonStrategies},
	{name: "Deployment should be paused, rolled back, and told to have no progress", test: deploymentPaused},
	{name: "DisruptionController should count percentages, and let go of pods that were never ready", test: budgetShare},
	{name: "Workloads should refuse what may not change", test: workloadsFixed},
}

func jobGivesUp(w *world) {
	w.job("limit", "exit 1", func(j *batchv1.Job) { j.Spec.BackoffLimit = ptr(int32(0)) })
	w.job("deadline", "sleep 1000", func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr(int64(2)) })
	j := w.ended("limit", batchv1.JobFailed, "BackoffLimitExceeded")
	same("failed", j.Status.Failed, 1)
	j = w.ended("deadline", batchv1.JobFailed, "DeadlineExceeded")
	same("active", j.Status.Active, 0)
	w.event(20*time.Second, "limit", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
}

func jobTimeToLive(w *world) {
	w.job("short", "true", func(j *batchv1.Job) { j.Spec.TTLSecondsAfterFinished = ptr(int32(1)) })
	w.until(startLimit, "the job is gone", func() error {
		_, err := api.BatchV1().Jobs(w.ns).Get(ctx, "short", metav1.GetOptions{})
		return absent(err)
	})
	w.until(startLimit, "its pods are gone", func() error { return differs("pods", len(w.podsOf("job-name=short")), 0) })
}

func (w *world) patchJob(name, patch string) {
	w.Helper()
	must(api.BatchV1().Jobs(w.ns).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}))
}

func jobElastic(w *world) {
	w.job("elastic", "sleep 1000", indexed(2))
	w.count("job-name=elastic", 2)
	w.patchJob("elastic", `{"spec":{"parallelism":3,"completions":3}}`)
	w.count("job-name=elastic", 3)
	w.patchJob("elastic", `{"spec":{"suspend":true}}`)
	w.ended("elastic", batchv1.JobSuspended, "JobSuspended")
	w.count("job-name=elastic", 0)
	w.until(startLimit, "it has no start", func() error { return differs("start", w.getJob("elastic").Status.StartTime == nil, true) })
	w.patchJob("elastic", `{"spec":{"suspend":false}}`)
	w.count("job-name=elastic", 3)
	w.until(startLimit, "all are ready", func() error {
		r := w.getJob("elastic").Status.Ready
		return differs("ready", r != nil && *r == 3, true)
	})
	_, err := api.BatchV1().Jobs(w.ns).Patch(ctx, "elastic", types.MergePatchType, []byte(`{"spec":{"completions":5}}`), metav1.PatchOptions{})
	refused(err, apierrors.IsInvalid)
}

func jobReplaces(w *world) {
	w.job("late", "trap '' TERM; sleep 1000", func(j *batchv1.Job) {
		j.Spec.PodReplacementPolicy = ptr(batchv1.Failed)
		j.Spec.Template.Spec.TerminationGracePeriodSeconds = ptr(int64(6))
	})
	p := w.count("job-name=late", 1)[0]
	w.phase(p.Name, corev1.PodRunning)
	done(api.CoreV1().Pods(w.ns).Delete(ctx, p.Name, metav1.DeleteOptions{}))
	w.until(10*time.Second, "it is told as ending", func() error {
		t := w.getJob("late").Status.Terminating
		return differs("terminating", t != nil && *t == 1, true)
	})
	w.holds(2*time.Second, "no other is made", func() error { return differs("pods", len(w.podsOf("job-name=late")), 1) })
	w.until(startLimit, "another is made", func() error {
		now := w.podsOf("job-name=late")
		return differs("another", len(now) > 0 && now[len(now)-1].Name != p.Name, true)
	})
}

func jobManagedBy(w *world) {
	w.job("foreign", "true", func(j *batchv1.Job) { j.Spec.ManagedBy = ptr("example.com/other") })
	w.holds(3*time.Second, "nobody runs it", func() error { return differs("pods", len(w.podsOf("job-name=foreign")), 0) })
	same("started", w.getJob("foreign").Status.StartTime == nil, true)
}

func cronByHand(w *world) {
	w.cron(batchv1.AllowConcurrent, true)
	w.kubectl("create", "job", "by-hand", "--from=cronjob/cron")
	j := w.getJob("by-hand")
	same("annotation", j.Annotations["cronjob.kubernetes.io/instantiate"], "manual")
	same("owner", metav1.GetControllerOf(j).Name, "cron")
	w.until(30*time.Second, "the cron job knows it", func() error {
		c := must(api.BatchV1().CronJobs(w.ns).Get(ctx, "cron", metav1.GetOptions{}))
		return differs("active", len(c.Status.Active), 1)
	})
	must(api.BatchV1().CronJobs(w.ns).Patch(ctx, "cron", types.MergePatchType, []byte(`{"spec":{"timeZone":"Europe/Berlin","successfulJobsHistoryLimit":0}}`), metav1.PatchOptions{}))
	_, err := api.BatchV1().CronJobs(w.ns).Patch(ctx, "cron", types.MergePatchType, []byte(`{"spec":{"timeZone":"None/Such"}}`), metav1.PatchOptions{})
	refused(err, apierrors.IsInvalid)
	done(api.BatchV1().CronJobs(w.ns).Delete(ctx, "cron", propagating(metav1.DeletePropagationBackground)))
	w.until(startLimit, "its job goes with it", func() error {
		_, err := api.BatchV1().Jobs(w.ns).Get(ctx, "by-hand", metav1.GetOptions{})
		return absent(err)
	})
}

func statefulParallel(w *world) {
	w.statefulSet("ss", 3, func(s *appsv1.StatefulSet) {
		s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5}
		s.Spec.Template.Spec.Containers[0].ReadinessProbe.ProbeHandler = execProbe("test", "-e", "/tmp/go")
	})
	for _, p := range w.count("name=ss", 3) {
		w.phase(p.Name, corev1.PodRunning)
		same("index", p.Labels["apps.kubernetes.io/pod-index"], strings.TrimPrefix(p.Name, "ss-"))
		same("name", p.Labels["statefulset.kubernetes.io/pod-name"], p.Name)
		w.sh(p.Name, "touch /tmp/go")
	}
	w.get("ss-5")
	w.get("ss-7")
	w.statefulReady("ss", 3)
	w.statefulScaleTo("ss", 1)
	w.count("name=ss", 1)
	w.get("ss-5")
}

func statefulOnDelete(w *world) {
	w.statefulSet("ss", 1, func(s *appsv1.StatefulSet) {
		s.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
		s.Spec.MinReadySeconds = 3
	})
	w.statefulReady("ss", 1)
	same("available", must(api.AppsV1().StatefulSets(w.ns).Get(ctx, "ss", metav1.GetOptions{})).Status.AvailableReplicas, 0)
	w.until(20*time.Second, "available", func() error {
		return differs("available", must(api.AppsV1().StatefulSets(w.ns).Get(ctx, "ss", metav1.GetOptions{})).Status.AvailableReplicas, 1)
	})
	first := w.get("ss-0").UID
	must(api.AppsV1().StatefulSets(w.ns).Patch(ctx, "ss", types.StrategicMergePatchType, []byte(noted("second")), metav1.PatchOptions{}))
	w.holds(3*time.Second, "the pod stays", func() error { return differs("uid", w.get("ss-0").UID, first) })
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "ss-0", metav1.DeleteOptions{}))
	w.until(startLimit, "the new pod is of the new template", func() error {
		p, err := api.CoreV1().Pods(w.ns).Get(ctx, "ss-0", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return differs("note", p.Annotations["note"], "second")
	})
	must(api.AppsV1().StatefulSets(w.ns).Patch(ctx, "ss", types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/updateStrategy","value":{"type":"RollingUpdate"}},{"op":"remove","path":"/spec/template/metadata/annotations/note"}]`), metav1.PatchOptions{}))
	w.until(startLimit, "it goes back to the first revision", func() error {
		s := must(api.AppsV1().StatefulSets(w.ns).Get(ctx, "ss", metav1.GetOptions{}))
		p, err := api.CoreV1().Pods(w.ns).Get(ctx, "ss-0", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return differs("note", p.Annotations["note"]+p.Labels["controller-revision-hash"], s.Status.UpdateRevision)
	})
	same("revisions", len(must(api.AppsV1().ControllerRevisions(w.ns).List(ctx, metav1.ListOptions{})).Items), 2)
}

func statefulClaims(w *world) {
	w.statefulSet("ss", 2, func(s *appsv1.StatefulSet) {
		s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
		s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr("none-" + w.ns), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: gigabyte}}}}
	})
	claims := func(want ...string) {
		w.until(startLimit, "claims", func() error {
			var have []string
			for _, c := range must(api.CoreV1().PersistentVolumeClaims(w.ns).List(ctx, metav1.ListOptions{})).Items {
				if c.DeletionTimestamp == nil {
					have = append(have, c.Name)
				}
			}
			return differs("claims", strings.Join(have, " "), strings.Join(want, " "))
		})
	}
	claims("data-ss-0", "data-ss-1")
	w.count("name=ss", 2)
	w.statefulScaleTo("ss", 1)
	w.count("name=ss", 1)
	claims("data-ss-0")
	done(api.AppsV1().StatefulSets(w.ns).Delete(ctx, "ss", metav1.DeleteOptions{}))
	claims()
}

func daemonStrategies(w *world) {
	w.daemonSet("ds", func(d *appsv1.DaemonSet) { d.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType })
	n := int(w.daemonReady("ds").Status.DesiredNumberScheduled)
	must(api.AppsV1().DaemonSets(w.ns).Patch(ctx, "ds", types.StrategicMergePatchType, []byte(noted("second")), metav1.PatchOptions{}))
	w.holds(2*time.Second, "the old pods stay", func() error {
		for _, p := range w.podsOf("name=ds") {
			if p.Annotations["note"] != "" {
				return errGone
			}
		}
		return nil
	})
	gone := w.count("name=ds", n)[0]
	w.remove(gone.Name)
	w.until(startLimit, "one is new", func() error {
		fresh := 0
		for _, p := range w.podsOf("name=ds") {
			if p.Annotations["note"] == "second" && p.Spec.NodeName == gone.Spec.NodeName {
				fresh++
			}
		}
		return differs("new", fresh, 1)
	})
	must(api.AppsV1().DaemonSets(w.ns).Patch(ctx, "ds", types.StrategicMergePatchType, []byte(`{"spec":{"updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}}}`), metav1.PatchOptions{}))
	w.daemonReady("ds")
	w.until(startLimit, "all are new", func() error {
		for _, p := range w.count("name=ds", n) {
			if err := differs("note", p.Annotations["note"], "second"); err != nil {
				return err
			}
		}
		return nil
	})
}

func deploymentPaused(w *world) {
	w.deployment("d", 1, func(d *appsv1.Deployment) { d.Spec.ProgressDeadlineSeconds = ptr(int32(5)) })
	w.rolled("d")
	w.kubectl("rollout", "pause", "deployment/d")
	w.patchDeployment("d", noted("second"))
	w.holds(3*time.Second, "nothing is rolled out", func() error {
		return differs("sets", len(must(api.AppsV1().ReplicaSets(w.ns).List(ctx, metav1.ListOptions{})).Items), 1)
	})
	w.kubectl("rollout", "resume", "deployment/d")
	w.kubectl("rollout", "status", "deployment/d", "--timeout=60s")
	w.kubectl("rollout", "undo", "deployment/d")
	w.kubectl("rollout", "status", "deployment/d", "--timeout=60s")
	same("note", must(api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{})).Spec.Template.Annotations["note"], "")
	same("sets", len(must(api.AppsV1().ReplicaSets(w.ns).List(ctx, metav1.ListOptions{})).Items), 2)
	same("revision", must(api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{})).Annotations["deployment.kubernetes.io/revision"], "3")
	w.patchDeployment("d", `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"registry.sextant.local/none-such:1","imagePullPolicy":"Never"}]}}}}`)
	w.until(startLimit, "no progress", func() error {
		for _, c := range must(api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{})).Status.Conditions {
			if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse {
				return differs("reason", c.Reason, "ProgressDeadlineExceeded")
			}
		}
		return errGone
	})
}

func budgetShare(w *world) {
	pdbs := api.PolicyV1().PodDisruptionBudgets(w.ns)
	w.deployment("share", 3)
	w.rolled("share")
	must(pdbs.Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "share"}, Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr(intstr.FromString("34%")), Selector: selecting("share")}}, metav1.CreateOptions{}))
	w.until(30*time.Second, "the budget counts", func() error {
		s := must(pdbs.Get(ctx, "share", metav1.GetOptions{})).Status
		return differs("allowed, desired, expected", fmt.Sprint(s.DisruptionsAllowed, s.DesiredHealthy, s.ExpectedPods), "2 1 3")
	})
	w.create(pod("never-ready", sleepScript, first(func(c *corev1.Container) {
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: execProbe("false")}
	})))
	w.phase("never-ready", corev1.PodRunning)
	must(pdbs.Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "always"}, Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr(intstr.FromInt32(1)), Selector: selecting("never-ready"), UnhealthyPodEvictionPolicy: ptr(policyv1.AlwaysAllow)}}, metav1.CreateOptions{}))
	w.until(30*time.Second, "it may go", func() error {
		return api.CoreV1().Pods(w.ns).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "never-ready", Namespace: w.ns}})
	})
}

func workloadsFixed(w *world) {
	w.deployment("d", 0)
	w.statefulSet("s", 0)
	w.daemonSet("ds", func(d *appsv1.DaemonSet) { d.Spec.Template.Spec.NodeSelector = map[string]string{"none": "such"} })
	w.job("j", "true", func(j *batchv1.Job) { j.Spec.Suspend = ptr(true) })
	other := `{"spec":{"selector":{"matchLabels":{"name":"other"}},"template":{"metadata":{"labels":{"name":"other"}}}}}`
	for kind, patch := range map[string]string{"deployments/d": other, "daemonsets/ds": other, "statefulsets/s": `{"spec":{"serviceName":"other"}}`, "jobs/j": `{"spec":{"completionMode":"Indexed"}}`} {
		group := "apps"
		if strings.HasPrefix(kind, "jobs") {
			group = "batch"
		}
		err := api.Discovery().RESTClient().Patch(types.MergePatchType).AbsPath("/apis/" + group + "/v1/namespaces/" + w.ns + "/" + kind).Body([]byte(patch)).Do(ctx).Error()
		refused(err, apierrors.IsInvalid)
	}
	// Generations count what is asked for, not what is told of it.
	d := must(api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{}))
	same("generation", d.Generation, 1)
	must(api.AppsV1().Deployments(w.ns).Patch(ctx, "d", types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}},"status":{"replicas":7}}`), metav1.PatchOptions{}))
	done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		d := must(api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{}))
		same("generation", d.Generation, 1)
		same("replicas", d.Status.Replicas, 0)
		d.Spec.MinReadySeconds = 1
		_, err := api.AppsV1().Deployments(w.ns).Update(ctx, d, metav1.UpdateOptions{})
		return err
	}))
	same("generation", must(api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{})).Generation, 2)
}
