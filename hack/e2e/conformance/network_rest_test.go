//go:build e2e

package conformance

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var networkRest = []behaviour{
	{name: "Services should be served by the name of a port, at an external address, and without a selector", test: serveNamed},
	{name: "Services should be served on the node alone where the policy is local", test: serveLocally},
	{name: "Services should tell of pods that are not ready, and of those that end", test: servePublished},
	{name: "Services should be implemented by another proxy, or as headless, where they say so", test: serveOthers},
	{name: "Services should be unreachable without endpoints, and forget what is deleted", test: serveNobody},
	{name: "EndpointSlice should say where an endpoint is, and by which port", test: slicesTell},
}

func serveNamed(w *world) {
	p := w.ready(server("named", nil, first(func(c *corev1.Container) {
		c.Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}
	})))
	w.service("named", map[string]string{"name": "named"}, 80, 80, func(s *corev1.Service) {
		s.Spec.Ports[0].TargetPort = intstr.FromString("web")
		s.Spec.ExternalIPs = []string{"192.0.2.77"}
	})
	from := w.client("client")
	w.reaches(from, "http://named/hostname", answers("named"))
	w.reaches(from, "http://192.0.2.77/hostname", answers("named"))
	bare := w.service("bare", nil, 80, 8080)
	must(api.DiscoveryV1().EndpointSlices(w.ns).Create(ctx, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "by-hand", Labels: map[string]string{discoveryv1.LabelServiceName: "bare"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{p.Status.PodIP}}}, Ports: []discoveryv1.EndpointPort{{Name: &bare.Spec.Ports[0].Name, Port: ptr(int32(8080)), Protocol: ptr(corev1.ProtocolTCP)}}}, metav1.CreateOptions{}))
	w.until(60*time.Second, "the service without a selector serves", func() error {
		text, err := w.exec(from, "", "tester", "fetch", "-timeout", "2s", "http://bare/hostname")
		if err != nil {
			return err
		}
		return differs("answer", text, "named")
	})
}

func serveLocally(w *world) {
	p := w.ready(server("only", nil))
	s := w.service("only", map[string]string{"name": "only"}, 80, 8080, func(s *corev1.Service) {
		s.Spec.InternalTrafficPolicy = ptr(corev1.ServiceInternalTrafficPolicyLocal)
	})
	beside := func(name string, same bool) string {
		return w.ready(pod(name, sleepScript, func(q *corev1.Pod) {
			op := corev1.NodeSelectorOpIn
			if !same {
				op = corev1.NodeSelectorOpNotIn
			}
			q.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "kubernetes.io/hostname", Operator: op, Values: []string{p.Spec.NodeName}}}}}}}}
		})).Name
	}
	near, far := beside("near", true), beside("far", false)
	url := "http://" + s.Spec.ClusterIP + "/hostname"
	w.reaches(near, url, answers("only"))
	w.unreachable(far, url)
	must(api.CoreV1().Services(w.ns).Patch(ctx, "only", types.MergePatchType, []byte(`{"spec":{"internalTrafficPolicy":"Cluster"}}`), metav1.PatchOptions{}))
	w.reaches(far, url, answers("only"))
}

func servePublished(w *world) {
	w.service("early", map[string]string{"name": "early"}, 80, 8080, func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true })
	w.create(server("early", nil, first(func(c *corev1.Container) { c.ReadinessProbe = &corev1.Probe{ProbeHandler: execProbe("false")} })))
	from := w.client("client")
	w.reaches(from, "http://early/hostname", answers("early"))
	same("ready", ready(w.get("early")), false)
	w.service("late", map[string]string{"name": "late"}, 80, 8080)
	w.ready(server("late", nil, func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = ptr(int64(20))
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 15}}}
	}))
	w.reaches(from, "http://late/hostname", answers("late"))
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "late", metav1.DeleteOptions{}))
	w.until(10*time.Second, "the slice says that it ends", func() error {
		for _, s := range w.slices("late") {
			for _, e := range s.Endpoints {
				c := e.Conditions
				return differs("ready, serving, terminating", fmt.Sprint(*c.Ready, *c.Serving, *c.Terminating), "false true true")
			}
		}
		return errGone
	})
	// It is all there is, so it serves until it is gone.
	w.reaches(from, "http://late/hostname", answers("late"))
}

func serveOthers(w *world) {
	w.ready(server("pod1", nil))
	from := w.client("client")
	s := w.service("other", map[string]string{"name": "pod1"}, 80, 8080, func(s *corev1.Service) {
		s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "nobody"}
	})
	up := w.service("up", map[string]string{"name": "pod1"}, 80, 8080)
	w.reaches(from, "http://"+up.Spec.ClusterIP+"/hostname", answers("pod1"))
	w.unreachable(from, "http://"+s.Spec.ClusterIP+"/hostname")
	must(api.CoreV1().Services(w.ns).Patch(ctx, "other", types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), metav1.PatchOptions{}))
	w.reaches(from, "http://"+s.Spec.ClusterIP+"/hostname", answers("pod1"))
	must(api.CoreV1().Services(w.ns).Patch(ctx, "up", types.MergePatchType, []byte(`{"metadata":{"labels":{"service.kubernetes.io/headless":""}}}`), metav1.PatchOptions{}))
	w.unreachable(from, "http://"+up.Spec.ClusterIP+"/hostname")
}

func serveNobody(w *world) {
	from := w.client("client")
	s := w.service("nobody", map[string]string{"name": "nobody"}, 80, 8080, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort })
	w.until(30*time.Second, "it is refused at once", func() error {
		begun := time.Now()
		_, err := w.exec(from, "", "tester", "fetch", "-timeout", "9s", "http://"+s.Spec.ClusterIP+"/hostname")
		return differs("refused", err != nil && time.Since(begun) < 5*time.Second, true)
	})
	w.ready(server("nobody", nil))
	w.reaches(from, "http://"+s.Spec.ClusterIP+"/hostname", answers("nobody"))
	done(api.CoreV1().Services(w.ns).Delete(ctx, "nobody", metav1.DeleteOptions{}))
	w.unreachable(from, "http://"+s.Spec.ClusterIP+"/hostname")
	w.unreachable(from, fmt.Sprintf("http://%s:%d/hostname", w.nodeIPs()[0], s.Spec.Ports[0].NodePort))
	w.until(30*time.Second, "its slices are gone", func() error { return differs("slices", len(w.slices("nobody")), 0) })
}

func slicesTell(w *world) {
	p := w.ready(server("told", nil, func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "h", "told" }))
	w.service("told", map[string]string{"name": "told"}, 80, 8080, func(s *corev1.Service) {
		s.Spec.ClusterIP = corev1.ClusterIPNone
		s.Spec.Ports[0].Name, s.Spec.Ports[0].AppProtocol = "web", ptr("kubernetes.io/h2c")
	})
	w.endpoints("told", "told")
	s := w.slices("told")[0]
	e := s.Endpoints[0]
	same("node, host, pod", fmt.Sprint(*e.NodeName, *e.Hostname, e.TargetRef.Kind, e.TargetRef.Name, e.TargetRef.UID), fmt.Sprint(p.Spec.NodeName, "h", "Pod", "told", p.UID))
	same("port", fmt.Sprint(*s.Ports[0].Name, *s.Ports[0].Port, *s.Ports[0].Protocol, *s.Ports[0].AppProtocol), "web8080TCPkubernetes.io/h2c")
	same("manager and mark", s.Labels[discoveryv1.LabelManagedBy]+" "+fmt.Sprint(metav1.GetControllerOf(&s).Name), "endpointslice-controller.k8s.io told")
	_, marked := s.Labels["service.kubernetes.io/headless"]
	same("headless", marked, true)
	must(api.CoreV1().Pods(w.ns).Patch(ctx, "told", types.MergePatchType, []byte(`{"metadata":{"labels":{"name":"other"}}}`), metav1.PatchOptions{}))
	w.endpoints("told")
}
