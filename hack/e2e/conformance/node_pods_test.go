//go:build e2e

package conformance

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

var nodePods = []behaviour{
	{name: "Pods should get a host IP", test: podHostIP},
	{name: "Pods should be submitted and removed", test: podSubmittedAndRemoved},
	{name: "Pods should be updated", test: podUpdated},
	{name: "Pods should allow activeDeadlineSeconds to be updated", test: podDeadline},
	{name: "Pods should contain environment variables for services", test: podServiceEnvironment},
	{name: "Pods should delete a collection of pods", test: podCollection},
	{name: "Pods should run through the lifecycle of Pods and PodStatus", test: podLifecycle},
	{name: "Pods should patch a pod status", test: podStatusPatch},
	{name: "Pods should support remote command execution over websockets", test: podExecSocket},
	{name: "Pods should support retrieving logs from the container over websockets", test: podLogSocket},
	{name: "Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu", test: podQOS},
	{name: "Pod Generation pod generation should start at 1 and increment per update", test: podGeneration},
	{name: "Pod Generation custom-set generation on new pods and graceful delete", test: podGenerationDelete},
	{name: "Pod Generation issue 500 podspec updates and verify generation and observedGeneration eventually converge", test: podGeneration500},
	{name: "Pod Generation pod rejected by kubelet should have updated generation and observedGeneration", test: podGenerationRejected},
	{name: "Ephemeral Containers will start an ephemeral container in an existing pod", test: podEphemeral},
	{name: "Ephemeral Containers should update the ephemeral containers in an existing pod", test: podEphemeralUpdate},
	{name: "Delete Grace Period should be submitted and removed", test: podGracefulDelete},
}

const sleepScript = "trap exit TERM; while :; do sleep 1; done"

func podHostIP(w *world) {
	p := w.ready(pod("host-ip", sleepScript))
	if net.ParseIP(p.Status.HostIP) == nil || len(p.Status.HostIPs) == 0 || p.Status.HostIPs[0].IP != p.Status.HostIP {
		fatal("host IP %q, %v", p.Status.HostIP, p.Status.HostIPs)
	}
	if net.ParseIP(p.Status.PodIP) == nil || len(p.Status.PodIPs) == 0 || p.Status.PodIPs[0].IP != p.Status.PodIP {
		fatal("pod IP %q, %v", p.Status.PodIP, p.Status.PodIPs)
	}
}

func podSubmittedAndRemoved(w *world) {
	pods := api.CoreV1().Pods(w.ns)
	selector := metav1.ListOptions{LabelSelector: "name=removed"}
	list := must(pods.List(ctx, selector))
	same("pods before", len(list.Items), 0)
	follow := must(pods.Watch(ctx, metav1.ListOptions{LabelSelector: "name=removed", ResourceVersion: list.ResourceVersion}))
	defer follow.Stop()
	w.create(pod("removed", sleepScript, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(30)) }))
	same("first event", (<-follow.ResultChan()).Type, watch.Added)
	w.isReady("removed")
	done(pods.Delete(ctx, "removed", *metav1.NewDeleteOptions(30)))
	var last *corev1.Pod
	limit := time.After(60 * time.Second)
	for deleted := false; !deleted; {
		select {
		case e := <-follow.ResultChan():
			p, ok := e.Object.(*corev1.Pod)
			if !ok {
				fatal("event %v", e)
			}
			deleted, last = e.Type == watch.Deleted, p
		case <-limit:
			fatal("no deletion is seen")
		}
	}
	if last.DeletionTimestamp == nil || last.Spec.TerminationGracePeriodSeconds == nil {
		fatal("deleted object lacks its deletion time: %v", last)
	}
	same("pods after", len(must(pods.List(ctx, selector)).Items), 0)
}

func podUpdated(w *world) {
	w.ready(pod("updated", sleepScript))
	pods := api.CoreV1().Pods(w.ns)
	done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		p := w.get("updated")
		p.Labels["time"] = "later"
		_, err := pods.Update(ctx, p, metav1.UpdateOptions{})
		return err
	}))
	same("pods by label", len(must(pods.List(ctx, metav1.ListOptions{LabelSelector: "time=later"})).Items), 1)
}

func podDeadline(w *world) {
	w.ready(pod("deadline", sleepScript))
	done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		p := w.get("deadline")
		p.Spec.ActiveDeadlineSeconds = ptr(int64(5))
		_, err := api.CoreV1().Pods(w.ns).Update(ctx, p, metav1.UpdateOptions{})
		return err
	}))
	p := w.phase("deadline", corev1.PodFailed)
	same("reason", p.Status.Reason, "DeadlineExceeded")
	same("message", p.Status.Message, "Pod was active on the node longer than the specified deadline")
}

func podServiceEnvironment(w *world) {
	w.ready(server("env-server", nil))
	w.service("fooservice", map[string]string{"name": "env-server"}, 8765, 8080)
	text := w.prints(pod("env-client", "env"))
	s := must(api.CoreV1().Services(w.ns).Get(ctx, "fooservice", metav1.GetOptions{}))
	for _, want := range []string{"FOOSERVICE_SERVICE_HOST=" + s.Spec.ClusterIP, "FOOSERVICE_SERVICE_PORT=8765", "FOOSERVICE_PORT=tcp://" + s.Spec.ClusterIP + ":8765",
		"FOOSERVICE_PORT_8765_TCP_PORT=8765", "FOOSERVICE_PORT_8765_TCP_PROTO=tcp", "FOOSERVICE_PORT_8765_TCP=tcp://" + s.Spec.ClusterIP + ":8765",
		"FOOSERVICE_PORT_8765_TCP_ADDR=" + s.Spec.ClusterIP, "KUBERNETES_SERVICE_HOST=", "KUBERNETES_SERVICE_PORT_HTTPS=443"} {
		contains(text, want)
	}
}

func podCollection(w *world) {
	for i := range 3 {
		w.create(pod(fmt.Sprintf("set-%d", i), sleepScript, func(p *corev1.Pod) { p.Labels["type"] = "set" }))
	}
	pods := api.CoreV1().Pods(w.ns)
	selector := metav1.ListOptions{LabelSelector: "type=set"}
	same("pods", len(must(pods.List(ctx, selector)).Items), 3)
	done(pods.DeleteCollection(ctx, metav1.DeleteOptions{}, selector))
	w.until(startLimit, "collection gone", func() error {
		return differs("pods", len(must(pods.List(ctx, selector)).Items), 0)
	})
}

func podLifecycle(w *world) {
	pods := api.CoreV1().Pods(w.ns)
	w.ready(pod("life", sleepScript, restart(corev1.RestartPolicyAlways)))
	must(pods.Patch(ctx, "life", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"state":"patched"}},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"`+pauseImage+`"}]}}`), metav1.PatchOptions{}))
	p := w.get("life")
	same("image", p.Spec.Containers[0].Image, pauseImage)
	status := w.part("life", "status")
	same("phase", status.Status.Phase, corev1.PodRunning)
	must(pods.Patch(ctx, "life", types.MergePatchType, []byte(`{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`), metav1.PatchOptions{}, "status"))
	done(pods.DeleteCollection(ctx, *metav1.NewDeleteOptions(1), metav1.ListOptions{LabelSelector: "state=patched"}))
	w.podGone("life")
}

const pauseImage = "registry.sextant.local/pause:3.10"

func podStatusPatch(w *world) {
	w.ready(pod("status", sleepScript))
	p := must(api.CoreV1().Pods(w.ns).Patch(ctx, "status", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"patched":"yes"}},"status":{"message":"Patched by e2e test","reason":"E2E"}}`), metav1.PatchOptions{}, "status"))
	same("message", p.Status.Message, "Patched by e2e test")
	same("reason", p.Status.Reason, "E2E")
}

// socket opens a WebSocket to a path under a subprotocol, and reads until enough was said.
func (w *world) socket(request *rest.Request, protocol string, read func(kind int, data []byte) bool) {
	w.Helper()
	tlsConfig := must(rest.TLSConfigFor(config))
	dialer := websocket.Dialer{TLSClientConfig: tlsConfig, HandshakeTimeout: 10 * time.Second}
	if protocol != "" {
		dialer.Subprotocols = []string{protocol}
	}
	url := request.URL()
	url.Scheme = "wss"
	conn, _, err := dialer.Dial(url.String(), nil)
	done(err)
	defer conn.Close() //nolint:errcheck // only read
	done(conn.SetReadDeadline(time.Now().Add(20 * time.Second)))
	for {
		kind, data, err := conn.ReadMessage()
		done(err)
		if read(kind, data) {
			return
		}
	}
}

func podExecSocket(w *world) {
	w.ready(pod("socket", sleepScript))
	var said strings.Builder
	request := api.CoreV1().RESTClient().Get().Resource("pods").Namespace(w.ns).Name("socket").SubResource("exec").
		Param("stderr", "1").Param("stdout", "1").Param("container", "c").Param("command", "echo").Param("command", "remote execution test")
	w.socket(request, "v4.channel.k8s.io", func(_ int, data []byte) bool {
		if len(data) > 1 {
			switch data[0] {
			case 1:
				said.Write(data[1:])
			case 3:
				contains(string(data[1:]), `"status":"Success"`)
			default:
				fatal("channel %d says %q", data[0], data[1:])
			}
		}
		return strings.Contains(said.String(), "remote execution test")
	})
}

func podLogSocket(w *world) {
	w.create(pod("socket-log", "echo container is alive; sleep 10000"))
	w.isReady("socket-log")
	for _, protocol := range []string{"", "binary.k8s.io"} {
		var said strings.Builder
		request := api.CoreV1().RESTClient().Get().Resource("pods").Namespace(w.ns).Name("socket-log").SubResource("log").Param("container", "c")
		w.socket(request, protocol, func(_ int, data []byte) bool {
			if len(strings.TrimSpace(string(data))) > 0 {
				said.Write(data)
			}
			return said.String() == "container is alive\n"
		})
	}
}

func resources(cpu, memory string) corev1.ResourceList {
	l := corev1.ResourceList{}
	if cpu != "" {
		l[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return l
}

func podQOS(w *world) {
	for want, r := range map[corev1.PodQOSClass]corev1.ResourceRequirements{
		corev1.PodQOSGuaranteed: {Requests: resources("10m", "10Mi"), Limits: resources("10m", "10Mi")},
		corev1.PodQOSBurstable:  {Requests: resources("10m", "")},
		corev1.PodQOSBestEffort: {},
	} {
		p := w.create(pod("qos-"+strings.ToLower(string(want)), "true", first(func(c *corev1.Container) { c.Resources = r })))
		same("class", w.get(p.Name).Status.QOSClass, want)
	}
}

// observed waits until the kubelet has seen a generation.
func (w *world) observed(name string, want int64) {
	w.Helper()
	w.until(startLimit, "observed generation", func() error {
		p := w.get(name)
		if err := differs("generation", p.Generation, want); err != nil {
			return err
		}
		return differs("observed generation", p.Status.ObservedGeneration, want)
	})
}

func podGeneration(w *world) {
	pods := api.CoreV1().Pods(w.ns)
	p := w.create(pod("gen", sleepScript, first(func(c *corev1.Container) {
		c.Resources = corev1.ResourceRequirements{Requests: resources("50m", "10Mi"), Limits: resources("100m", "20Mi")}
	})))
	same("generation", p.Generation, 1)
	w.isReady("gen")
	w.observed("gen", 1)
	change := func(want int64, update func(p *corev1.Pod), subresource string) {
		done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
			p := w.get("gen")
			update(p)
			var err error
			switch subresource {
			case "":
				_, err = pods.Update(ctx, p, metav1.UpdateOptions{})
			case "ephemeralcontainers":
				_, err = pods.UpdateEphemeralContainers(ctx, "gen", p, metav1.UpdateOptions{})
			case "resize":
				_, err = pods.UpdateResize(ctx, "gen", p, metav1.UpdateOptions{})
			}
			return err
		}))
		w.observed("gen", want)
	}
	change(2, func(p *corev1.Pod) {
		p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists})
	}, "")
	change(3, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr(int64(5000)) }, "")
	change(4, func(p *corev1.Pod) { p.Spec.Containers[0].Image = coredns }, "")
	change(4, func(p *corev1.Pod) { p.Labels["more"] = "yes" }, "")
	change(5, func(p *corev1.Pod) {
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: image, Command: []string{"sleep", "1000"}, TerminationMessagePolicy: corev1.TerminationMessageReadFile, ImagePullPolicy: corev1.PullIfNotPresent}})
	}, "ephemeralcontainers")
	change(6, func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = resources("60m", "10Mi") }, "resize")
}

func podGenerationDelete(w *world) {
	p := pod("gen-del", sleepScript, func(p *corev1.Pod) { p.Generation = 100; p.Finalizers = []string{"example.com/hold"} })
	p = w.create(p)
	same("generation", p.Generation, 1)
	w.isReady("gen-del")
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "gen-del", metav1.DeleteOptions{}))
	same("generation", w.get("gen-del").Generation, 2)
	w.until(startLimit, "the deletion is observed", func() error {
		return differs("observed generation", w.get("gen-del").Status.ObservedGeneration, 2)
	})
	must(api.CoreV1().Pods(w.ns).Patch(ctx, "gen-del", types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`), metav1.PatchOptions{}))
	w.podGone("gen-del")
}

func podGeneration500(w *world) {
	w.ready(pod("gen-500", sleepScript))
	pods := api.CoreV1().Pods(w.ns)
	for i := range 499 {
		must(pods.Patch(ctx, "gen-500", types.StrategicMergePatchType, fmt.Appendf(nil, `{"spec":{"activeDeadlineSeconds":%d}}`, 100000-i), metav1.PatchOptions{}))
	}
	w.observed("gen-500", 500)
}

func podGenerationRejected(w *world) {
	node := w.node()
	p := w.create(pod("gen-reject", sleepScript, func(p *corev1.Pod) {
		p.Spec.NodeName = node.Name
		p.Spec.NodeSelector = map[string]string{"no-such": "label"}
	}))
	same("generation", p.Generation, 1)
	p = w.phase("gen-reject", corev1.PodFailed)
	same("reason", p.Status.Reason, "NodeAffinity")
	w.observed("gen-reject", 1)
}

func podEphemeral(w *world) {
	w.ready(pod("eph", sleepScript))
	pods := api.CoreV1().Pods(w.ns)
	p := w.get("eph")
	p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "debugger", Image: image, Command: []string{"sh", "-c", "echo polo; while read l; do echo $l; done"}, Stdin: true, TTY: true}})
	must(pods.UpdateEphemeralContainers(ctx, "eph", p, metav1.UpdateOptions{}))
	w.until(startLimit, "the ephemeral container runs", func() error {
		for _, s := range w.get("eph").Status.EphemeralContainerStatuses {
			if s.Name == "debugger" && s.State.Running != nil {
				return nil
			}
		}
		return errGone
	})
	w.says("eph", "debugger", "polo", 10*time.Second)
	same("exec in it", must(w.exec("eph", "debugger", "echo", "marco")), "marco")
}

func podEphemeralUpdate(w *world) {
	w.ready(pod("eph-up", sleepScript))
	pods := api.CoreV1().Pods(w.ns)
	must(pods.Patch(ctx, "eph-up", types.StrategicMergePatchType, []byte(`{"spec":{"ephemeralContainers":[{"name":"one","image":"`+image+`","command":["sleep","1000"]}]}}`), metav1.PatchOptions{}, "ephemeralcontainers"))
	same("ephemeral containers", len(w.part("eph-up", "ephemeralcontainers").Spec.EphemeralContainers), 1)
	change := func(to func(have []corev1.EphemeralContainer) []corev1.EphemeralContainer) error {
		return retry.RetryOnConflict(retry.DefaultRetry, func() error {
			p := w.part("eph-up", "ephemeralcontainers")
			p.Spec.EphemeralContainers = to(p.Spec.EphemeralContainers)
			_, err := pods.UpdateEphemeralContainers(ctx, "eph-up", p, metav1.UpdateOptions{})
			return err
		})
	}
	done(change(func(have []corev1.EphemeralContainer) []corev1.EphemeralContainer {
		second := have[0].DeepCopy()
		second.Name = "two"
		return append(have, *second)
	}))
	same("ephemeral containers", len(w.get("eph-up").Spec.EphemeralContainers), 2)
	refused(change(func(have []corev1.EphemeralContainer) []corev1.EphemeralContainer { return have[:1] }), apierrors.IsInvalid)
}

func podGracefulDelete(w *world) {
	w.ready(pod("grace", "trap 'sleep 3; exit 0' TERM; while :; do sleep 1; done", func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = ptr(int64(30))
	}))
	start := time.Now()
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "grace", *metav1.NewDeleteOptions(30)))
	p := w.get("grace")
	if p.DeletionTimestamp == nil || p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds != 30 {
		fatal("deletion is not told: %v", p.ObjectMeta)
	}
	w.podGone("grace")
	if took := time.Since(start); took < 3*time.Second || took > 25*time.Second {
		fatal("gone after %s", took)
	}
}

func contains(text, part string) {
	if !strings.Contains(text, part) {
		fatal("%q is not in %q", part, text)
	}
}

// update changes a pod, as often as another was quicker.
func (w *world) update(name string, change func(p *corev1.Pod)) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		p := w.get(name)
		change(p)
		_, err := api.CoreV1().Pods(w.ns).Update(ctx, p, metav1.UpdateOptions{})
		return err
	})
}

// node answers one that takes pods.
func (w *world) node() corev1.Node {
	w.Helper()
	for _, n := range must(api.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/hostname"})).Items {
		if !n.Spec.Unschedulable && len(n.Spec.Taints) == 0 {
			return n
		}
	}
	fatal("no node takes pods")
	return corev1.Node{}
}

// service makes one of type ClusterIP.
func (w *world) service(name string, selector map[string]string, port, target int32, edits ...func(s *corev1.Service)) *corev1.Service {
	w.Helper()
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}},
		Spec:       corev1.ServiceSpec{Selector: selector, Ports: []corev1.ServicePort{{Name: "http", Port: port, TargetPort: intPort(target)}}},
	}
	for _, e := range edits {
		e(s)
	}
	return must(api.CoreV1().Services(w.ns).Create(ctx, s, metav1.CreateOptions{}))
}
