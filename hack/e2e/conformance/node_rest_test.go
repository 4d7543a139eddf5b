//go:build e2e

package conformance

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var nodeRest = []behaviour{
	{name: "Pods should find no service in the environment when links are off", test: podWithoutLinks},
	{name: "Pods should have the DNS configuration their policy says", test: podNames},
	{name: "Pods should say why an image cannot be used", test: podImages},
	{name: "Pods should wait for their scheduling gates and readiness gates", test: podGates},
	{name: "Pods should be killed when their memory runs out, and by their deadline", test: podEnds},
	{name: "Pods should share the resources that the pod has as a whole", test: podTotals},
	{name: "Pods should probe by name of a port, with headers, and give a probe's own grace", test: podProbesNamed},
	{name: "Pods should keep the logs of the container before", test: podPrevious},
	{name: "Pods should refuse what may not change", test: podImmutable},
	{name: "Pods should be evicted, and bound by hand", test: podBound},
	{name: "Downward API should provide the names of node and service account, labels and annotations", test: downwardNames},
	{name: "Container Lifecycle Hook should execute poststart http hook at another host, by the name of a port", test: hookNamed},
	{name: "SchedulerPredicates validates that affinity to nodes and pods, and spreading, are respected", test: affinities},
	{name: "SchedulerPredicates validates that taints-tolerations is respected", test: toleratesTaints, serial: true},
}

func podWithoutLinks(w *world) {
	w.service("linked", nil, 80, 80)
	text := w.prints(pod("links", "env", func(p *corev1.Pod) { p.Spec.EnableServiceLinks = ptr(false) }))
	same("links", strings.Contains(text, "LINKED_SERVICE_HOST"), false)
	contains(text, "KUBERNETES_SERVICE_HOST")
}

func podNames(w *world) {
	text := func(name string, policy corev1.DNSPolicy, edits ...edit) string {
		return w.prints(pod(name, "cat /etc/resolv.conf; hostname; hostname -f || true", append(edits, func(p *corev1.Pod) { p.Spec.DNSPolicy = policy })...))
	}
	first := text("first", corev1.DNSClusterFirst)
	contains(first, "search "+w.ns+".svc.cluster.local svc.cluster.local cluster.local")
	contains(first, "ndots:5")
	contains(first, "nameserver 10.96.0.10")
	same("the node's own", strings.Contains(text("default", corev1.DNSDefault), "cluster.local"), false)
	host := func(p *corev1.Pod) { p.Spec.HostNetwork = true }
	contains(text("with-host", corev1.DNSClusterFirstWithHostNet, host), "nameserver 10.96.0.10")
	same("the node's own", strings.Contains(text("host", corev1.DNSClusterFirst, host), w.ns+".svc.cluster.local"), false)
	contains(text("fqdn", corev1.DNSClusterFirst, func(p *corev1.Pod) {
		p.Spec.Hostname, p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = "h", "s", ptr(true)
	}), "\nh.s."+w.ns+".svc.cluster.local")
}

func podImages(w *world) {
	of := func(name, image string, policy corev1.PullPolicy) {
		w.create(pod(name, "true", first(func(c *corev1.Container) { c.Image, c.ImagePullPolicy = image, policy })))
	}
	of("never", "registry.sextant.local/none-such:1", corev1.PullNever)
	of("invalid", "Not A Name", corev1.PullIfNotPresent)
	of("absent", "127.0.0.1:1/none-such:1", corev1.PullIfNotPresent)
	w.waits("never", "ErrImageNeverPull")
	w.waits("invalid", "InvalidImageName")
	w.until(startLimit, "the pull backs off", func() error {
		s := w.get("absent").Status.ContainerStatuses
		if len(s) == 0 || s[0].State.Waiting == nil {
			return errGone
		}
		return differs("reason", s[0].State.Waiting.Reason, "ImagePullBackOff")
	})
	w.event(30*time.Second, "absent", "Failed", "Failed to pull image")
	// An image that is mended lets the pod start.
	done(w.update("never", func(p *corev1.Pod) { p.Spec.Containers[0].Image = image }))
	w.phase("never", corev1.PodSucceeded)
}

func podGates(w *world) {
	w.create(pod("gated", sleepScript, func(p *corev1.Pod) {
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "e2e.example.com/a"}}
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "e2e.example.com/ready"}}
	}))
	w.until(20*time.Second, "gated", func() error {
		c := condition(w.get("gated"), corev1.PodScheduled)
		if c == nil {
			return errGone
		}
		return differs("reason", c.Reason, corev1.PodReasonSchedulingGated)
	})
	_, err := api.CoreV1().Pods(w.ns).Patch(ctx, "gated", types.JSONPatchType, []byte(`[{"op":"add","path":"/spec/schedulingGates/-","value":{"name":"e2e.example.com/b"}}]`), metav1.PatchOptions{})
	refused(err, apierrors.IsInvalid)
	done(w.update("gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = nil }))
	w.phase("gated", corev1.PodRunning)
	w.until(startLimit, "containers are ready", func() error {
		c := condition(w.get("gated"), corev1.ContainersReady)
		return differs("ready", c != nil && c.Status == corev1.ConditionTrue, true)
	})
	same("ready", ready(w.get("gated")), false)
	must(api.CoreV1().Pods(w.ns).Patch(ctx, "gated", types.StrategicMergePatchType, []byte(`{"status":{"conditions":[{"type":"e2e.example.com/ready","status":"True"}]}}`), metav1.PatchOptions{}, "status"))
	w.isReady("gated")
}

func podEnds(w *world) {
	w.create(pod("hungry", "a=$(cat /dev/zero | head -c 100m | tr '\\0' x); echo ${#a}", first(func(c *corev1.Container) {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("20Mi")}
	})))
	w.create(pod("late", sleepScript, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr(int64(3)) }))
	p := w.phase("hungry", corev1.PodFailed)
	same("reason", p.Status.ContainerStatuses[0].State.Terminated.Reason, "OOMKilled")
	same("code", p.Status.ContainerStatuses[0].State.Terminated.ExitCode, 137)
	p = w.phase("late", corev1.PodFailed)
	same("reason", p.Status.Reason, "DeadlineExceeded")
	contains(p.Status.Message, "Pod was active on the node longer than the specified deadline")
}

func podTotals(w *world) {
	p := w.create(pod("total", sleepScript, func(p *corev1.Pod) {
		p.Spec.Resources = &corev1.ResourceRequirements{Limits: resources("200m", "64Mi")}
	}))
	same("requests", p.Spec.Resources.Requests.Cpu().String(), "200m")
	p = w.isReady("total")
	same("class", p.Status.QOSClass, corev1.PodQOSGuaranteed)
	same("no request of the container's own", p.Spec.Containers[0].Resources.Requests.Cpu().IsZero() || p.Spec.Containers[0].Resources.Requests.Cpu().String() == "200m", true)
}

func podProbesNamed(w *world) {
	p := server("named", nil, first(func(c *corev1.Container) {
		c.Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}
		get := &corev1.HTTPGetAction{Path: "/hostname", Port: intstr.FromString("web"), HTTPHeaders: []corev1.HTTPHeader{{Name: "X-Probe", Value: "y"}}}
		c.StartupProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 30, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("web")}}}
		c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: get}}
	}))
	w.ready(p)
	started := w.get("named").Status.ContainerStatuses[0].Started
	same("started", started != nil && *started, true)
	w.create(pod("grace", "trap '' TERM; while :; do sleep 1; done", restart(corev1.RestartPolicyAlways), first(func(c *corev1.Container) {
		c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, TerminationGracePeriodSeconds: ptr(int64(2)), ProbeHandler: execProbe("false")}
	}), func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(300)) }))
	w.until(startLimit, "it restarts long before the pod's grace is over", func() error {
		return differs("restarted", restarts(w.get("grace")) > 0, true)
	})
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "grace", *metav1.NewDeleteOptions(1)))
}

func podPrevious(w *world) {
	w.create(pod("again", "if [ -e /etc/v/seen ]; then echo second; sleep 1000; fi; touch /etc/v/seen; echo first; exit 1", restart(corev1.RestartPolicyAlways), volume("v", emptyDir(""))))
	w.says("again", "c", "second", startLimit)
	raw := must(api.CoreV1().Pods(w.ns).GetLogs("again", &corev1.PodLogOptions{Previous: true}).DoRaw(ctx))
	same("before", strings.TrimSpace(string(raw)), "first")
	last := w.get("again").Status.ContainerStatuses[0].LastTerminationState.Terminated
	same("code", last != nil && last.ExitCode == 1, true)
	_, err := api.CoreV1().Pods(w.ns).GetLogs("again", &corev1.PodLogOptions{Container: "none"}).DoRaw(ctx)
	refused(err, apierrors.IsBadRequest)
}

func podImmutable(w *world) {
	w.create(pod("fixed", sleepScript, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"none": "such"} }))
	for _, patch := range []string{`{"spec":{"containers":[{"name":"c","command":["other"]}]}}`, `{"spec":{"restartPolicy":"Always"}}`, `{"spec":{"serviceAccountName":"other"}}`, `{"spec":{"hostNetwork":true}}`} {
		_, err := api.CoreV1().Pods(w.ns).Patch(ctx, "fixed", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		refused(err, apierrors.IsInvalid)
		contains(err.Error(), "pod updates may not change fields other than")
	}
	for _, patch := range []string{`{"spec":{"containers":[{"name":"c","image":"other:1"}]}}`, `{"spec":{"tolerations":[{"key":"a","operator":"Exists"}]}}`, `{"spec":{"terminationGracePeriodSeconds":1}}`} {
		must(api.CoreV1().Pods(w.ns).Patch(ctx, "fixed", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}))
	}
}

func podBound(w *world) {
	w.create(pod("bound", sleepScript, func(p *corev1.Pod) { p.Spec.SchedulerName = "nobody" }))
	node := w.node().Name
	bind := func() error {
		return api.CoreV1().Pods(w.ns).Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "bound"}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}, metav1.CreateOptions{})
	}
	done(bind())
	refused(bind(), apierrors.IsConflict)
	same("node", w.isReady("bound").Spec.NodeName, node)
	done(api.CoreV1().RESTClient().Post().Namespace(w.ns).Resource("pods").Name("bound").SubResource("eviction").SetHeader("Content-Type", "application/json").
		Body([]byte(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"bound"},"deleteOptions":{"gracePeriodSeconds":0}}`)).Do(ctx).Error())
	w.podGone("bound")
}

func downwardNames(w *world) {
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	text := w.prints(pod("names", `echo "$NODE $ACCOUNT $LABEL $NOTE"; echo "$IPS $HOST $UID_"`, env("NODE", field("spec.nodeName")), env("ACCOUNT", field("spec.serviceAccountName")), env("LABEL", field("metadata.labels['name']")),
		env("NOTE", field("metadata.annotations['note']")), env("IPS", field("status.podIPs")), env("HOST", field("status.hostIP")), env("UID_", field("metadata.uid")), func(p *corev1.Pod) { p.Annotations = map[string]string{"note": "written"} }))
	p := w.get("names")
	same("names", text, fmt.Sprintf("%s default names written\n%s %s %s", p.Spec.NodeName, p.Status.PodIP, p.Status.HostIP, p.UID))
}

func hookNamed(w *world) {
	target := w.ready(server("handler", nil))
	w.ready(pod("hooked", sleepScript, first(func(c *corev1.Container) {
		c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: target.Status.PodIP, Path: "/hostname", Port: intstr.FromString("far")}}}
		c.Ports = []corev1.ContainerPort{{Name: "far", ContainerPort: 8080}}
	})))
}

func affinities(w *world) {
	node, key := w.labelled("near")
	in := func(values ...string) *corev1.NodeSelector {
		return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}}}}}
	}
	required := func(s *corev1.NodeSelector) edit {
		return func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: s}}
		}
	}
	same("node", w.ready(pod("near", sleepScript, required(in("near", "other")))).Spec.NodeName, node)
	w.create(pod("nowhere", sleepScript, required(in("none"))))
	w.refusedPlace("nowhere", "node(s) didn't match Pod's node affinity/selector")
	term := corev1.PodAffinityTerm{LabelSelector: selecting("near"), TopologyKey: "kubernetes.io/hostname"}
	same("beside it", w.ready(pod("beside", sleepScript, func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
	})).Spec.NodeName, node)
	apart := w.ready(pod("apart", sleepScript, func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
	}))
	same("away from it", apart.Spec.NodeName == node, false)
	spread := func(p *corev1.Pod) {
		p.Labels = map[string]string{"spread": "yes"}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "kubernetes.io/hostname", WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"spread": "yes"}}}}
	}
	one, two := w.ready(pod("spread-1", sleepScript, spread)), w.ready(pod("spread-2", sleepScript, spread))
	same("spread", one.Spec.NodeName == two.Spec.NodeName, false)
}

func toleratesTaints(w *world) {
	node, key := w.labelled("taint")
	on := func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: "taint"} }
	taint := "kubernetes.io/e2e-" + w.ns + "=testing:NoSchedule"
	w.kubectl("taint", "node", node, taint)
	w.Cleanup(func() { _, _ = w.tryKubectl("taint", "node", node, taint+"-") })
	w.ready(pod("tolerant", sleepScript, on, func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: key, Value: "testing", Effect: corev1.TaintEffectNoSchedule}}
	}))
	w.create(pod("still", sleepScript, on))
	w.refusedPlace("still", "untolerated taint")
	w.kubectl("taint", "node", node, taint+"-")
	w.isReady("still")
}
