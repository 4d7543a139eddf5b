//go:build e2e

package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

var networkNames = []behaviour{
	{name: "DNS should provide DNS for the cluster", test: dnsCluster},
	{name: "DNS should provide DNS for services", test: dnsServices},
	{name: "DNS should resolve DNS of partial qualified names for services", test: dnsPartial},
	{name: "DNS should provide DNS for pods for Hostname and Subdomain", test: dnsPods},
	{name: "DNS should provide DNS for ExternalName services", test: dnsExternal},
	{name: "Proxy should proxy through a service and a pod", test: proxyBoth},
	{name: "Proxy A set of valid responses are returned for both pod and service ProxyWithPath", test: proxyMethods(true)},
	{name: "Proxy A set of valid responses are returned for both pod and service Proxy", test: proxyMethods(false)},
}

// resolves waits until a name stands for exactly these addresses.
func (w *world) resolves(from, kind, name string, want ...string) {
	w.Helper()
	w.until(60*time.Second, kind+" of "+name, func() error {
		text, err := w.exec(from, "", "tester", "lookup", "-type", kind, name)
		if err != nil {
			return err
		}
		return differs("answer", text, strings.Join(want, "\n"))
	})
}

func dnsCluster(w *world) {
	from := w.client("client")
	s := must(api.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{}))
	for _, name := range []string{"kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "kubernetes.default.svc.cluster.local."} {
		w.resolves(from, "host", name, s.Spec.ClusterIP)
	}
	w.resolves(from, "ptr", s.Spec.ClusterIP, "kubernetes.default.svc.cluster.local.")
	w.resolves(from, "srv", "_https._tcp.kubernetes.default.svc.cluster.local", "kubernetes.default.svc.cluster.local.:443")
}

func dnsServices(w *world) {
	p := w.ready(server("pod1", nil))
	headless := func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }
	w.service("headless", map[string]string{"name": "pod1"}, 8080, 8080, headless)
	s := w.service("regular", map[string]string{"name": "pod1"}, 80, 8080)
	from := w.client("client")
	domain := "." + w.ns + ".svc.cluster.local"
	w.resolves(from, "host", "headless"+domain, p.Status.PodIP)
	w.resolves(from, "host", "regular"+domain, s.Spec.ClusterIP)
	w.resolves(from, "srv", "_http._tcp.regular"+domain, "regular"+domain+".:80")
	w.resolves(from, "ptr", s.Spec.ClusterIP, "regular"+domain+".")
	dashed := strings.ReplaceAll(p.Status.PodIP, ".", "-")
	w.resolves(from, "srv", "_http._tcp.headless"+domain, dashed+".headless"+domain+".:8080")
	w.resolves(from, "ptr", p.Status.PodIP, dashed+".headless"+domain+".", dashed+".regular"+domain+".")
	w.resolves(from, "host", dashed+"."+w.ns+".pod.cluster.local", p.Status.PodIP)
}

func dnsPartial(w *world) {
	p := w.ready(server("pod1", nil))
	w.service("headless", map[string]string{"name": "pod1"}, 8080, 8080, func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone })
	s := w.service("regular", map[string]string{"name": "pod1"}, 80, 8080)
	from := w.client("client")
	for _, end := range []string{"", "." + w.ns, "." + w.ns + ".svc"} {
		w.resolves(from, "host", "headless"+end, p.Status.PodIP)
		w.resolves(from, "host", "regular"+end, s.Spec.ClusterIP)
	}
	w.resolves(from, "srv", "_http._tcp.regular."+w.ns+".svc", "regular."+w.ns+".svc.cluster.local.:80")
}

func dnsPods(w *world) {
	w.service("sub", map[string]string{"name": "querier"}, 80, 80, func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone })
	p := w.ready(pod("querier", sleepScript, func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "host-1", "sub" }))
	w.resolves("querier", "host", "host-1.sub."+w.ns+".svc.cluster.local", p.Status.PodIP)
	w.resolves("querier", "host", "sub."+w.ns+".svc.cluster.local", p.Status.PodIP)
	same("own name", w.sh("querier", "hostname -f"), "host-1.sub."+w.ns+".svc.cluster.local")
	contains(w.sh("querier", "cat /etc/hosts"), "host-1.sub."+w.ns+".svc.cluster.local\thost-1")
}

func dnsExternal(w *world) {
	w.service("external", nil, 80, 80, func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalName, s.Spec.Ports = corev1.ServiceTypeExternalName, "kubernetes.default.svc.cluster.local", nil
	})
	from := w.client("client")
	name := "external." + w.ns + ".svc.cluster.local."
	w.resolves(from, "cname", name, "kubernetes.default.svc.cluster.local.")
	w.updateService("external", func(s *corev1.Service) { s.Spec.ExternalName = "kube-dns.kube-system.svc.cluster.local" })
	w.resolves(from, "cname", name, "kube-dns.kube-system.svc.cluster.local.")
	s := w.updateService("external", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeClusterIP, ""
		s.Spec.Ports = []corev1.ServicePort{{Port: 80, Name: "http", Protocol: corev1.ProtocolTCP}}
	})
	w.resolves(from, "host", name, s.Spec.ClusterIP)
}

// raw asks for a path below the namespace, and may ask with a method as a parameter.
func (w *world) raw(verb, path string, method ...string) (string, error) {
	request := api.CoreV1().RESTClient().Verb(verb).AbsPath("/api/v1/namespaces/" + w.ns + path)
	for _, m := range method {
		request.Param("method", m)
	}
	data, err := request.DoRaw(ctx)
	return string(data), err
}

func proxyBoth(w *world) {
	p := server("pod1", []string{"-tls", "9443"})
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "dest1", ContainerPort: 8080}, {Name: "tlsdest1", ContainerPort: 9443}}
	w.ready(p)
	w.service("svc", map[string]string{"name": "pod1"}, 80, 8080, func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{
			{Name: "portname1", Port: 80, TargetPort: intPort(8080)}, {Name: "portname2", Port: 81, TargetPort: intPort(8080)},
			{Name: "tlsportname1", Port: 443, TargetPort: intPort(9443)}}
		s.Spec.Ports[0].TargetPort.Type, s.Spec.Ports[0].TargetPort.StrVal = 1, "dest1"
	})
	w.endpoints("svc", "pod1")
	for _, target := range []string{"/pods/pod1:8080/proxy", "/pods/http:pod1:8080/proxy", "/pods/https:pod1:9443/proxy",
		"/services/svc:portname1/proxy", "/services/svc:80/proxy", "/services/svc:portname2/proxy", "/services/svc:81/proxy",
		"/services/http:svc:portname1/proxy", "/services/https:svc:tlsportname1/proxy", "/services/https:svc:443/proxy"} {
		w.until(20*time.Second, target, func() error {
			text, err := w.raw("GET", target+"/hostname")
			if err != nil {
				return err
			}
			return differs("answer", text, "pod1")
		})
	}
	for _, target := range []string{"/pods/pod1:9999/proxy/", "/services/svc:no-such/proxy/"} {
		_, err := w.raw("GET", target)
		refused(err, apierrors.IsServiceUnavailable)
	}
}

func proxyMethods(withPath bool) func(w *world) {
	return func(w *world) {
		p := server("agnhost", nil)
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8080}}
		w.ready(p)
		w.service("svc", map[string]string{"name": "agnhost"}, 80, 8080)
		w.endpoints("svc", "agnhost")
		client := must(rest.HTTPClientFor(config))
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		for _, verb := range []string{"DELETE", "OPTIONS", "PATCH", "POST", "PUT", "GET", "HEAD"} {
			for _, target := range []string{"/pods/agnhost/proxy", "/services/svc/proxy"} {
				path, want := target, "/"
				if withPath {
					want = "/some/path/with/" + verb
					path += want
				}
				if !withPath && (verb == "GET" || verb == "HEAD") {
					req := must(http.NewRequest(verb, config.Host+"/api/v1/namespaces/"+w.ns+path+"?method="+verb, nil))
					resp := must(client.Do(req))
					resp.Body.Close()
					same(verb+" "+path, resp.StatusCode, http.StatusMovedPermanently)
					contains(resp.Header.Get("Location"), path+"/?method="+verb)
					path += "/"
				}
				text, err := w.raw(verb, path, verb)
				done(err)
				if verb != "HEAD" {
					contains(text, `"method":"`+verb+`"`)
					contains(text, `"path":"`+want+`?method=`+verb+`"`)
				}
			}
		}
	}
}

func serviceCIDR(w *world) {
	cidrs := api.NetworkingV1().ServiceCIDRs()
	discovered("networking.k8s.io/v1", "servicecidrs")
	discovered("networking.k8s.io/v1", "ipaddresses")
	third := counter.Add(1) % 200
	name := w.ns
	must(cidrs.Create(ctx, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"l": name}}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{fmt.Sprintf("10.173.%d.0/24", third)}}}, metav1.CreateOptions{}))
	w.Cleanup(func() { _ = cidrs.Delete(ctx, name, metav1.DeleteOptions{}) })
	same("listed", len(must(cidrs.List(ctx, metav1.ListOptions{LabelSelector: "l=" + name})).Items), 1)
	must(cidrs.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"patched":"true"}}}`), metav1.PatchOptions{}))
	must(cidrs.Patch(ctx, name, types.MergePatchType, []byte(`{"status":{"conditions":[{"type":"StatusPatched","status":"True","reason":"E2E","message":"Set by e2e test","lastTransitionTime":"2024-01-01T00:00:00Z"}]}}`), metav1.PatchOptions{}, "status"))
	w.until(30*time.Second, "status updated", func() error {
		now := must(cidrs.Get(ctx, name, metav1.GetOptions{}))
		now.Status.Conditions = append(now.Status.Conditions, metav1.Condition{Type: "StatusUpdated", Status: metav1.ConditionTrue, Reason: "E2E", Message: "Set from an e2e test", LastTransitionTime: metav1.Now()})
		_, err := cidrs.UpdateStatus(ctx, now, metav1.UpdateOptions{})
		return err
	})
	must(api.NetworkingV1().ServiceCIDRs().Get(ctx, "kubernetes", metav1.GetOptions{}))
	ip := fmt.Sprintf("10.173.%d.7", third)
	ref := &networkingv1.ParentReference{Resource: "services", Namespace: w.ns, Name: "none"}
	must(api.NetworkingV1().IPAddresses().Create(ctx, &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: ip, Labels: map[string]string{"l": name}}, Spec: networkingv1.IPAddressSpec{ParentRef: ref}}, metav1.CreateOptions{}))
	must(api.NetworkingV1().IPAddresses().Patch(ctx, ip, types.MergePatchType, []byte(`{"metadata":{"annotations":{"patched":"true"}}}`), metav1.PatchOptions{}))
	done(api.NetworkingV1().IPAddresses().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "l=" + name}))
	done(cidrs.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "l=" + name}))
	w.until(30*time.Second, "deleted", func() error {
		_, err := cidrs.Get(ctx, name, metav1.GetOptions{})
		return absent(err)
	})
}

// granular sees pods of every node answer a pod of the pod network and one of a node's, over TCP and UDP.
func granular(w *world) {
	from := w.client("client")
	w.ready(pod("host-client", sleepScript, func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
	for i, n := range must(api.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/hostname"})).Items {
		if n.Spec.Unschedulable {
			continue
		}
		name := fmt.Sprintf("netserver-%d", i)
		p := w.ready(server(name, []string{"-udp", "8081"}, func(p *corev1.Pod) { p.Spec.NodeName = n.Name }))
		for _, from := range []string{from, "host-client"} {
			w.reaches(from, "http://"+p.Status.PodIP+":8080/hostname", answers(name))
			w.asks(from, p.Status.PodIP+":8081", name)
		}
	}
}

func hairpin(w *world) {
	w.ready(server("pod1", nil))
	s := w.service("hairpin", map[string]string{"name": "pod1"}, 80, 8080, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort })
	w.reaches("pod1", "http://"+s.Spec.ClusterIP+"/hostname", answers("pod1"))
	w.ready(pod("host-client", sleepScript, func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
	w.reaches("host-client", "http://"+s.Spec.ClusterIP+"/hostname", answers("pod1"))
	for _, ip := range w.nodeIPs() {
		w.reaches("pod1", fmt.Sprintf("http://%s:%d/hostname", ip, s.Spec.Ports[0].NodePort), answers("pod1"))
	}
}

func hostPorts(w *world) {
	node := w.node()
	ip := ""
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			ip = a.Address
		}
	}
	on := func(hostIP string, protocol corev1.Protocol, port int32) edit {
		return func(p *corev1.Pod) {
			p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": node.Name}
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 54323, ContainerPort: port, Protocol: protocol, HostIP: hostIP}}
		}
	}
	w.ready(server("pod1", nil, on("127.0.0.1", corev1.ProtocolTCP, 8080)))
	w.ready(server("pod2", nil, on(ip, corev1.ProtocolTCP, 8080)))
	w.ready(server("pod3", []string{"-udp", "8081"}, on(ip, corev1.ProtocolUDP, 8081)))
	w.ready(pod("host-client", sleepScript, func(p *corev1.Pod) {
		p.Spec.HostNetwork = true
		p.Spec.NodeName = node.Name
	}))
	w.reaches("host-client", "http://127.0.0.1:54323/hostname", answers("pod1"))
	w.reaches("host-client", "http://"+ip+":54323/hostname", answers("pod2"))
	w.asks("host-client", ip+":54323", "pod3")
}
