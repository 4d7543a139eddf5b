//go:build e2e

package conformance

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var nodeKinds = []behaviour{
	{name: "ConfigMap should run through a ConfigMap lifecycle", test: operations(kind{name: "ConfigMap", resource: "v1 configmaps", namespaced: true, manifest: `{"data":{"k":"v"}}`})},
	{name: "Secrets should patch a secret", test: operations(kind{name: "Secret", resource: "v1 secrets", namespaced: true, manifest: `{"data":{"k":"dg=="}}`})},
	{name: "PodTemplates should run the lifecycle of PodTemplates", test: operations(kind{name: "PodTemplate", resource: "v1 podtemplates", namespaced: true, manifest: `{"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}`})},
	{name: "Lease lease API should be available", test: operations(kind{name: "Lease", resource: "coordination.k8s.io/v1 leases", namespaced: true, manifest: `{"spec":{"holderIdentity":"h","leaseDurationSeconds":30,"acquireTime":"2020-01-01T00:00:00.000000Z","renewTime":"2020-01-01T00:00:05.000000Z","leaseTransitions":0}}`})},
	{name: "RuntimeClass should support RuntimeClasses API operations", test: operations(kind{name: "RuntimeClass", resource: "node.k8s.io/v1 runtimeclasses", manifest: `{"handler":"h"}`})},
	{name: "[DRA] CRUD Tests resource.k8s.io/v1 DeviceClass", test: operations(kind{name: "DeviceClass", resource: "resource.k8s.io/v1 deviceclasses", manifest: `{"spec":{}}`})},
	{name: "[DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim", test: operations(kind{name: "ResourceClaim", resource: "resource.k8s.io/v1 resourceclaims", namespaced: true, manifest: `{"spec":{"devices":{"requests":[{"name":"r","exactly":{"deviceClassName":"x"}}]}}}`,
		status: `{"status":{"allocation":{"devices":{"results":[{"request":"r","driver":"d.example.com","pool":"p","device":"dev"}]}}}}`, statusPath: "status.allocation.devices.results.0.device", statusValue: "dev"})},
	{name: "[DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate", test: operations(kind{name: "ResourceClaimTemplate", resource: "resource.k8s.io/v1 resourceclaimtemplates", namespaced: true, manifest: `{"spec":{"spec":{"devices":{"requests":[{"name":"r","exactly":{"deviceClassName":"x"}}]}}}}`})},
	{name: "[DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice", test: operations(kind{name: "ResourceSlice", resource: "resource.k8s.io/v1 resourceslices", manifest: `{"spec":{"driver":"d.example.com","nodeName":"no-such","pool":{"name":"$NAME","generation":1,"resourceSliceCount":1}}}`})},
	{name: "ConfigMap should update ConfigMap successfully", test: configMapUpdates},
	{name: "NodeLease the kubelet should create and update a lease in the kube-node-lease namespace", test: nodeLease},
	{name: "Node Lifecycle should run through the lifecycle of a node", test: nodeLifecycle},
	{name: "Kubelet nodes answer through the proxy", test: nodeProxy},
	{name: "Kubelet reports node status as clients expect it", test: nodeStatus},
}

func configMapUpdates(w *world) {
	m := w.configMap("m", map[string]string{"a": "1"})
	m.Data["a"] = "2"
	must(api.CoreV1().ConfigMaps(w.ns).Update(ctx, m, metav1.UpdateOptions{}))
	same("value", must(api.CoreV1().ConfigMaps(w.ns).Get(ctx, "m", metav1.GetOptions{})).Data["a"], "2")
	_, err := api.CoreV1().ConfigMaps(w.ns).Update(ctx, m, metav1.UpdateOptions{})
	refused(err, apierrors.IsConflict)
}

func nodeLease(w *world) {
	node := w.node()
	leases := api.CoordinationV1().Leases("kube-node-lease")
	lease := must(leases.Get(ctx, node.Name, metav1.GetOptions{}))
	same("holder", *lease.Spec.HolderIdentity, node.Name)
	same("duration", *lease.Spec.LeaseDurationSeconds, 40)
	same("owner", lease.OwnerReferences[0].Kind, "Node")
	w.until(30*time.Second, "the lease is renewed", func() error {
		now := must(leases.Get(ctx, node.Name, metav1.GetOptions{}))
		if !now.Spec.RenewTime.After(lease.Spec.RenewTime.Time) {
			return errGone
		}
		return nil
	})
}

func nodeLifecycle(w *world) {
	nodes := api.CoreV1().Nodes()
	name := "e2e-" + w.ns
	w.Cleanup(func() { _ = nodes.Delete(ctx, name, metav1.DeleteOptions{}) })
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Unschedulable: true},
		Status: corev1.NodeStatus{Phase: corev1.NodeRunning, Conditions: []corev1.NodeCondition{{Status: corev1.ConditionTrue, Message: "Set from e2e test", Reason: "E2E", Type: "Ready"}}}}
	must(nodes.Create(ctx, n, metav1.CreateOptions{}))
	must(nodes.Patch(ctx, name, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"`+name+`":"patched"}}}`), metav1.PatchOptions{}))
	same("listed", len(must(nodes.List(ctx, metav1.ListOptions{LabelSelector: name + "=patched"})).Items), 1)
	w.until(10*time.Second, "updated", func() error {
		now := must(nodes.Get(ctx, name, metav1.GetOptions{}))
		now.Labels[name] = "updated"
		_, err := nodes.Update(ctx, now, metav1.UpdateOptions{})
		return err
	})
	w.until(10*time.Second, "status updated", func() error {
		now := must(nodes.Get(ctx, name, metav1.GetOptions{}))
		now.Status.Conditions = append(now.Status.Conditions, corev1.NodeCondition{Type: "StatusUpdate", Status: corev1.ConditionTrue, Reason: "E2E"})
		_, err := nodes.UpdateStatus(ctx, now, metav1.UpdateOptions{})
		return err
	})
	must(nodes.PatchStatus(ctx, name, []byte(`{"metadata":{"annotations":{"a":"b"}},"status":{"conditions":[{"type":"Patched","status":"True"}]}}`)))
	same("label", must(nodes.Get(ctx, name, metav1.GetOptions{})).Labels[name], "updated")
	done(nodes.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: name + "=updated"}))
	w.until(30*time.Second, "deleted", func() error {
		_, err := nodes.Get(ctx, name, metav1.GetOptions{})
		return absent(err)
	})
}

func nodeProxy(w *world) {
	node := w.node()
	for _, path := range []string{"nodes/" + node.Name + "/proxy/healthz", "nodes/" + node.Name + ":10250/proxy/healthz", "nodes/https:" + node.Name + ":10250/proxy/healthz"} {
		same(path, string(must(api.CoreV1().RESTClient().Get().AbsPath("/api/v1/"+path).DoRaw(ctx))), "ok")
	}
	contains(string(must(api.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/"+node.Name+"/proxy/metrics").DoRaw(ctx))), "kubelet_running_pods")
	contains(string(must(api.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/"+node.Name+"/proxy/stats/summary").DoRaw(ctx))), `"nodeName"`)
	contains(string(must(api.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/"+node.Name+"/proxy/configz").DoRaw(ctx))), "kubeletconfig")
}

func nodeStatus(w *world) {
	for _, n := range must(api.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/hostname"})).Items {
		if strings.HasPrefix(n.Name, "e2e-") {
			continue
		}
		for _, want := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
			found := false
			for _, c := range n.Status.Conditions {
				found = found || c.Type == want
			}
			same(string(want), found, true)
		}
		for _, label := range []string{"kubernetes.io/os", "kubernetes.io/arch", "kubernetes.io/hostname"} {
			if n.Labels[label] == "" {
				fatal("node %s lacks the label %s", n.Name, label)
			}
		}
		if n.Status.NodeInfo.ContainerRuntimeVersion == "" || n.Status.NodeInfo.KubeletVersion == "" || n.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 || len(n.Status.Images) == 0 {
			fatal("node %s says %v", n.Name, n.Status)
		}
	}
}
