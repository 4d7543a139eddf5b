//go:build e2e

package conformance

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

var appsJobs = []behaviour{
	{name: "Job should run a job to completion when tasks sometimes fail and are locally restarted", test: jobRestarts},
	{name: "Job should create pods for an Indexed job with completion indexes and specified hostname", test: jobIndexed},
	{name: "Job should allow to use the pod failure policy on exit code to fail the job early", test: jobFailsEarly},
	{name: "Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition", test: jobIgnoresEviction},
	{name: "Job should execute all indexes despite some failing when using backoffLimitPerIndex", test: jobPerIndex},
	{name: "Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy", test: jobFailIndex},
	{name: "Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes", test: jobMaxFailed},
	{name: "Job with successPolicy should succeeded when all indexes succeeded", test: jobSuccess(nil)},
	{name: "Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending", test: jobSuccess(ptr("0"))},
	{name: "Job should adopt matching orphans and release non-matching pods", test: jobAdopts},
	{name: "Job should delete a job, apply changes to a job status and manage its lifecycle", test: jobLife},
	{name: "CronJob should support CronJob API operations", test: operations(kind{name: "CronJob", resource: "batch/v1 cronjobs", namespaced: true,
		manifest: `{"spec":{"schedule":"0 0 1 1 *","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}}}`,
		status:   `{"status":{"lastScheduleTime":"2020-01-01T00:00:00Z"}}`, statusPath: "status.lastScheduleTime", statusValue: "2020-01-01T00:00:00Z"})},
	{name: "CronJob should schedule multiple jobs concurrently", slow: true, test: cronAllows},
	{name: "CronJob should replace jobs when ReplaceConcurrent", slow: true, test: cronReplaces},
	{name: "CronJob should not schedule new jobs when ForbidConcurrent", slow: true, test: cronForbids},
	{name: "CronJob should not schedule jobs when suspended", slow: true, test: cronSuspended},
	{name: "Daemon set should run and stop simple daemon, retry creating failed daemon pods", test: daemonSimple},
	{name: "Daemon set should run and stop complex daemon", serial: true, test: daemonComplex},
	{name: "Daemon set should update pod when spec was updated and update strategy is RollingUpdate, and rollback without unnecessary restarts", test: daemonRolls},
	{name: "Daemon set should verify changes to a daemon set status, and delete a collection", test: daemonStatus},
	{name: "ControllerRevision should manage the lifecycle of a ControllerRevision", test: revisions},
}

func (w *world) job(name, script string, edits ...func(j *batchv1.Job)) *batchv1.Job {
	w.Helper()
	p := pod("", script)
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: p.Spec}}}
	for _, e := range edits {
		e(j)
	}
	return must(api.BatchV1().Jobs(w.ns).Create(ctx, j, metav1.CreateOptions{}))
}

func indexed(completions int32) func(j *batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.CompletionMode, j.Spec.Completions, j.Spec.Parallelism = ptr(batchv1.IndexedCompletion), &completions, &completions
	}
}

func (w *world) getJob(name string) *batchv1.Job {
	w.Helper()
	return must(api.BatchV1().Jobs(w.ns).Get(ctx, name, metav1.GetOptions{}))
}

// ended waits until a job has a condition, and answers the job.
func (w *world) ended(name string, kind batchv1.JobConditionType, reason string) *batchv1.Job {
	w.Helper()
	var j *batchv1.Job
	w.until(2*startLimit, "job "+name+" "+string(kind), func() error {
		j = w.getJob(name)
		for _, c := range j.Status.Conditions {
			if c.Type == kind && c.Status == corev1.ConditionTrue {
				return differs("reason", c.Reason, reason)
			}
		}
		return fmt.Errorf("conditions %v", j.Status.Conditions)
	})
	return j
}

func jobRestarts(w *world) {
	w.job("local", `if [ -e /etc/data/seen ]; then exit 0; fi; touch /etc/data/seen; exit 1`, func(j *batchv1.Job) {
		j.Spec.Parallelism, j.Spec.Completions = ptr(int32(2)), ptr(int32(4))
		s := &j.Spec.Template.Spec
		s.RestartPolicy = corev1.RestartPolicyOnFailure
		s.Volumes = []corev1.Volume{{Name: "data", VolumeSource: emptyDir("")}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/etc/data"}}
	})
	j := w.ended("local", batchv1.JobComplete, "CompletionsReached")
	same("succeeded", j.Status.Succeeded, 4)
}

func jobIndexed(w *world) {
	w.job("indexed", "exit 0", indexed(4))
	j := w.ended("indexed", batchv1.JobComplete, "CompletionsReached")
	same("indexes", j.Status.CompletedIndexes, "0-3")
	var seen []string
	for _, p := range w.podsOf("job-name=indexed") {
		i := p.Annotations["batch.kubernetes.io/job-completion-index"]
		seen = append(seen, i)
		same("label", p.Labels["batch.kubernetes.io/job-completion-index"], i)
		same("hostname", p.Spec.Hostname, "indexed-"+i)
		found := false
		for _, e := range p.Spec.Containers[0].Env {
			found = found || e.Name == "JOB_COMPLETION_INDEX"
		}
		same("environment", found, true)
	}
	slices.Sort(seen)
	same("indexes", strings.Join(seen, ""), "0123")
}

func onExit(action batchv1.PodFailurePolicyAction, codes ...int32) func(j *batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: codes}}}}
	}
}

func jobFailsEarly(w *world) {
	w.job("early", `[ $JOB_COMPLETION_INDEX = 0 ] && exit 3; sleep 1000`, indexed(2), onExit(batchv1.PodFailurePolicyActionFailJob, 3))
	j := w.ended("early", batchv1.JobFailed, "PodFailurePolicy")
	same("active", j.Status.Active, 0)
}

func jobIgnoresEviction(w *world) {
	w.job("ignore", `sleep 1000`, func(j *batchv1.Job) {
		j.Spec.BackoffLimit = ptr(int32(0))
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionIgnore,
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}}}}
	})
	var first string
	w.until(startLimit, "it runs", func() error {
		for _, p := range w.podsOf("job-name=ignore") {
			if ready(&p) {
				first = p.Name
				return nil
			}
		}
		return errGone
	})
	done(api.CoreV1().Pods(w.ns).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: first, Namespace: w.ns}}))
	w.until(startLimit, "another runs", func() error {
		for _, p := range w.podsOf("job-name=ignore") {
			if p.Name != first && ready(&p) {
				return nil
			}
		}
		return errGone
	})
	same("failed", len(w.getJob("ignore").Status.Conditions), 0)
}

func jobPerIndex(w *world) {
	w.job("per-index", `[ $((JOB_COMPLETION_INDEX % 2)) = 0 ] && exit 0; exit 1`, indexed(4), func(j *batchv1.Job) { j.Spec.BackoffLimitPerIndex = ptr(int32(1)) })
	j := w.ended("per-index", batchv1.JobFailed, "FailedIndexes")
	same("failed indexes", *j.Status.FailedIndexes, "1,3")
	same("completed indexes", j.Status.CompletedIndexes, "0,2")
	same("failed", j.Status.Failed, 4)
	same("succeeded", j.Status.Succeeded, 2)
}

func jobFailIndex(w *world) {
	w.job("fail-index", `[ $JOB_COMPLETION_INDEX = 0 ] && exit 0; exit 42`, indexed(2), onExit(batchv1.PodFailurePolicyActionFailIndex, 42), func(j *batchv1.Job) { j.Spec.BackoffLimitPerIndex = ptr(int32(1)) })
	j := w.ended("fail-index", batchv1.JobFailed, "FailedIndexes")
	same("failed indexes", *j.Status.FailedIndexes, "1")
	same("failed", j.Status.Failed, 1)
	same("succeeded", j.Status.Succeeded, 1)
}

func jobMaxFailed(w *world) {
	w.job("max-failed", `[ $JOB_COMPLETION_INDEX -lt 2 ] && exit 1; sleep 1000`, indexed(4), func(j *batchv1.Job) {
		j.Spec.BackoffLimitPerIndex, j.Spec.MaxFailedIndexes = ptr(int32(0)), ptr(int32(1))
	})
	j := w.ended("max-failed", batchv1.JobFailed, "MaxFailedIndexesExceeded")
	same("active", j.Status.Active, 0)
}

func jobSuccess(indexes *string) func(w *world) {
	return func(w *world) {
		script, n := "exit 0", int32(2)
		if indexes != nil {
			script, n = `[ $JOB_COMPLETION_INDEX = 0 ] && exit 0; sleep 1000`, 3
		}
		w.job("success", script, indexed(n), func(j *batchv1.Job) {
			rule := batchv1.SuccessPolicyRule{SucceededIndexes: indexes}
			if indexes == nil {
				rule.SucceededCount = &n
			}
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{rule}}
		})
		w.ended("success", batchv1.JobSuccessCriteriaMet, "SuccessPolicy")
		j := w.ended("success", batchv1.JobComplete, "SuccessPolicy")
		same("active", j.Status.Active, 0)
		if indexes != nil {
			same("indexes", j.Status.CompletedIndexes, "0")
		}
	}
}

func jobAdopts(w *world) {
	w.job("adopt", "sleep 1000", func(j *batchv1.Job) { j.Spec.Parallelism, j.Spec.Completions = ptr(int32(2)), ptr(int32(2)) })
	p := w.count("job-name=adopt", 2)[0]
	done(w.update(p.Name, func(p *corev1.Pod) { p.OwnerReferences = nil }))
	w.until(startLimit, "adopted", func() error { return differs("adopted", metav1.GetControllerOf(w.get(p.Name)) != nil, true) })
	done(w.update(p.Name, func(p *corev1.Pod) { p.Labels = nil }))
	w.until(startLimit, "released", func() error { return differs("released", metav1.GetControllerOf(w.get(p.Name)) == nil, true) })
}

func jobLife(w *world) {
	jobs := api.BatchV1().Jobs(w.ns)
	w.job("life", "sleep 1000", func(j *batchv1.Job) {
		j.Spec.Suspend = ptr(true)
		j.Spec.Parallelism, j.Spec.Completions = ptr(int32(2)), ptr(int32(4))
	})
	w.ended("life", batchv1.JobSuspended, "JobSuspended")
	must(jobs.Patch(ctx, "life", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"l":"patched"}},"spec":{"suspend":false}}`), metav1.PatchOptions{}))
	w.count("job-name=life", 2)
	same("listed", len(must(api.BatchV1().Jobs("").List(ctx, metav1.ListOptions{LabelSelector: "l=patched"})).Items) > 0, true)
	start := metav1.NewTime(time.Now().Truncate(time.Second))
	must(jobs.Patch(ctx, "life", types.MergePatchType, []byte(`{"metadata":{"annotations":{"patchedstatus":"true"}},"status":{}}`), metav1.PatchOptions{}, "status"))
	same("annotation", w.getJob("life").Annotations["patchedstatus"], "true")
	done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		j := w.getJob("life")
		if j.Status.StartTime == nil {
			j.Status.StartTime = &start
		}
		j.Annotations["updatedstatus"] = "true"
		_, err := jobs.UpdateStatus(ctx, j, metav1.UpdateOptions{})
		return err
	}))
	done(jobs.Delete(ctx, "life", metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationForeground)}))
	w.until(startLimit, "deleted", func() error {
		_, err := jobs.Get(ctx, "life", metav1.GetOptions{})
		return absent(err)
	})
	w.count("job-name=life", 0)
}

func (w *world) cron(policy batchv1.ConcurrencyPolicy, suspend bool) {
	w.Helper()
	p := pod("", "sleep 300")
	must(api.BatchV1().CronJobs(w.ns).Create(ctx, &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "cron"}, Spec: batchv1.CronJobSpec{Schedule: "*/1 * * * ?", ConcurrencyPolicy: policy, Suspend: &suspend,
		JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: p.Spec}}}}}, metav1.CreateOptions{}))
}

func (w *world) cronActive(n int) {
	w.Helper()
	w.until(150*time.Second, "active jobs", func() error {
		c := must(api.BatchV1().CronJobs(w.ns).Get(ctx, "cron", metav1.GetOptions{}))
		return differs("active", len(c.Status.Active), n)
	})
}

func cronAllows(w *world) {
	w.cron(batchv1.AllowConcurrent, false)
	w.cronActive(2)
}

func cronReplaces(w *world) {
	w.cron(batchv1.ReplaceConcurrent, false)
	w.cronActive(1)
	first := must(api.BatchV1().CronJobs(w.ns).Get(ctx, "cron", metav1.GetOptions{})).Status.Active[0].Name
	w.until(90*time.Second, "replaced", func() error {
		c := must(api.BatchV1().CronJobs(w.ns).Get(ctx, "cron", metav1.GetOptions{}))
		return differs("replaced", len(c.Status.Active) == 1 && c.Status.Active[0].Name != first, true)
	})
}

func cronForbids(w *world) {
	w.cron(batchv1.ForbidConcurrent, false)
	w.cronActive(1)
	w.holds(65*time.Second, "one job", func() error {
		return differs("jobs", len(must(api.BatchV1().Jobs(w.ns).List(ctx, metav1.ListOptions{})).Items), 1)
	})
}

func cronSuspended(w *world) {
	w.cron(batchv1.AllowConcurrent, true)
	w.holds(70*time.Second, "no job", func() error {
		return differs("jobs", len(must(api.BatchV1().Jobs(w.ns).List(ctx, metav1.ListOptions{})).Items), 0)
	})
}

func (w *world) daemonSet(name string, edits ...func(d *appsv1.DaemonSet)) *appsv1.DaemonSet {
	w.Helper()
	d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, Spec: appsv1.DaemonSetSpec{Selector: selecting(name), Template: template(name)}}
	for _, e := range edits {
		e(d)
	}
	return must(api.AppsV1().DaemonSets(w.ns).Create(ctx, d, metav1.CreateOptions{}))
}

// daemonReady waits until the set runs everywhere it should.
func (w *world) daemonReady(name string) *appsv1.DaemonSet {
	w.Helper()
	var d *appsv1.DaemonSet
	w.until(2*startLimit, "daemon set "+name, func() error {
		d = must(api.AppsV1().DaemonSets(w.ns).Get(ctx, name, metav1.GetOptions{}))
		s := d.Status
		if s.ObservedGeneration < d.Generation || s.DesiredNumberScheduled == 0 || s.NumberReady != s.DesiredNumberScheduled || s.UpdatedNumberScheduled != s.DesiredNumberScheduled || s.NumberAvailable != s.DesiredNumberScheduled {
			return fmt.Errorf("status %v", s)
		}
		return nil
	})
	return d
}

func daemonSimple(w *world) {
	w.daemonSet("ds")
	d := w.daemonReady("ds")
	n := int(d.Status.DesiredNumberScheduled)
	p := w.count("name=ds", n)[0]
	w.remove(p.Name)
	w.count("name=ds", n)
	w.daemonReady("ds")
	failed := w.count("name=ds", n)[0]
	failed.Status.Phase, failed.ResourceVersion = corev1.PodFailed, ""
	must(api.CoreV1().Pods(w.ns).UpdateStatus(ctx, &failed, metav1.UpdateOptions{}))
	w.until(startLimit, "the failed pod is replaced", func() error {
		now, err := api.CoreV1().Pods(w.ns).Get(ctx, failed.Name, metav1.GetOptions{})
		if err == nil && now.UID == failed.UID && now.DeletionTimestamp == nil {
			return errGone
		}
		return nil
	})
	w.daemonReady("ds")
}

func daemonComplex(w *world) {
	node := w.node().Name
	label := func(value string) {
		must(api.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(`{"metadata":{"labels":{"daemonset-color":`+value+`}}}`), metav1.PatchOptions{}))
	}
	w.Cleanup(func() { label("null") })
	w.daemonSet("ds", func(d *appsv1.DaemonSet) {
		d.Spec.Template.Spec.NodeSelector = map[string]string{"daemonset-color": "blue"}
	})
	w.count("name=ds", 0)
	label(`"blue"`)
	w.count("name=ds", 1)
	label(`"green"`)
	w.count("name=ds", 0)
	must(api.AppsV1().DaemonSets(w.ns).Patch(ctx, "ds", types.StrategicMergePatchType, []byte(`{"spec":{"updateStrategy":{"type":"RollingUpdate"},"template":{"spec":{"nodeSelector":{"daemonset-color":"green"}}}}}`), metav1.PatchOptions{}))
	w.until(startLimit, "its pod is on the node", func() error { return differs("node", w.count("name=ds", 1)[0].Spec.NodeName, node) })
}

func daemonRolls(w *world) {
	w.daemonSet("ds")
	n := int(w.daemonReady("ds").Status.DesiredNumberScheduled)
	old := map[types.UID]bool{}
	for _, p := range w.count("name=ds", n) {
		old[p.UID] = true
	}
	must(api.AppsV1().DaemonSets(w.ns).Patch(ctx, "ds", types.StrategicMergePatchType, []byte(noted("second")), metav1.PatchOptions{}))
	w.daemonReady("ds")
	var hash string
	for _, p := range w.count("name=ds", n) {
		same("old", old[p.UID], false)
		same("note", p.Annotations["note"], "second")
		hash, old[p.UID] = p.Labels["controller-revision-hash"], true
	}
	// A template that cannot start, taken back: what ran goes on.
	must(api.AppsV1().DaemonSets(w.ns).Patch(ctx, "ds", types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"registry.sextant.local/none-such:1","imagePullPolicy":"Never"}]}}}}`), metav1.PatchOptions{}))
	w.until(startLimit, "one new pod is stuck", func() error {
		for _, p := range w.podsOf("name=ds") {
			if p.Spec.Containers[0].Image != image && p.Status.Phase == corev1.PodPending && len(p.Status.ContainerStatuses) > 0 {
				return nil
			}
		}
		return errGone
	})
	must(api.AppsV1().DaemonSets(w.ns).Patch(ctx, "ds", types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"`+image+`","imagePullPolicy":"IfNotPresent"}]}}}}`), metav1.PatchOptions{}))
	w.daemonReady("ds")
	kept := 0
	for _, p := range w.count("name=ds", n) {
		same("revision", p.Labels["controller-revision-hash"], hash)
		if old[p.UID] {
			kept++
		}
		same("restarts", restarts(&p), 0)
	}
	same("kept", kept, n-1)
}

func daemonStatus(w *world) {
	w.daemonSet("ds")
	w.daemonReady("ds")
	w.statuses("daemonsets", "ds")
	done(api.AppsV1().DaemonSets(w.ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "name=ds"}))
	w.count("name=ds", 0)
}

func revisions(w *world) {
	crs := api.AppsV1().ControllerRevisions(w.ns)
	w.daemonSet("ds")
	w.daemonReady("ds")
	list := func(want int) []appsv1.ControllerRevision {
		var items []appsv1.ControllerRevision
		w.until(30*time.Second, "revisions", func() error {
			items = must(crs.List(ctx, metav1.ListOptions{LabelSelector: "name=ds"})).Items
			return differs("revisions", len(items), want)
		})
		return items
	}
	first := list(1)[0]
	same("owner", first.OwnerReferences[0].Kind, "DaemonSet")
	must(crs.Patch(ctx, first.Name, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"`+first.Name+`":"patched"}}}`), metav1.PatchOptions{}))
	copied := first.DeepCopy()
	copied.Name, copied.ResourceVersion, copied.UID, copied.Revision = "made-by-hand", "", "", 2
	must(crs.Create(ctx, copied, metav1.CreateOptions{}))
	list(2)
	done(crs.Delete(ctx, "made-by-hand", metav1.DeleteOptions{}))
	list(1)
	must(api.AppsV1().DaemonSets(w.ns).Patch(ctx, "ds", types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":2}}}}`), metav1.PatchOptions{}))
	list(2)
	w.daemonReady("ds")
	done(crs.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: first.Name + "=patched"}))
	list(1)
}
