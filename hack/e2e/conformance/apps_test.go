//go:build e2e

package conformance

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/retry"
)

var apps = []behaviour{
	{name: "ReplicaSet should serve a basic image on each replica", test: replicaSetServes},
	{name: "ReplicaSet should adopt matching pods on creation and release no longer matching pods", test: replicaSetAdopts},
	{name: "ReplicaSet should have a working scale subresource and validate its status endpoints", test: replicaSetScale},
	{name: "ReplicaSet should surface a failure condition on a common issue like exceeded quota", test: quotaFailure(false)},
	{name: "ReplicationController should surface a failure condition on a common issue like exceeded quota", test: quotaFailure(true)},
	{name: "ReplicationController should adopt matching pods, release others, be scaled and deleted", test: controllerLife},
	{name: "Deployment RollingUpdateDeployment should delete old pods and create new ones", test: deploymentRolls},
	{name: "Deployment RecreateDeployment should delete old pods and create new ones", test: deploymentRecreates},
	{name: "Deployment should delete old replica sets", test: deploymentHistory},
	{name: "Deployment should support rollover", test: deploymentRollover},
	{name: "Deployment should support proportional scaling", test: deploymentProportional},
	{name: "Deployment should run the lifecycle of a Deployment and validate its status endpoints", test: deploymentLife},
	{name: "StatefulSet Scaling should happen in predictable order and halt if any stateful pod is unhealthy", test: statefulOrder},
	{name: "StatefulSet should perform canary updates and phased rolling updates of template modifications", test: statefulCanary},
	{name: "StatefulSet Should recreate evicted statefulset", test: statefulEvicted},
	{name: "StatefulSet should have a working scale subresource and validate its status endpoints", test: statefulScale},
	{name: "DisruptionController should observe PodDisruptionBudget status updated, block an eviction until the PDB is updated to allow it", test: budget},
	{name: "DisruptionController should create, list, update and patch a PodDisruptionBudget and its status", test: operations(kind{name: "PodDisruptionBudget", resource: "policy/v1 poddisruptionbudgets", namespaced: true,
		manifest: `{"spec":{"minAvailable":1,"selector":{"matchLabels":{"none":"such"}}}}`, status: `{"metadata":{"annotations":{"status":"patched"}},"status":{"disruptedPods":{"p":"2020-01-01T00:00:00Z"}}}`, statusPath: "metadata.annotations.status", statusValue: "patched"})},
}

func template(name string) corev1.PodTemplateSpec {
	p := pod("", sleepScript, restart(corev1.RestartPolicyAlways))
	p.Labels = map[string]string{"name": name}
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: p.Labels}, Spec: p.Spec}
}

func selecting(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"name": name}}
}

func (w *world) podsOf(selector string) []corev1.Pod {
	w.Helper()
	return must(api.CoreV1().Pods(w.ns).List(ctx, metav1.ListOptions{LabelSelector: selector})).Items
}

// count waits until so many live pods match.
func (w *world) count(selector string, want int) []corev1.Pod {
	w.Helper()
	var live []corev1.Pod
	w.until(startLimit, fmt.Sprintf("%d pods of %s", want, selector), func() error {
		live = nil
		for _, p := range w.podsOf(selector) {
			if p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
				live = append(live, p)
			}
		}
		return differs("pods", len(live), want)
	})
	return live
}

func (w *world) replicaSet(name string, n int32, edits ...func(s *appsv1.ReplicaSet)) *appsv1.ReplicaSet {
	w.Helper()
	s := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, Spec: appsv1.ReplicaSetSpec{Replicas: &n, Selector: selecting(name), Template: template(name)}}
	for _, e := range edits {
		e(s)
	}
	return must(api.AppsV1().ReplicaSets(w.ns).Create(ctx, s, metav1.CreateOptions{}))
}

func replicaSetServes(w *world) {
	w.replicas("serves", 2)
	for _, p := range w.count("name=serves", 2) {
		text, err := w.raw("GET", "/pods/"+p.Name+":8080/proxy/hostname")
		done(err)
		same("answer", text, p.Name)
	}
}

func replicaSetAdopts(w *world) {
	w.create(pod("adopt", sleepScript, restart(corev1.RestartPolicyAlways)))
	s := w.replicaSet("adopt", 1)
	w.until(30*time.Second, "adopted", func() error {
		o := metav1.GetControllerOf(w.get("adopt"))
		return differs("adopted", o != nil && o.UID == s.UID, true)
	})
	done(w.update("adopt", func(p *corev1.Pod) { p.Labels["name"] = "not-matching-name" }))
	w.until(30*time.Second, "released", func() error { return differs("released", metav1.GetControllerOf(w.get("adopt")) == nil, true) })
	w.count("name=adopt", 1)
}

func replicaSetScale(w *world) {
	sets := api.AppsV1().ReplicaSets(w.ns)
	w.replicaSet("scale", 1)
	w.count("name=scale", 1)
	scale := must(sets.GetScale(ctx, "scale", metav1.GetOptions{}))
	same("replicas", scale.Spec.Replicas, 1)
	scale.ResourceVersion, scale.Spec.Replicas = "", 2
	same("replicas", must(sets.UpdateScale(ctx, "scale", scale, metav1.UpdateOptions{})).Spec.Replicas, 2)
	same("replicas", *must(sets.Get(ctx, "scale", metav1.GetOptions{})).Spec.Replicas, 2)
	must(sets.Patch(ctx, "scale", types.StrategicMergePatchType, []byte(`{"spec":{"replicas":3}}`), metav1.PatchOptions{}, "scale"))
	w.count("name=scale", 3)
	w.statuses("replicasets", "scale")
}

// statuses reads, updates and patches a status subresource of apps/v1, whose conditions users may add to.
func (w *world) statuses(plural, name string) {
	w.Helper()
	c := dyn.Resource(appsv1.SchemeGroupVersion.WithResource(plural)).Namespace(w.ns)
	must(c.Get(ctx, name, metav1.GetOptions{}, "status"))
	done(retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		u := must(c.Get(ctx, name, metav1.GetOptions{}))
		status, _ := u.Object["status"].(map[string]any)
		have, _ := status["conditions"].([]any)
		status["conditions"] = append(have, map[string]any{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"})
		u, err := c.UpdateStatus(ctx, u, metav1.UpdateOptions{})
		if err == nil {
			contains(at2(u.Object, "status.conditions"), "StatusUpdate")
		}
		return err
	}))
	u := must(c.Patch(ctx, name, types.MergePatchType, []byte(`{"status":{"conditions":[{"type":"StatusPatched","status":"True"}]}}`), metav1.PatchOptions{}, "status"))
	contains(at2(u.Object, "status.conditions"), "StatusPatched")
}

func quotaFailure(controller bool) func(w *world) {
	return func(w *world) {
		must(api.CoreV1().ResourceQuotas(w.ns).Create(ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("2")}}}, metav1.CreateOptions{}))
		w.until(20*time.Second, "the quota counts", func() error {
			q := must(api.CoreV1().ResourceQuotas(w.ns).Get(ctx, "q", metav1.GetOptions{}))
			return differs("hard pods", q.Status.Hard.Pods().String(), "2")
		})
		failing := func() bool {
			if controller {
				for _, c := range must(api.CoreV1().ReplicationControllers(w.ns).Get(ctx, "q", metav1.GetOptions{})).Status.Conditions {
					if c.Type == corev1.ReplicationControllerReplicaFailure {
						return true
					}
				}
				return false
			}
			for _, c := range must(api.AppsV1().ReplicaSets(w.ns).Get(ctx, "q", metav1.GetOptions{})).Status.Conditions {
				if c.Type == appsv1.ReplicaSetReplicaFailure {
					return true
				}
			}
			return false
		}
		if controller {
			t := template("q")
			must(api.CoreV1().ReplicationControllers(w.ns).Create(ctx, &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ReplicationControllerSpec{Replicas: ptr(int32(3)), Template: &t}}, metav1.CreateOptions{}))
		} else {
			w.replicaSet("q", 3)
		}
		w.until(startLimit, "the failure shows", func() error { return differs("failing", failing(), true) })
		scaleDown := []byte(`{"spec":{"replicas":2}}`)
		if controller {
			must(api.CoreV1().ReplicationControllers(w.ns).Patch(ctx, "q", types.MergePatchType, scaleDown, metav1.PatchOptions{}))
		} else {
			must(api.AppsV1().ReplicaSets(w.ns).Patch(ctx, "q", types.MergePatchType, scaleDown, metav1.PatchOptions{}))
		}
		w.until(startLimit, "the failure goes", func() error { return differs("failing", failing(), false) })
	}
}

func controllerLife(w *world) {
	rcs := api.CoreV1().ReplicationControllers(w.ns)
	w.create(pod("rc", sleepScript, restart(corev1.RestartPolicyAlways)))
	t := template("rc")
	rc := must(rcs.Create(ctx, &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "rc", Labels: map[string]string{"l": "v"}}, Spec: corev1.ReplicationControllerSpec{Replicas: ptr(int32(1)), Selector: t.Labels, Template: &t}}, metav1.CreateOptions{}))
	w.until(30*time.Second, "adopted", func() error {
		o := metav1.GetControllerOf(w.get("rc"))
		return differs("adopted", o != nil && o.UID == rc.UID, true)
	})
	done(w.update("rc", func(p *corev1.Pod) { p.Labels["name"] = "other" }))
	w.until(30*time.Second, "released", func() error { return differs("released", metav1.GetControllerOf(w.get("rc")) == nil, true) })
	scale := must(rcs.GetScale(ctx, "rc", metav1.GetOptions{}))
	scale.ResourceVersion, scale.Spec.Replicas = "", 2
	must(rcs.UpdateScale(ctx, "rc", scale, metav1.UpdateOptions{}))
	w.count("name=rc", 2)
	must(rcs.Patch(ctx, "rc", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"l":"patched"}},"spec":{"replicas":1}}`), metav1.PatchOptions{}))
	must(rcs.Patch(ctx, "rc", types.MergePatchType, []byte(`{"status":{"readyReplicas":0,"availableReplicas":0}}`), metav1.PatchOptions{}, "status"))
	w.count("name=rc", 1)
	w.until(30*time.Second, "ready again", func() error {
		return differs("ready replicas", must(rcs.Get(ctx, "rc", metav1.GetOptions{})).Status.ReadyReplicas, 1)
	})
	done(rcs.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "l=patched"}))
	w.count("name=rc", 0)
}

func (w *world) deployment(name string, n int32, edits ...func(d *appsv1.Deployment)) *appsv1.Deployment {
	w.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, Spec: appsv1.DeploymentSpec{Replicas: &n, Selector: selecting(name), Template: template(name)}}
	for _, e := range edits {
		e(d)
	}
	d = must(api.AppsV1().Deployments(w.ns).Create(ctx, d, metav1.CreateOptions{}))
	return d
}

// rolled waits until a deployment's newest template is all there is.
func (w *world) rolled(name string) *appsv1.Deployment {
	w.Helper()
	var d *appsv1.Deployment
	w.until(2*startLimit, "deployment "+name+" rolled out", func() error {
		d = must(api.AppsV1().Deployments(w.ns).Get(ctx, name, metav1.GetOptions{}))
		s, n := d.Status, *d.Spec.Replicas
		if s.ObservedGeneration < d.Generation || s.UpdatedReplicas != n || s.Replicas != n || s.AvailableReplicas != n || s.UnavailableReplicas != 0 {
			return fmt.Errorf("status %v", s)
		}
		return nil
	})
	return d
}

func (w *world) patchDeployment(name, patch string) {
	w.Helper()
	must(api.AppsV1().Deployments(w.ns).Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}))
}

func noted(value string) string {
	return `{"spec":{"template":{"metadata":{"annotations":{"note":"` + value + `"}}}}}`
}

func deploymentRolls(w *world) {
	old := w.replicaSet("roll", 1, func(s *appsv1.ReplicaSet) {
		s.Annotations = map[string]string{"deployment.kubernetes.io/revision": "3546343826724305832"}
	})
	w.count("name=roll", 1)
	w.deployment("roll", 1, func(d *appsv1.Deployment) { d.Spec.Template.Annotations = map[string]string{"note": "new"} })
	d := w.rolled("roll")
	same("revision", d.Annotations["deployment.kubernetes.io/revision"], "3546343826724305833")
	w.until(30*time.Second, "the old set is empty", func() error {
		s := must(api.AppsV1().ReplicaSets(w.ns).Get(ctx, old.Name, metav1.GetOptions{}))
		if o := metav1.GetControllerOf(s); o == nil || o.UID != d.UID {
			return fmt.Errorf("the old set is not the deployment's")
		}
		return differs("replicas", s.Status.Replicas, 0)
	})
}

func deploymentRecreates(w *world) {
	w.deployment("recreate", 2, func(d *appsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType })
	w.rolled("recreate")
	follow := must(api.CoreV1().Pods(w.ns).Watch(ctx, metav1.ListOptions{LabelSelector: "name=recreate"}))
	defer follow.Stop()
	w.patchDeployment("recreate", noted("second"))
	w.rolled("recreate")
	// No new pod runs while an old one does.
	oldRuns, newRuns := map[string]bool{}, map[string]bool{}
	for {
		select {
		case e := <-follow.ResultChan():
			p, ok := e.Object.(*corev1.Pod)
			if !ok {
				fatal("event %v", e)
			}
			runs := p.Status.Phase == corev1.PodRunning && e.Type != "DELETED"
			if p.Annotations["note"] == "second" {
				newRuns[p.Name] = runs
				if !runs {
					delete(newRuns, p.Name)
				}
			} else {
				oldRuns[p.Name] = runs
				if !runs {
					delete(oldRuns, p.Name)
				}
			}
			if len(oldRuns) > 0 && len(newRuns) > 0 {
				fatal("both run: %v and %v", oldRuns, newRuns)
			}
			continue
		case <-time.After(time.Second):
		}
		break
	}
	same("new pods", len(newRuns), 2)
}

func deploymentHistory(w *world) {
	w.deployment("history", 1, func(d *appsv1.Deployment) { d.Spec.RevisionHistoryLimit = ptr(int32(0)) })
	w.rolled("history")
	w.patchDeployment("history", noted("second"))
	w.rolled("history")
	w.until(60*time.Second, "one set", func() error {
		return differs("sets", len(must(api.AppsV1().ReplicaSets(w.ns).List(ctx, metav1.ListOptions{})).Items), 1)
	})
}

func deploymentRollover(w *world) {
	w.deployment("rollover", 1, func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Image, d.Spec.Template.Spec.Containers[0].ImagePullPolicy = "registry.sextant.local/none-such:1", corev1.PullNever
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: ptr(intstr.FromInt32(0)), MaxSurge: ptr(intstr.FromInt32(1))}
	})
	w.until(30*time.Second, "the first set has its pod", func() error {
		return differs("updated", must(api.AppsV1().Deployments(w.ns).Get(ctx, "rollover", metav1.GetOptions{})).Status.UpdatedReplicas, 1)
	})
	w.patchDeployment("rollover", `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"`+image+`"}]}}}}`)
	w.rolled("rollover")
	for _, s := range must(api.AppsV1().ReplicaSets(w.ns).List(ctx, metav1.ListOptions{})).Items {
		want := int32(0)
		if s.Spec.Template.Spec.Containers[0].Image == image {
			want = 1
		}
		same("replicas", *s.Spec.Replicas, want)
	}
}

func deploymentProportional(w *world) {
	w.deployment("prop", 10, func(d *appsv1.Deployment) {
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: ptr(intstr.FromInt32(2)), MaxSurge: ptr(intstr.FromInt32(3))}
	})
	w.rolled("prop")
	w.patchDeployment("prop", `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"registry.sextant.local/none-such:1","imagePullPolicy":"Never"}]}}}}`)
	sizes := func(oldWant, newWant int32) func() error {
		return func() error {
			for _, s := range must(api.AppsV1().ReplicaSets(w.ns).List(ctx, metav1.ListOptions{})).Items {
				want := oldWant
				if s.Spec.Template.Spec.Containers[0].Image != image {
					want = newWant
				}
				if err := differs("replicas of "+s.Spec.Template.Spec.Containers[0].Image, *s.Spec.Replicas, want); err != nil {
					return err
				}
			}
			return nil
		}
	}
	w.until(60*time.Second, "the roll-out halts", sizes(8, 5))
	w.until(60*time.Second, "old pods are gone", func() error {
		return differs("available", must(api.AppsV1().Deployments(w.ns).Get(ctx, "prop", metav1.GetOptions{})).Status.AvailableReplicas, 8)
	})
	must(api.AppsV1().Deployments(w.ns).Patch(ctx, "prop", types.StrategicMergePatchType, []byte(`{"spec":{"replicas":30}}`), metav1.PatchOptions{}))
	w.until(60*time.Second, "both sets grow", sizes(20, 13))
}

func deploymentLife(w *world) {
	ds := api.AppsV1().Deployments(w.ns)
	w.deployment("life", 1)
	w.rolled("life")
	must(ds.Patch(ctx, "life", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"l":"patched"}},"spec":{"replicas":2,"template":{"metadata":{"annotations":{"x":"y"}}}}}`), metav1.PatchOptions{}))
	w.rolled("life")
	same("listed", len(must(api.AppsV1().Deployments("").List(ctx, metav1.ListOptions{LabelSelector: "l=patched"})).Items) > 0, true)
	must(ds.Patch(ctx, "life", types.StrategicMergePatchType, []byte(`{"spec":{"replicas":3}}`), metav1.PatchOptions{}, "scale"))
	w.rolled("life")
	scale := must(ds.GetScale(ctx, "life", metav1.GetOptions{}))
	same("selector", scale.Status.Selector, "name=life")
	must(ds.UpdateScale(ctx, "life", &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "life", Namespace: w.ns}, Spec: autoscalingv1.ScaleSpec{Replicas: 1}}, metav1.UpdateOptions{}))
	w.rolled("life")
	w.statuses("deployments", "life")
	done(ds.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "l=patched"}))
	w.count("name=life", 0)
}

func budget(w *world) {
	pdbs := api.PolicyV1().PodDisruptionBudgets(w.ns)
	w.deployment("pdb", 2)
	w.rolled("pdb")
	must(pdbs.Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "pdb"}, Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr(intstr.FromInt32(2)), Selector: selecting("pdb")}}, metav1.CreateOptions{}))
	status := func(allowed int32) func() error {
		return func() error {
			s := must(pdbs.Get(ctx, "pdb", metav1.GetOptions{}))
			if s.Status.ObservedGeneration < s.Generation || s.Status.CurrentHealthy != 2 || s.Status.ExpectedPods != 2 {
				return fmt.Errorf("status %v", s.Status)
			}
			return differs("allowed", s.Status.DisruptionsAllowed, allowed)
		}
	}
	w.until(30*time.Second, "the budget counts", status(0))
	p := w.count("name=pdb", 2)[0]
	evict := func() error {
		return api.CoreV1().Pods(w.ns).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: w.ns}})
	}
	err := evict()
	refused(err, apierrors.IsTooManyRequests)
	same("cause", apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause), true)
	contains(err.Error(), "Cannot evict pod as it would violate the pod's disruption budget.")
	must(pdbs.Patch(ctx, "pdb", types.MergePatchType, []byte(`{"spec":{"minAvailable":1}}`), metav1.PatchOptions{}))
	w.until(30*time.Second, "the budget allows one", status(1))
	done(evict())
	w.until(30*time.Second, "evicted", func() error {
		now, err := api.CoreV1().Pods(w.ns).Get(ctx, p.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && now.DeletionTimestamp != nil {
			return nil
		}
		return fmt.Errorf("still there: %w", err)
	})
	done(pdbs.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
}

func (w *world) statefulSet(name string, n int32, edits ...func(s *appsv1.StatefulSet)) *appsv1.StatefulSet {
	w.Helper()
	w.service(name, map[string]string{"name": name}, 80, 80, func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone })
	t := template(name)
	t.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: execProbe("sh", "-c", "! test -e /tmp/broken")}
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, Spec: appsv1.StatefulSetSpec{Replicas: &n, ServiceName: name, Selector: selecting(name), Template: t}}
	for _, e := range edits {
		e(s)
	}
	return must(api.AppsV1().StatefulSets(w.ns).Create(ctx, s, metav1.CreateOptions{}))
}

func (w *world) statefulReady(name string, n int32) *appsv1.StatefulSet {
	w.Helper()
	var s *appsv1.StatefulSet
	w.until(2*startLimit, "stateful set "+name, func() error {
		s = must(api.AppsV1().StatefulSets(w.ns).Get(ctx, name, metav1.GetOptions{}))
		if s.Status.ObservedGeneration < s.Generation || s.Status.Replicas != n || s.Status.ReadyReplicas != n {
			return fmt.Errorf("status %v", s.Status)
		}
		return nil
	})
	return s
}

func (w *world) statefulScaleTo(name string, n int) {
	w.Helper()
	must(api.AppsV1().StatefulSets(w.ns).Patch(ctx, name, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n), metav1.PatchOptions{}))
}

func statefulOrder(w *world) {
	follow := must(api.CoreV1().Pods(w.ns).Watch(ctx, metav1.ListOptions{LabelSelector: "name=ss"}))
	defer follow.Stop()
	w.statefulSet("ss", 1)
	w.statefulReady("ss", 1)
	w.sh("ss-0", "touch /tmp/broken")
	w.until(30*time.Second, "the first is unready", func() error { return differs("ready", ready(w.get("ss-0")), false) })
	w.statefulScaleTo("ss", 3)
	w.holds(4*time.Second, "scaling up halts", func() error { return differs("pods", len(w.podsOf("name=ss")), 1) })
	w.sh("ss-0", "rm /tmp/broken")
	w.statefulReady("ss", 3)
	for i := range 3 {
		w.sh(fmt.Sprintf("ss-%d", i), "touch /tmp/broken")
	}
	w.until(30*time.Second, "none is ready", func() error {
		return differs("ready", must(api.AppsV1().StatefulSets(w.ns).Get(ctx, "ss", metav1.GetOptions{})).Status.ReadyReplicas, 0)
	})
	w.statefulScaleTo("ss", 0)
	w.holds(4*time.Second, "scaling down halts", func() error { return differs("pods", len(w.podsOf("name=ss")), 3) })
	for i := range 3 {
		w.sh(fmt.Sprintf("ss-%d", i), "rm /tmp/broken")
	}
	w.count("name=ss", 0)
	var order []string
	for len(order) < 6 {
		select {
		case e := <-follow.ResultChan():
			if p, ok := e.Object.(*corev1.Pod); ok && (e.Type == "ADDED" || e.Type == "DELETED") {
				order = append(order, string(e.Type[:1])+p.Name)
			}
		case <-time.After(20 * time.Second):
			fatal("only %v", order)
		}
	}
	same("order", strings.Join(order, " "), "Ass-0 Ass-1 Ass-2 Dss-2 Dss-1 Dss-0")
}

func statefulCanary(w *world) {
	w.statefulSet("ss", 3, func(s *appsv1.StatefulSet) {
		s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr(int32(3))}}
	})
	s := w.statefulReady("ss", 3)
	first := s.Status.CurrentRevision
	same("update revision", s.Status.UpdateRevision, first)
	must(api.AppsV1().StatefulSets(w.ns).Patch(ctx, "ss", types.StrategicMergePatchType, []byte(noted("second")), metav1.PatchOptions{}))
	w.until(30*time.Second, "a new revision", func() error {
		s = w.statefulReady("ss", 3)
		return differs("new", s.Status.UpdateRevision != first, true)
	})
	second := s.Status.UpdateRevision
	revisions := func(want ...string) {
		w.until(startLimit, "revisions", func() error {
			w.statefulReady("ss", 3)
			for i, r := range want {
				if err := differs(fmt.Sprintf("revision of %d", i), w.get(fmt.Sprintf("ss-%d", i)).Labels["controller-revision-hash"], r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	revisions(first, first, first)
	partition := func(n int) {
		must(api.AppsV1().StatefulSets(w.ns).Patch(ctx, "ss", types.MergePatchType, fmt.Appendf(nil, `{"spec":{"updateStrategy":{"rollingUpdate":{"partition":%d}}}}`, n), metav1.PatchOptions{}))
	}
	partition(2)
	revisions(first, first, second)
	was := w.get("ss-0").UID
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "ss-0", metav1.DeleteOptions{}))
	w.until(startLimit, "the pod is made again", func() error {
		p, err := api.CoreV1().Pods(w.ns).Get(ctx, "ss-0", metav1.GetOptions{})
		if err == nil && p.UID == was {
			err = errGone
		}
		return err
	})
	revisions(first, first, second)
	partition(0)
	revisions(second, second, second)
	w.until(30*time.Second, "the revision is current", func() error {
		return differs("current", must(api.AppsV1().StatefulSets(w.ns).Get(ctx, "ss", metav1.GetOptions{})).Status.CurrentRevision, second)
	})
}

func statefulEvicted(w *world) {
	node := w.node().Name
	port := []corev1.ContainerPort{{ContainerPort: 21017, HostPort: 21017}}
	w.create(pod("blocker", sleepScript, func(p *corev1.Pod) { p.Spec.NodeName = node }, first(func(c *corev1.Container) { c.Ports = port })))
	w.isReady("blocker")
	w.statefulSet("ss", 1, func(s *appsv1.StatefulSet) {
		s.Spec.Template.Spec.Containers[0].Ports = port
		s.Spec.Template.Spec.NodeName = node
	})
	seen := map[types.UID]bool{}
	w.until(startLimit, "it fails and is made again", func() error {
		if p, err := api.CoreV1().Pods(w.ns).Get(ctx, "ss-0", metav1.GetOptions{}); err == nil {
			seen[p.UID] = true
		}
		return differs("made again", len(seen) > 1, true)
	})
	w.remove("blocker")
	w.statefulReady("ss", 1)
}

func statefulScale(w *world) {
	sets := api.AppsV1().StatefulSets(w.ns)
	w.statefulSet("ss", 1)
	w.statefulReady("ss", 1)
	scale := must(sets.GetScale(ctx, "ss", metav1.GetOptions{}))
	scale.ResourceVersion, scale.Spec.Replicas = "", 2
	must(sets.UpdateScale(ctx, "ss", scale, metav1.UpdateOptions{}))
	same("replicas", *must(sets.Get(ctx, "ss", metav1.GetOptions{})).Spec.Replicas, 2)
	must(sets.Patch(ctx, "ss", types.MergePatchType, []byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{}, "scale"))
	w.statefulReady("ss", 1)
	w.statuses("statefulsets", "ss")
	must(sets.Patch(ctx, "ss", types.MergePatchType, []byte(`{"metadata":{"labels":{"l":"patched"}}}`), metav1.PatchOptions{}))
	done(sets.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "l=patched"}))
	w.count("name=ss", 0)
}
