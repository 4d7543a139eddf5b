//go:build e2e

package conformance

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

var scheduling = []behaviour{
	{name: "SchedulerPredicates validates that NodeSelector is respected if matching", test: selectorMatches},
	{name: "SchedulerPredicates validates that NodeSelector is respected if not matching", test: selectorFails},
	{name: "SchedulerPredicates validates resource limits of pods that are allowed to run", serial: true, test: limitsOfNodes},
	{name: "SchedulerPredicates validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP", test: portConflict},
	{name: "SchedulerPreemption validates basic preemption works and lower priority pod preemption by critical pod", serial: true, test: preemption},
	{name: "SchedulerPreemption PreemptionExecutionPath runs ReplicaSets to verify preemption running path", serial: true, test: preemptionPath},
	{name: "SchedulerPreemption PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods", test: priorityClasses},
	{name: "LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied", test: limitRange},
	{name: "LimitRange should list, patch and delete a LimitRange by collection", test: operations(kind{name: "LimitRange", resource: "v1 limitranges", namespaced: true, manifest: `{"spec":{"limits":[{"type":"Container","max":{"cpu":"1"}}]}}`})},
	{name: "NoExecuteTaintManager removes and evicts pods as their tolerations say", serial: true, test: taintEvicts},
	{name: "NoExecuteTaintManager removing taint cancels eviction", serial: true, test: taintTakenBack},
	{name: "NoExecuteTaintManager evicts pods with minTolerationSeconds", serial: true, test: taintMinimum},
}

// labelled gives a node a label of the row's own until the row ends.
func (w *world) labelled(value string) (node, key string) {
	w.Helper()
	node, key = w.node().Name, "kubernetes.io/e2e-"+w.ns
	set := func(v string) error {
		_, err := api.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(`{"metadata":{"labels":{"`+key+`":`+v+`}}}`), metav1.PatchOptions{})
		return err
	}
	done(set(`"` + value + `"`))
	w.Cleanup(func() { _ = set("null") })
	return node, key
}

func selectorMatches(w *world) {
	node, key := w.labelled("42")
	p := w.ready(pod("with-labels", sleepScript, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: "42"} }))
	same("node", p.Spec.NodeName, node)
}

// refusedPlace waits until the scheduler says why a pod has no node.
func (w *world) refusedPlace(name, text string) {
	w.Helper()
	w.event(30*time.Second, name, "FailedScheduling", text)
	w.until(10*time.Second, "the pod says that it has no place", func() error { // it is told beside the event
		c := condition(w.get(name), corev1.PodScheduled)
		if c == nil || c.Status != corev1.ConditionFalse || c.Reason != corev1.PodReasonUnschedulable {
			return fmt.Errorf("condition %v", c)
		}
		return nil
	})
}

func selectorFails(w *world) {
	w.create(pod("restricted", sleepScript, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"label": "nonempty"} }))
	w.refusedPlace("restricted", "node(s) didn't match Pod's node affinity/selector")
}

// free is what a node has left of CPU, in thousandths.
func (w *world) free(node string) int64 {
	w.Helper()
	n := must(api.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{}))
	left := n.Status.Allocatable.Cpu().MilliValue()
	for _, p := range must(api.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})).Items {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, c := range p.Spec.Containers {
			left -= c.Resources.Requests.Cpu().MilliValue()
		}
	}
	return left
}

func wants(cpu int64) edit {
	return first(func(c *corev1.Container) {
		q := corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(cpu, resource.DecimalSI)}
		c.Resources = corev1.ResourceRequirements{Requests: q, Limits: q}
	})
}

func limitsOfNodes(w *world) {
	node, key := w.labelled("1")
	on := func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: "1"} }
	left := w.free(node)
	w.ready(pod("filler", sleepScript, on, wants(left*7/10)))
	w.create(pod("additional", sleepScript, on, wants(left/2)))
	w.refusedPlace("additional", "Insufficient cpu")
	w.remove("filler")
	w.isReady("additional")
}

func portConflict(w *world) {
	node, key := w.labelled("90")
	on := func(hostIP string) edit {
		return func(p *corev1.Pod) {
			p.Spec.NodeSelector = map[string]string{key: "90"}
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 54322, ContainerPort: 8080, HostIP: hostIP}}
		}
	}
	w.ready(pod("pod4", sleepScript, on("")))
	ip := ""
	for _, a := range must(api.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})).Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			ip = a.Address
		}
	}
	w.create(pod("pod5", sleepScript, on(ip)))
	w.refusedPlace("pod5", "didn't have free ports for the requested pod ports")
}

func (w *world) priority(name string, value int32) string {
	w.Helper()
	name = w.ns + "-" + name
	must(api.SchedulingV1().PriorityClasses().Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}, metav1.CreateOptions{}))
	w.Cleanup(func() { _ = api.SchedulingV1().PriorityClasses().Delete(ctx, name, metav1.DeleteOptions{}) })
	return name
}

func preemption(w *world) {
	node, key := w.labelled("p")
	low := w.priority("low", 1)
	on := func(class string) edit {
		return func(p *corev1.Pod) {
			p.Spec.NodeSelector, p.Spec.PriorityClassName = map[string]string{key: "p"}, class
		}
	}
	left := w.free(node)
	w.ready(pod("victim", sleepScript, on(low), wants(left*6/10), func(p *corev1.Pod) { p.Finalizers = []string{"example.com/test-finalizer"} }))
	w.Cleanup(func() {
		_, _ = api.CoreV1().Pods(w.ns).Patch(ctx, "victim", types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`), metav1.PatchOptions{})
	})
	system := &world{w.T, "kube-system"}
	name := "critical-" + w.ns
	system.create(pod(name, sleepScript, on("system-cluster-critical"), wants(left*6/10)))
	w.Cleanup(func() { _ = api.CoreV1().Pods("kube-system").Delete(ctx, name, *metav1.NewDeleteOptions(0)) })
	w.until(30*time.Second, "the victim is preempted", func() error {
		p := w.get("victim")
		if p.DeletionTimestamp == nil {
			return errGone
		}
		c := condition(p, corev1.DisruptionTarget)
		if c == nil {
			return fmt.Errorf("no condition")
		}
		return differs("reason", c.Reason, "PreemptionByScheduler")
	})
	done(w.update("victim", func(p *corev1.Pod) { p.Finalizers = nil }))
	system.isReady(name)
	same("node", system.get(name).Spec.NodeName, node)
	w.event(10*time.Second, "victim", "Preempted", "Preempted by pod")
}

func priorityClasses(w *world) {
	classes := api.SchedulingV1().PriorityClasses()
	name := w.priority("p1", 1)
	other := w.priority("p2", 2)
	must(classes.Patch(ctx, name, types.StrategicMergePatchType, []byte(`{"description":"patched"}`), metav1.PatchOptions{}))
	_, err := classes.Patch(ctx, name, types.StrategicMergePatchType, []byte(`{"value":9}`), metav1.PatchOptions{})
	refused(err, apierrors.IsInvalid)
	contains(err.Error(), "may not be changed in an update.")
	c := must(classes.Get(ctx, other, metav1.GetOptions{}))
	c.Description = "updated"
	c = must(classes.Update(ctx, c, metav1.UpdateOptions{}))
	c.Value = 12
	_, err = classes.Update(ctx, c, metav1.UpdateOptions{})
	refused(err, apierrors.IsInvalid)
	same("value", must(classes.Get(ctx, other, metav1.GetOptions{})).Value, 2)
	same("listed", len(must(classes.List(ctx, metav1.ListOptions{})).Items) >= 4, true)
}

func limitRange(w *world) {
	ranges := api.CoreV1().LimitRanges(w.ns)
	quantity := func(cpu, memory, disk string) corev1.ResourceList {
		l := resources(cpu, memory)
		l[corev1.ResourceEphemeralStorage] = resource.MustParse(disk)
		return l
	}
	must(ranges.Create(ctx, &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "limit-range"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer,
		Min: quantity("50m", "100Mi", "100Gi"), Max: quantity("500m", "500Mi", "500Gi"), Default: quantity("500m", "500Mi", "500Gi"), DefaultRequest: quantity("100m", "200Mi", "200Gi")}}}}, metav1.CreateOptions{}))
	create := func(name string, requests, limits corev1.ResourceList) (*corev1.Pod, error) {
		return api.CoreV1().Pods(w.ns).Create(ctx, pod(name, "true", first(func(c *corev1.Container) {
			c.Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
		})), metav1.CreateOptions{})
	}
	w.until(20*time.Second, "the range holds", func() error {
		_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("dry", "true", wants(5)), metav1.CreateOptions{DryRun: []string{"All"}})
		return differs("forbidden", apierrors.IsForbidden(err), true)
	})
	p := must(create("none", nil, nil))
	r := p.Spec.Containers[0].Resources
	same("cpu request", r.Requests.Cpu().String(), "100m")
	same("memory limit", r.Limits.Memory().String(), "500Mi")
	p = must(create("partial", quantity("300m", "150Mi", "150Gi"), resources("300m", "")))
	r = p.Spec.Containers[0].Resources
	same("cpu limit", r.Limits.Cpu().String(), "300m")
	same("memory limit", r.Limits.Memory().String(), "500Mi")
	_, err := create("less", quantity("10m", "50Mi", "50Gi"), nil)
	refused(err, apierrors.IsForbidden)
	_, err = create("more", quantity("600m", "600Mi", "600Gi"), quantity("600m", "600Mi", "600Gi"))
	refused(err, apierrors.IsForbidden)
	l := must(ranges.Get(ctx, "limit-range", metav1.GetOptions{}))
	l.Spec.Limits[0].Min = quantity("9m", "49Mi", "49Gi")
	must(ranges.Update(ctx, l, metav1.UpdateOptions{}))
	w.until(20*time.Second, "the new range holds", func() error {
		_, err := create("less", quantity("10m", "50Mi", "50Gi"), nil)
		return err
	})
	done(ranges.Delete(ctx, "limit-range", metav1.DeleteOptions{}))
	w.until(20*time.Second, "no range holds", func() error {
		_, err := create("more", quantity("600m", "600Mi", "600Gi"), quantity("600m", "600Mi", "600Gi"))
		return err
	})
}

// tainted gives a node a taint that evicts, and answers what takes it away.
func (w *world) tainted(node string) func() {
	w.Helper()
	set := func(add bool) error {
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			n, err := api.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
			if err != nil {
				return err
			}
			kept := n.Spec.Taints[:0]
			for _, t := range n.Spec.Taints {
				if t.Key != "kubernetes.io/e2e-evict-taint-key" {
					kept = append(kept, t)
				}
			}
			if n.Spec.Taints = kept; add {
				n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "kubernetes.io/e2e-evict-taint-key", Value: "evictTaintVal", Effect: corev1.TaintEffectNoExecute})
			}
			_, err = api.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{})
			return err
		})
	}
	done(set(true))
	w.Cleanup(func() { _ = set(false) })
	return func() { done(set(false)) }
}

// tolerates an evicting taint for seconds, for ever where they are negative.
func tolerates(seconds int64) edit {
	return func(p *corev1.Pod) {
		t := corev1.Toleration{Key: "kubernetes.io/e2e-evict-taint-key", Value: "evictTaintVal", Effect: corev1.TaintEffectNoExecute}
		if seconds >= 0 {
			t.TolerationSeconds = &seconds
		}
		p.Spec.Tolerations = append(p.Spec.Tolerations, t)
	}
}

func leaving(w *world, name string) bool {
	p, err := api.CoreV1().Pods(w.ns).Get(ctx, name, metav1.GetOptions{})
	return apierrors.IsNotFound(err) || err == nil && p.DeletionTimestamp != nil
}

func taintEvicts(w *world) {
	node := w.node().Name
	on := func(p *corev1.Pod) { p.Spec.NodeName = node }
	w.ready(pod("without", sleepScript, on))
	w.ready(pod("for-ever", sleepScript, on, tolerates(-1)))
	take := w.tainted(node)
	w.until(20*time.Second, "evicted", func() error { return differs("leaving", leaving(w, "without"), true) })
	w.holds(3*time.Second, "stays", func() error { return differs("leaving", leaving(w, "for-ever"), false) })
	take()
}

func taintTakenBack(w *world) {
	node := w.node().Name
	w.ready(pod("stays", sleepScript, func(p *corev1.Pod) { p.Spec.NodeName = node }, tolerates(5)))
	take := w.tainted(node)
	w.holds(2*time.Second, "stays", func() error { return differs("leaving", leaving(w, "stays"), false) })
	take()
	w.holds(6*time.Second, "stays", func() error { return differs("leaving", leaving(w, "stays"), false) })
}

func taintMinimum(w *world) {
	node := w.node().Name
	on := func(p *corev1.Pod) { p.Spec.NodeName = node }
	w.ready(pod("short", sleepScript, on, tolerates(5)))
	w.ready(pod("long", sleepScript, on, tolerates(12)))
	take := w.tainted(node)
	w.holds(4*time.Second, "both stay", func() error { return differs("leaving", leaving(w, "short") || leaving(w, "long"), false) })
	w.until(6*time.Second, "the first leaves", func() error { return differs("leaving", leaving(w, "short"), true) })
	same("the second leaves", leaving(w, "long"), false)
	w.until(15*time.Second, "the second leaves", func() error { return differs("leaving", leaving(w, "long"), true) })
	take()
}

// extended gives a node a resource that only the scheduler counts, until the row ends.
func (w *world) extended(node, name, amount string) {
	w.Helper()
	patch := func(value string) error {
		_, err := api.CoreV1().Nodes().Patch(ctx, node, types.StrategicMergePatchType, []byte(`{"status":{"capacity":{"`+name+`":`+value+`},"allocatable":{"`+name+`":`+value+`}}}`), metav1.PatchOptions{}, "status")
		return err
	}
	done(patch(`"` + amount + `"`))
	w.Cleanup(func() { _ = patch("null") })
}

func preemptionPath(w *world) {
	node, key := w.labelled("path")
	w.extended(node, "example.com/fakecpu", "1k")
	set := func(name string, n, value int32, each string) {
		class := w.priority(name, value)
		w.replicaSet(name, n, func(s *appsv1.ReplicaSet) {
			q := corev1.ResourceList{"example.com/fakecpu": resource.MustParse(each)}
			p := &s.Spec.Template.Spec
			p.NodeSelector, p.PriorityClassName, p.Containers[0].Resources = map[string]string{key: "path"}, class, corev1.ResourceRequirements{Requests: q, Limits: q}
			p.TerminationGracePeriodSeconds = ptr(int64(0))
		})
	}
	available := func(name string, want int32) {
		w.until(startLimit, "pods of "+name, func() error {
			return differs("available", must(api.AppsV1().ReplicaSets(w.ns).Get(ctx, name, metav1.GetOptions{})).Status.AvailableReplicas, want)
		})
	}
	set("low", 5, 1, "200")
	available("low", 5)
	set("high", 2, 3, "400")
	available("high", 2)
	available("low", 1)
	w.holds(5*time.Second, "the node keeps what only the scheduler counts", func() error {
		q := must(api.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})).Status.Allocatable["example.com/fakecpu"]
		return differs("allocatable", q.Value(), 1000)
	})
}
