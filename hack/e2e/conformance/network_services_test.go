//go:build e2e

package conformance

import (
	"fmt"
	"net"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

var networkServices = []behaviour{
	{name: "Services should provide secure master service", test: masterService},
	{name: "Services should find a service from listing all namespaces", test: masterListed},
	{name: "API Server should have Endpoints and EndpointSlices pointing to API Server", test: masterEndpoints},
	{name: "Services should serve a basic endpoint from pods", test: serveBasic},
	{name: "Services should serve multiport endpoints from pods", test: serveMultiport},
	{name: "Services should be able to create a functioning NodePort service", test: serveNodePort},
	{name: "Services should be able to update service type to NodePort listening on same port number but different protocols", test: serveTwoProtocols},
	{name: "Services should be able to change the type from ExternalName to ClusterIP", test: changeType(corev1.ServiceTypeExternalName, corev1.ServiceTypeClusterIP)},
	{name: "Services should be able to change the type from ExternalName to NodePort", test: changeType(corev1.ServiceTypeExternalName, corev1.ServiceTypeNodePort)},
	{name: "Services should be able to change the type from ClusterIP to ExternalName", test: changeType(corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName)},
	{name: "Services should be able to change the type from NodePort to ExternalName", test: changeType(corev1.ServiceTypeNodePort, corev1.ServiceTypeExternalName)},
	{name: "Services should have session affinity work for service with type clusterIP", test: affinity(corev1.ServiceTypeClusterIP, false)},
	{name: "Services should have session affinity work for NodePort service", test: affinity(corev1.ServiceTypeNodePort, false)},
	{name: "Services should be able to switch session affinity for service with type clusterIP", test: affinity(corev1.ServiceTypeClusterIP, true)},
	{name: "Services should be able to switch session affinity for NodePort service", test: affinity(corev1.ServiceTypeNodePort, true)},
	{name: "Services should complete a service status lifecycle", test: serviceStatus},
	{name: "Services should delete a collection of services", test: serviceCollection},
	{name: "Services should test the lifecycle of an Endpoint", test: endpointLifecycle},
	{name: "EndpointSlice should create and delete Endpoints and EndpointSlices for a Service with a selector that matches no pods", test: slicesEmpty},
	{name: "EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service", test: slicesOfPods},
	{name: "EndpointSlice should support a Service with multiple endpoint IPs specified in multiple EndpointSlices", test: slicesByHand},
	{name: "EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete", test: slicesMirrored},
	{name: "EndpointSlice should support creating EndpointSlice API operations", test: operations(kind{name: "EndpointSlice", resource: "discovery.k8s.io/v1 endpointslices", namespaced: true, manifest: `{"addressType":"IPv4","endpoints":[{"addresses":["1.2.3.4"]}]}`})},
	{name: "Ingress API should support creating Ingress API operations", test: operations(kind{name: "Ingress", resource: "networking.k8s.io/v1 ingresses", namespaced: true, manifest: `{"spec":{"defaultBackend":{"service":{"name":"s","port":{"number":80}}}}}`,
		status: `{"status":{"loadBalancer":{"ingress":[{"ip":"169.1.1.1"}]}}}`, statusPath: "status.loadBalancer.ingress.0.ip", statusValue: "169.1.1.1"})},
	{name: "IngressClass API should support creating IngressClass API operations", test: operations(kind{name: "IngressClass", resource: "networking.k8s.io/v1 ingressclasses", manifest: `{"spec":{"controller":"example.com/c"}}`})},
	{name: "NetworkPolicy API should support creating NetworkPolicy API operations", test: operations(kind{name: "NetworkPolicy", resource: "networking.k8s.io/v1 networkpolicies", namespaced: true, manifest: `{"spec":{"podSelector":{}}}`})},
	{name: "ServiceCIDR and IPAddress API should support ServiceCIDR API operations", test: serviceCIDR},
	{name: "Networking Granular Checks: Pods should function for intra-pod and node-pod communication: http and udp", test: granular},
	{name: "Networking a service is reached from outside, from a node and from its own pod", test: hairpin},
	{name: "HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol", test: hostPorts},
}

func masterService(w *world) {
	s := must(api.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{}))
	same("type", s.Spec.Type, corev1.ServiceTypeClusterIP)
	same("port", s.Spec.Ports[0].Port, 443)
	same("name", s.Spec.Ports[0].Name, "https")
	contains(w.prints(pod("asks", "tester fetch -insecure https://kubernetes.default/version")), "gitVersion")
}

func masterListed(_ *world) {
	for _, s := range must(api.CoreV1().Services("").List(ctx, metav1.ListOptions{})).Items {
		if s.Name == "kubernetes" && s.Namespace == "default" {
			return
		}
	}
	fatal("the service is not listed")
}

func masterEndpoints(_ *world) {
	e := must(api.CoreV1().Endpoints("default").Get(ctx, "kubernetes", metav1.GetOptions{}))
	slices := must(api.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"}))
	same("slices", len(slices.Items), 1)
	same("address", slices.Items[0].Endpoints[0].Addresses[0], e.Subsets[0].Addresses[0].IP)
	same("slice name", slices.Items[0].Name, "kubernetes")
}

// reaches waits until a fetch from a pod gives an answer that is wanted.
func (w *world) reaches(from, url string, wanted func(answer string) bool) {
	w.Helper()
	w.until(60*time.Second, from+" reaches "+url, func() error {
		text, err := w.exec(from, "", "tester", "fetch", url)
		if err == nil && !wanted(text) {
			err = fmt.Errorf("it answers %q", text)
		}
		return err
	})
}

func answers(want ...string) func(string) bool {
	return func(got string) bool {
		for _, x := range want {
			if got == x {
				return true
			}
		}
		return false
	}
}

// unreachable waits until a fetch from a pod fails.
func (w *world) unreachable(from, url string) {
	w.Helper()
	w.until(60*time.Second, url+" is closed", func() error {
		if _, err := w.exec(from, "", "tester", "fetch", "-timeout", "1s", url); err != nil {
			return nil
		}
		return errGone
	})
}

// endpoints waits until a service has the pods' addresses, in its Endpoints and its EndpointSlices.
func (w *world) endpoints(service string, pods ...string) {
	w.Helper()
	w.until(60*time.Second, "endpoints of "+service, func() error {
		want := map[string]bool{}
		for _, p := range pods {
			want[w.get(p).Status.PodIP] = true
		}
		e, err := api.CoreV1().Endpoints(w.ns).Get(ctx, service, metav1.GetOptions{})
		if err != nil {
			return err
		}
		got := 0
		for _, s := range e.Subsets {
			for _, a := range s.Addresses {
				if !want[a.IP] {
					return fmt.Errorf("%s is an endpoint", a.IP)
				}
				got++
			}
		}
		if got != len(pods) {
			return differs("endpoints", got, len(pods))
		}
		found := 0
		for _, s := range must(api.DiscoveryV1().EndpointSlices(w.ns).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})).Items {
			for _, e := range s.Endpoints {
				if want[e.Addresses[0]] {
					found++
				}
			}
		}
		return differs("slices", found, len(pods))
	})
}

func (w *world) client(name string) string {
	w.Helper()
	w.ready(pod(name, sleepScript))
	return name
}

func serveBasic(w *world) {
	w.service("basic", map[string]string{"app": "basic"}, 80, 8080)
	w.endpoints("basic")
	from := w.client("client")
	app := func(p *corev1.Pod) { p.Labels["app"] = "basic" }
	w.ready(server("pod1", nil, app))
	w.endpoints("basic", "pod1")
	w.reaches(from, "http://basic/hostname", answers("pod1"))
	w.ready(server("pod2", nil, app))
	w.endpoints("basic", "pod1", "pod2")
	w.reaches(from, "http://basic/hostname", answers("pod2"))
	w.remove("pod1")
	w.endpoints("basic", "pod2")
	w.reaches(from, "http://basic/hostname", answers("pod2"))
	w.remove("pod2")
	w.endpoints("basic")
	w.unreachable(from, "http://basic/hostname")
}

func serveMultiport(w *world) {
	s := w.service("multi", map[string]string{"app": "multi"}, 80, 100, func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{{Name: "portname1", Port: 80, TargetPort: intPort(8080)}, {Name: "portname2", Port: 81, TargetPort: intPort(8090)}}
	})
	app := func(p *corev1.Pod) { p.Labels["app"] = "multi" }
	from := w.client("client")
	w.ready(server("pod1", nil, app))
	p2 := server("pod2", []string{"-http", "8090"}, app)
	p2.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: httpGet("/hostname", 8090)}
	p2.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8090}}
	w.ready(p2)
	w.reaches(from, "http://"+s.Spec.ClusterIP+":80/hostname", answers("pod1"))
	w.reaches(from, "http://"+s.Spec.ClusterIP+":81/hostname", answers("pod2"))
}

func (w *world) nodeIPs() []string {
	w.Helper()
	var ips []string
	for _, n := range must(api.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/hostname"})).Items {
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				ips = append(ips, a.Address)
			}
		}
	}
	return ips
}

func serveNodePort(w *world) {
	w.ready(server("pod1", nil))
	s := w.service("port", map[string]string{"name": "pod1"}, 80, 8080, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort })
	from := w.client("client")
	w.reaches(from, "http://port/hostname", answers("pod1"))
	w.reaches(from, "http://"+s.Spec.ClusterIP+"/hostname", answers("pod1"))
	for _, ip := range w.nodeIPs() {
		w.reaches(from, fmt.Sprintf("http://%s:%d/hostname", ip, s.Spec.Ports[0].NodePort), answers("pod1"))
	}
}

func serveTwoProtocols(w *world) {
	w.ready(server("pod1", []string{"-udp", "8081"}))
	s := w.service("both", map[string]string{"name": "pod1"}, 80, 8080)
	s.Spec.Type = corev1.ServiceTypeNodePort
	s.Spec.Ports = []corev1.ServicePort{
		{Name: "tcp-port", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intPort(8080)}, {Name: "udp-port", Port: 80, Protocol: corev1.ProtocolUDP, TargetPort: intPort(8081)}}
	s = must(api.CoreV1().Services(w.ns).Update(ctx, s, metav1.UpdateOptions{}))
	from := w.client("client")
	for _, ip := range append(w.nodeIPs(), "") {
		tcp, udp := s.Spec.Ports[0].NodePort, s.Spec.Ports[1].NodePort
		if ip == "" {
			ip, tcp, udp = s.Spec.ClusterIP, 80, 80
		}
		w.reaches(from, fmt.Sprintf("http://%s:%d/hostname", ip, tcp), answers("pod1"))
		w.asks(from, fmt.Sprintf("%s:%d", ip, udp), "pod1")
	}
}

// asks waits until a datagram "hostname" gives the answer.
func (w *world) asks(from, address, want string) {
	w.Helper()
	w.until(60*time.Second, "udp "+address, func() error {
		text, err := w.exec(from, "", "tester", "ask", address, "hostname")
		if err != nil {
			return err
		}
		return differs("answer", text, want)
	})
}

func (w *world) updateService(name string, change func(s *corev1.Service)) *corev1.Service {
	w.Helper()
	var s *corev1.Service
	done(retry.RetryOnConflict(retry.DefaultRetry, func() (err error) {
		s = must(api.CoreV1().Services(w.ns).Get(ctx, name, metav1.GetOptions{}))
		change(s)
		s, err = api.CoreV1().Services(w.ns).Update(ctx, s, metav1.UpdateOptions{})
		return err
	}))
	return s
}

// changeType sees a service change its type; clients may wipe its address themselves.
func changeType(before, after corev1.ServiceType) func(w *world) {
	wipe := before == corev1.ServiceTypeNodePort
	return func(w *world) {
		set := func(s *corev1.Service, to corev1.ServiceType) {
			s.Spec.Type = to
			if to == corev1.ServiceTypeExternalName {
				s.Spec.ExternalName, s.Spec.Ports = "target."+w.ns+".svc.cluster.local", nil
				if wipe {
					s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
				}
				return
			}
			s.Spec.ExternalName = ""
			s.Spec.Ports = []corev1.ServicePort{{Port: 80, Name: "http", Protocol: corev1.ProtocolTCP, TargetPort: intPort(8080)}}
		}
		w.ready(server("pod1", nil))
		target := w.service("target", map[string]string{"name": "pod1"}, 80, 8080)
		s := w.service("change", map[string]string{"name": "pod1"}, 80, 8080, func(s *corev1.Service) { set(s, before) })
		port := int32(0)
		if before == corev1.ServiceTypeExternalName {
			same("cluster IP", s.Spec.ClusterIP, "")
		} else {
			port = s.Spec.Ports[0].NodePort
		}
		from := w.client("client")
		w.reaches(from, "http://change."+w.ns+".svc.cluster.local/hostname", answers("pod1"))
		s = w.updateService("change", func(s *corev1.Service) { set(s, after) })
		if after == corev1.ServiceTypeExternalName {
			same("cluster IP", s.Spec.ClusterIP, "")
			same("ports", len(s.Spec.Ports), 0)
			w.until(60*time.Second, "the name follows", func() error {
				text, err := w.exec(from, "", "tester", "lookup", "change."+w.ns+".svc.cluster.local")
				if err != nil {
					return err
				}
				return differs("address", text, target.Spec.ClusterIP)
			})
			if port > 0 {
				for _, ip := range w.nodeIPs() {
					w.unreachable(from, fmt.Sprintf("http://%s:%d/hostname", ip, port))
				}
			}
			return
		}
		if net.ParseIP(s.Spec.ClusterIP) == nil {
			fatal("cluster IP %q", s.Spec.ClusterIP)
		}
		w.reaches(from, "http://"+s.Spec.ClusterIP+"/hostname", answers("pod1"))
		w.until(60*time.Second, "the name follows", func() error {
			text, err := w.exec(from, "", "tester", "lookup", "change."+w.ns+".svc.cluster.local")
			if err != nil {
				return err
			}
			return differs("address", text, s.Spec.ClusterIP)
		})
		if after == corev1.ServiceTypeNodePort {
			for _, ip := range w.nodeIPs() {
				w.reaches(from, fmt.Sprintf("http://%s:%d/hostname", ip, s.Spec.Ports[0].NodePort), answers("pod1"))
			}
		}
	}
}

// replicas makes a deployment of test servers and waits until they all serve.
func (w *world) replicas(name string, n int32) {
	w.Helper()
	p := server(name, nil, restart(corev1.RestartPolicyAlways))
	p.Name = ""
	must(api.AppsV1().Deployments(w.ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
		Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: p.Labels}, Template: corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}}}, metav1.CreateOptions{}))
	w.until(startLimit, "deployment "+name, func() error {
		return differs("ready replicas", must(api.AppsV1().Deployments(w.ns).Get(ctx, name, metav1.GetOptions{})).Status.ReadyReplicas, n)
	})
}

func affinity(kind corev1.ServiceType, change bool) func(w *world) {
	return func(w *world) {
		w.replicas("backend", 3)
		s := w.service("affinity", map[string]string{"name": "backend"}, 80, 8080, func(s *corev1.Service) {
			s.Spec.Type, s.Spec.SessionAffinity = kind, corev1.ServiceAffinityClientIP
		})
		same("timeout", *s.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds, 10800)
		from := w.client("client")
		url := "http://" + s.Spec.ClusterIP + "/hostname"
		if kind == corev1.ServiceTypeNodePort {
			url = fmt.Sprintf("http://%s:%d/hostname", w.nodeIPs()[0], s.Spec.Ports[0].NodePort)
		}
		hosts := func() int {
			text, err := w.exec(from, "", "tester", "fetch", "-times", "15", url)
			if err != nil {
				return 0
			}
			seen := map[string]bool{}
			for _, h := range strings.Fields(text) {
				seen[h] = true
			}
			return len(seen)
		}
		w.until(60*time.Second, "it serves", func() error { return differs("served", hosts() > 0, true) })
		if change {
			w.updateService("affinity", func(s *corev1.Service) {
				s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
			})
			w.until(60*time.Second, "many hosts answer", func() error { return differs("many", hosts() > 1, true) })
			w.updateService("affinity", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP })
		}
		w.until(60*time.Second, "one host answers", func() error { return differs("hosts", hosts(), 1) })
		same("hosts", hosts(), 1)
	}
}

func serviceStatus(w *world) {
	services := api.CoreV1().Services(w.ns)
	w.service("status", nil, 80, 8080, func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.LoadBalancerClass = ptr("example.com/e2e")
	})
	must(services.Patch(ctx, "status", types.MergePatchType, []byte(`{"metadata":{"annotations":{"patchedstatus":"true"}},"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1"}]}}}`), metav1.PatchOptions{}, "status"))
	s := must(services.Get(ctx, "status", metav1.GetOptions{}))
	same("annotation", s.Annotations["patchedstatus"], "true")
	same("address", s.Status.LoadBalancer.Ingress[0].IP, "203.0.113.1")
	s.Status.Conditions = append(s.Status.Conditions, metav1.Condition{Type: "StatusUpdate", Status: metav1.ConditionTrue, Reason: "E2E", Message: "Set from e2e test", LastTransitionTime: metav1.Now()})
	s = must(services.UpdateStatus(ctx, s, metav1.UpdateOptions{}))
	same("condition", s.Status.Conditions[0].Reason, "E2E")
	must(services.Patch(ctx, "status", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"test-service":"patched"}}}`), metav1.PatchOptions{}))
	same("listed", len(must(services.List(ctx, metav1.ListOptions{LabelSelector: "test-service=patched"})).Items), 1)
	done(services.Delete(ctx, "status", metav1.DeleteOptions{}))
	w.until(20*time.Second, "deleted", func() error {
		_, err := services.Get(ctx, "status", metav1.GetOptions{})
		return absent(err)
	})
}

func serviceCollection(w *world) {
	for i := range 3 {
		w.service(fmt.Sprintf("s%d", i), nil, 80, 8080, func(s *corev1.Service) { s.Labels["keep"] = fmt.Sprint(i == 2) })
	}
	services := api.CoreV1().Services(w.ns)
	done(api.CoreV1().RESTClient().Delete().Namespace(w.ns).Resource("services").Param("labelSelector", "keep=false").Do(ctx).Error())
	w.until(20*time.Second, "deleted", func() error { return differs("services", len(must(services.List(ctx, metav1.ListOptions{})).Items), 1) })
}

func endpointLifecycle(w *world) {
	e := api.CoreV1().Endpoints(w.ns)
	must(e.Create(ctx, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "ep", Labels: map[string]string{"l": "v"}}, Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "10.0.0.24"}}, Ports: []corev1.EndpointPort{{Name: "http", Port: 80}}}}}, metav1.CreateOptions{}))
	same("listed", len(must(api.CoreV1().Endpoints("").List(ctx, metav1.ListOptions{LabelSelector: "l=v"})).Items) > 0, true)
	now := must(e.Get(ctx, "ep", metav1.GetOptions{}))
	now.Labels["l"] = "updated"
	must(e.Update(ctx, now, metav1.UpdateOptions{}))
	now = must(e.Patch(ctx, "ep", types.StrategicMergePatchType, []byte(`{"subsets":[{"addresses":[{"ip":"10.0.0.25"}],"ports":[{"name":"http-test","port":8080}]}]}`), metav1.PatchOptions{}))
	same("address", now.Subsets[0].Addresses[0].IP, "10.0.0.25")
	done(e.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "l=updated"}))
	_, err := e.Get(ctx, "ep", metav1.GetOptions{})
	if absent(err) != nil {
		fatal("still there: %v", err)
	}
}

func (w *world) slices(service string) []discoveryv1.EndpointSlice {
	w.Helper()
	return must(api.DiscoveryV1().EndpointSlices(w.ns).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})).Items
}

func slicesEmpty(w *world) {
	w.service("empty", map[string]string{"does-not": "match"}, 80, 8080)
	w.until(30*time.Second, "an empty slice", func() error {
		if _, err := api.CoreV1().Endpoints(w.ns).Get(ctx, "empty", metav1.GetOptions{}); err != nil {
			return err
		}
		s := w.slices("empty")
		if len(s) != 1 {
			return differs("slices", len(s), 1)
		}
		return differs("endpoints", len(s[0].Endpoints), 0)
	})
	done(api.CoreV1().Services(w.ns).Delete(ctx, "empty", metav1.DeleteOptions{}))
	w.until(60*time.Second, "deleted with the service", func() error {
		_, err := api.CoreV1().Endpoints(w.ns).Get(ctx, "empty", metav1.GetOptions{})
		if err := absent(err); err != nil {
			return err
		}
		return differs("slices", len(w.slices("empty")), 0)
	})
}

func slicesOfPods(w *world) {
	named := func(name string, port int32) edit {
		return first(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{Name: name, ContainerPort: port}} })
	}
	shared := func(p *corev1.Pod) { p.Labels["shared"] = "yes" }
	one := w.create(server("pod1", nil, shared, named("example-name", 3000)))
	two := w.create(server("pod2", nil, shared, named("example-name", 3001), named("other-port", 3002)))
	w.service("svc1", map[string]string{"name": "pod1"}, 80, 3000, func(s *corev1.Service) {
		s.Spec.Ports[0].TargetPort.Type, s.Spec.Ports[0].TargetPort.StrVal = 1, "example-name"
		s.Spec.PublishNotReadyAddresses = true
	})
	w.service("svc2", map[string]string{"shared": "yes"}, 80, 3000, func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true })
	w.endpoints("svc1", one.Name)
	w.endpoints("svc2", one.Name, two.Name)
	s := w.slices("svc1")
	same("port", *s[0].Ports[0].Port, 3000)
	same("port name", *s[0].Ports[0].Name, "http")
	same("managed by", s[0].Labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io")
	same("target", s[0].Endpoints[0].TargetRef.Name, "pod1")
	same("node", *s[0].Endpoints[0].NodeName, w.get("pod1").Spec.NodeName)
	done(api.CoreV1().Services(w.ns).Delete(ctx, "svc1", metav1.DeleteOptions{}))
	w.until(60*time.Second, "deleted with the service", func() error { return differs("slices", len(w.slices("svc1")), 0) })
}

func slicesByHand(w *world) {
	one := w.ready(server("pod1", nil))
	p2 := server("pod2", []string{"-http", "8090"})
	p2.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: httpGet("/hostname", 8090)}
	two := w.ready(p2)
	s := w.service("by-hand", nil, 80, 8080, func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{{Name: "p1", Port: 80, TargetPort: intPort(8080)}, {Name: "p2", Port: 81, TargetPort: intPort(8090)}}
	})
	for i, p := range []*corev1.Pod{one, two} {
		must(api.DiscoveryV1().EndpointSlices(w.ns).Create(ctx, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "hand-" + p.Name, Labels: map[string]string{"kubernetes.io/service-name": "by-hand"}},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{p.Status.PodIP}}},
			Ports: []discoveryv1.EndpointPort{{Name: ptr(fmt.Sprintf("p%d", i+1)), Port: ptr(int32(8080 + 10*i)), Protocol: ptr(corev1.ProtocolTCP)}}}, metav1.CreateOptions{}))
	}
	from := w.client("client")
	w.reaches(from, "http://"+s.Spec.ClusterIP+":80/hostname", answers("pod1"))
	w.reaches(from, "http://"+s.Spec.ClusterIP+":81/hostname", answers("pod2"))
}

func slicesMirrored(w *world) {
	w.service("mirrored", nil, 80, 8080)
	e := must(api.CoreV1().Endpoints(w.ns).Create(ctx, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "mirrored"}, Subsets: []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Port: 80}}, Addresses: []corev1.EndpointAddress{{IP: "10.1.2.3"}}}}}, metav1.CreateOptions{}))
	address := func(want string) func() error {
		return func() error {
			s := w.slices("mirrored")
			if len(s) != 1 || len(s[0].Endpoints) != 1 {
				return differs("slices", len(s), 1)
			}
			return differs("address", s[0].Endpoints[0].Addresses[0], want)
		}
	}
	w.until(30*time.Second, "mirrored", address("10.1.2.3"))
	e.Subsets[0].Addresses[0].IP = "10.2.3.4"
	must(api.CoreV1().Endpoints(w.ns).Update(ctx, e, metav1.UpdateOptions{}))
	w.until(30*time.Second, "mirrored", address("10.2.3.4"))
	done(api.CoreV1().Endpoints(w.ns).Delete(ctx, "mirrored", metav1.DeleteOptions{}))
	w.until(30*time.Second, "mirrored", func() error { return differs("slices", len(w.slices("mirrored")), 0) })
}
