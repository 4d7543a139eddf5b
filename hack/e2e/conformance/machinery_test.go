//go:build e2e

package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var machinery = []behaviour{
	{name: "Garbage collector should delete pods created by rc when not orphaning", test: collectsPods},
	{name: "Garbage collector should orphan pods created by rc if delete options say so", test: orphansPods},
	{name: "Garbage collector should delete RS created by deployment when not orphaning, orphan it when asked to", test: collectsSets},
	{name: "Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so", test: collectsForeground},
	{name: "Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted", test: collectsTwoOwners},
	{name: "Garbage collector should not be blocked by dependency circle", test: collectsCircle},
	{name: "Namespaces should ensure that all pods and services are removed when a namespace is deleted", test: namespaceEmptied},
	{name: "OrderedNamespaceDeletion namespace deletion should delete pod first", test: namespaceOrdered},
	{name: "ResourceQuota should create a ResourceQuota and capture the life of objects", test: quotaLife},
	{name: "ResourceQuota should create a ResourceQuota and capture the life of a pod", test: quotaPod},
	{name: "ResourceQuota should verify ResourceQuota with terminating and best effort scopes", test: quotaScopes},
	{name: "AdmissionWebhook should mutate configmap, deny pods, and be called through its service", test: webhooks},
	{name: "AdmissionWebhook should unconditionally reject operations on fail closed webhook", test: webhookClosed},
	{name: "CustomResourceConversionWebhook should be able to convert from CR v1 to CR v2", test: conversion},
}

func (w *world) controller(name string, n int32) *corev1.ReplicationController {
	w.Helper()
	t := template(name)
	rc := must(api.CoreV1().ReplicationControllers(w.ns).Create(ctx, &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ReplicationControllerSpec{Replicas: &n, Selector: t.Labels, Template: &t}}, metav1.CreateOptions{}))
	w.count("name="+name, int(n))
	return rc
}

func propagating(p metav1.DeletionPropagation) metav1.DeleteOptions {
	return metav1.DeleteOptions{PropagationPolicy: &p}
}

func collectsPods(w *world) {
	w.controller("rc", 2)
	done(api.CoreV1().ReplicationControllers(w.ns).Delete(ctx, "rc", propagating(metav1.DeletePropagationBackground)))
	w.count("name=rc", 0)
}

func orphansPods(w *world) {
	w.controller("rc", 2)
	done(api.CoreV1().ReplicationControllers(w.ns).Delete(ctx, "rc", propagating(metav1.DeletePropagationOrphan)))
	w.until(30*time.Second, "the controller is gone", func() error {
		_, err := api.CoreV1().ReplicationControllers(w.ns).Get(ctx, "rc", metav1.GetOptions{})
		return absent(err)
	})
	for _, p := range w.count("name=rc", 2) {
		same("owners", len(p.OwnerReferences), 0)
	}
	w.holds(5*time.Second, "orphans stay", func() error { return differs("pods", len(w.podsOf("name=rc")), 2) })
}

func collectsSets(w *world) {
	sets := func() int { return len(must(api.AppsV1().ReplicaSets(w.ns).List(ctx, metav1.ListOptions{})).Items) }
	w.deployment("d", 1)
	w.rolled("d")
	done(api.AppsV1().Deployments(w.ns).Delete(ctx, "d", propagating(metav1.DeletePropagationBackground)))
	w.until(startLimit, "the set is gone", func() error { return differs("sets", sets(), 0) })
	w.count("name=d", 0)
	w.deployment("d", 1)
	w.rolled("d")
	done(api.AppsV1().Deployments(w.ns).Delete(ctx, "d", propagating(metav1.DeletePropagationOrphan)))
	w.until(startLimit, "the deployment is gone", func() error {
		_, err := api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{})
		return absent(err)
	})
	w.holds(5*time.Second, "the set stays", func() error { return differs("sets", sets(), 1) })
	same("owners", len(must(api.AppsV1().ReplicaSets(w.ns).List(ctx, metav1.ListOptions{})).Items[0].OwnerReferences), 0)
}

func collectsForeground(w *world) {
	rc := w.controller("rc", 10)
	done(api.CoreV1().ReplicationControllers(w.ns).Delete(ctx, "rc", metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationForeground), Preconditions: &metav1.Preconditions{UID: &rc.UID}}))
	w.until(startLimit, "the controller is gone", func() error {
		// The pods are looked at after the controller: none may be left once it is gone.
		_, err := api.CoreV1().ReplicationControllers(w.ns).Get(ctx, "rc", metav1.GetOptions{})
		if err := absent(err); err != nil {
			return err
		}
		same("pods", len(w.podsOf("name=rc")), 0)
		return nil
	})
}

func collectsTwoOwners(w *world) {
	one := w.controller("one", 4)
	two := must(api.CoreV1().ReplicationControllers(w.ns).Create(ctx, &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "two"}, Spec: corev1.ReplicationControllerSpec{Replicas: ptr(int32(0)), Selector: map[string]string{"name": "two"}, Template: ptr(template("two"))}}, metav1.CreateOptions{}))
	pods := w.count("name=one", 4)
	for _, p := range pods[:2] {
		done(w.update(p.Name, func(p *corev1.Pod) {
			p.OwnerReferences = append(p.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ReplicationController", Name: two.Name, UID: two.UID})
		}))
	}
	done(api.CoreV1().ReplicationControllers(w.ns).Delete(ctx, "one", propagating(metav1.DeletePropagationForeground)))
	w.until(startLimit, "the first controller is gone", func() error {
		_, err := api.CoreV1().ReplicationControllers(w.ns).Get(ctx, "one", metav1.GetOptions{})
		return absent(err)
	})
	left := w.podsOf("name=one")
	same("pods", len(left), 2)
	for _, p := range left {
		same("deleted", p.DeletionTimestamp != nil, false)
		for _, o := range p.OwnerReferences {
			same("stale owner", o.UID == one.UID, false)
		}
	}
}

func collectsCircle(w *world) {
	var pods []*corev1.Pod
	for i := range 3 {
		pods = append(pods, w.create(pod(fmt.Sprintf("circle-%d", i), sleepScript)))
	}
	for i, p := range pods {
		owner := pods[(i+2)%3]
		must(api.CoreV1().Pods(w.ns).Patch(ctx, p.Name, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":%q,"uid":%q,"controller":true,"blockOwnerDeletion":true}]}}`, owner.Name, owner.UID), metav1.PatchOptions{}))
	}
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "circle-0", propagating(metav1.DeletePropagationForeground)))
	w.until(startLimit, "all are gone", func() error {
		return differs("pods", len(must(api.CoreV1().Pods(w.ns).List(ctx, metav1.ListOptions{})).Items), 0)
	})
}

func namespaceEmptied(w *world) {
	other := &world{w.T, w.ns + "-gone"}
	other.namespace(other.ns)
	other.ready(pod("p", sleepScript))
	other.service("s", nil, 80, 80)
	done(api.CoreV1().Namespaces().Delete(ctx, other.ns, metav1.DeleteOptions{}))
	w.until(startLimit, "the namespace is gone", func() error {
		_, err := api.CoreV1().Namespaces().Get(ctx, other.ns, metav1.GetOptions{})
		return absent(err)
	})
	other.namespace(other.ns)
	w.Cleanup(func() { _ = api.CoreV1().Namespaces().Delete(ctx, other.ns, metav1.DeleteOptions{}) })
	same("pods", len(must(api.CoreV1().Pods(other.ns).List(ctx, metav1.ListOptions{})).Items), 0)
	same("services", len(must(api.CoreV1().Services(other.ns).List(ctx, metav1.ListOptions{})).Items), 0)
}

func namespaceOrdered(w *world) {
	other := &world{w.T, w.ns + "-ordered"}
	other.namespace(other.ns)
	other.configMap("m", map[string]string{"k": "v"})
	other.ready(pod("held", sleepScript, func(p *corev1.Pod) { p.Finalizers = []string{"e2e.example.com/finalizer"} }))
	release := func() error {
		_, err := api.CoreV1().Pods(other.ns).Patch(ctx, "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		return err
	}
	w.Cleanup(func() { _ = release() })
	done(api.CoreV1().Namespaces().Delete(ctx, other.ns, metav1.DeleteOptions{}))
	w.until(30*time.Second, "the pod is being deleted", func() error { return differs("deleted", other.get("held").DeletionTimestamp != nil, true) })
	w.holds(4*time.Second, "the rest waits for the pod", func() error {
		m, err := api.CoreV1().ConfigMaps(other.ns).Get(ctx, "m", metav1.GetOptions{})
		if err == nil && m.DeletionTimestamp != nil {
			err = errGone
		}
		return err
	})
	w.until(30*time.Second, "the namespace says what it waits for", func() error {
		for _, c := range must(api.CoreV1().Namespaces().Get(ctx, other.ns, metav1.GetOptions{})).Status.Conditions {
			if c.Type == corev1.NamespaceDeletionContentFailure || c.Type == corev1.NamespaceFinalizersRemaining && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return errGone
	})
	done(release())
	w.until(startLimit, "the namespace is gone", func() error {
		_, err := api.CoreV1().Namespaces().Get(ctx, other.ns, metav1.GetOptions{})
		return absent(err)
	})
}

func (w *world) quota(name string, hard map[corev1.ResourceName]string, edits ...func(q *corev1.ResourceQuota)) {
	w.Helper()
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{}}}
	for k, v := range hard {
		q.Spec.Hard[k] = resource.MustParse(v)
	}
	for _, e := range edits {
		e(q)
	}
	must(api.CoreV1().ResourceQuotas(w.ns).Create(ctx, q, metav1.CreateOptions{}))
	w.until(30*time.Second, "the quota counts", func() error {
		return differs("limits", len(must(api.CoreV1().ResourceQuotas(w.ns).Get(ctx, name, metav1.GetOptions{})).Status.Used), len(hard))
	})
}

// used waits until a quota counts so much.
func (w *world) used(quota string, name corev1.ResourceName, want string) {
	w.Helper()
	w.until(30*time.Second, fmt.Sprintf("%s of quota %s", name, quota), func() error {
		q := must(api.CoreV1().ResourceQuotas(w.ns).Get(ctx, quota, metav1.GetOptions{})).Status.Used[name]
		return differs("used", q.String(), want)
	})
}

func quotaLife(w *world) {
	w.quota("q", map[corev1.ResourceName]string{"services": "5", "services.nodeports": "1", "secrets": "9", "configmaps": "5", "replicationcontrollers": "3", "count/replicasets.apps": "4", "persistentvolumeclaims": "2", "requests.storage": "5Gi"})
	w.used("q", "services", "0")
	w.service("s", nil, 80, 80)
	w.used("q", "services", "1")
	w.service("np", nil, 80, 80, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort })
	w.used("q", "services.nodeports", "1")
	_, err := api.CoreV1().Services(w.ns).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	contains(err.Error(), "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1")
	w.used("q", "configmaps", "1")
	w.configMap("m", map[string]string{"k": "v"})
	w.used("q", "configmaps", "2")
	w.secret("x", map[string]string{"k": "v"})
	w.used("q", "secrets", "1")
	w.controller("rc", 0)
	w.used("q", "replicationcontrollers", "1")
	w.replicaSet("rs", 0)
	w.used("q", "count/replicasets.apps", "1")
	must(api.CoreV1().PersistentVolumeClaims(w.ns).Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr("none-such"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: gigabyte}}}, metav1.CreateOptions{}))
	w.used("q", "requests.storage", "1Gi")
	done(api.CoreV1().PersistentVolumeClaims(w.ns).Delete(ctx, "c", metav1.DeleteOptions{}))
	done(api.AppsV1().ReplicaSets(w.ns).Delete(ctx, "rs", metav1.DeleteOptions{}))
	done(api.CoreV1().ReplicationControllers(w.ns).Delete(ctx, "rc", metav1.DeleteOptions{}))
	done(api.CoreV1().ConfigMaps(w.ns).Delete(ctx, "m", metav1.DeleteOptions{}))
	done(api.CoreV1().Secrets(w.ns).Delete(ctx, "x", metav1.DeleteOptions{}))
	done(api.CoreV1().Services(w.ns).Delete(ctx, "np", metav1.DeleteOptions{}))
	w.used("q", "services", "1")
	w.used("q", "services.nodeports", "0")
	w.used("q", "configmaps", "1")
	w.used("q", "secrets", "0")
	w.used("q", "replicationcontrollers", "0")
	w.used("q", "count/replicasets.apps", "0")
	w.used("q", "persistentvolumeclaims", "0")
}

func quotaPod(w *world) {
	w.quota("q", map[corev1.ResourceName]string{"pods": "5", "cpu": "1", "memory": "500Mi", "ephemeral-storage": "50Gi", "requests.example.com/dongle": "3"})
	build := func(name, cpu, memory, dongles string) *corev1.Pod {
		return pod(name, "true", first(func(c *corev1.Container) {
			r := resources(cpu, memory)
			r[corev1.ResourceEphemeralStorage] = resource.MustParse("30Gi")
			r["example.com/dongle"] = resource.MustParse(dongles)
			c.Resources = corev1.ResourceRequirements{Requests: r, Limits: corev1.ResourceList{"example.com/dongle": r["example.com/dongle"]}}
		}))
	}
	w.create(build("p", "500m", "252Mi", "2"))
	w.used("q", "pods", "1")
	w.used("q", "cpu", "500m")
	w.used("q", "memory", "252Mi")
	w.used("q", "ephemeral-storage", "30Gi")
	w.used("q", "requests.example.com/dongle", "2")
	_, err := api.CoreV1().Pods(w.ns).Create(ctx, build("more", "600m", "100Mi", "0"), metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	_, err = api.CoreV1().Pods(w.ns).Create(ctx, build("more", "1m", "1Mi", "2"), metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	p := w.get("p")
	p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("100m")
	_, err = api.CoreV1().Pods(w.ns).Update(ctx, p, metav1.UpdateOptions{})
	if err == nil || !apierrors.IsInvalid(err) && !apierrors.IsConflict(err) {
		fatal("requests were changed: %v", err)
	}
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "p", *metav1.NewDeleteOptions(0)))
	w.used("q", "pods", "0")
	w.used("q", "cpu", "0")
}

func quotaScopes(w *world) {
	for name, scope := range map[string]corev1.ResourceQuotaScope{"terminating": corev1.ResourceQuotaScopeTerminating, "not-terminating": corev1.ResourceQuotaScopeNotTerminating, "best-effort": corev1.ResourceQuotaScopeBestEffort, "not-best-effort": corev1.ResourceQuotaScopeNotBestEffort} {
		w.quota(name, map[corev1.ResourceName]string{"pods": "5"}, func(q *corev1.ResourceQuota) { q.Spec.Scopes = []corev1.ResourceQuotaScope{scope} })
	}
	w.create(pod("best", sleepScript))
	w.used("not-terminating", "pods", "1")
	w.used("best-effort", "pods", "1")
	w.create(pod("dated", sleepScript, wants(10), func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr(int64(3600)) }))
	w.used("terminating", "pods", "1")
	w.used("not-best-effort", "pods", "1")
	w.used("not-terminating", "pods", "1")
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "best", *metav1.NewDeleteOptions(0)))
	w.used("best-effort", "pods", "0")
	w.used("not-terminating", "pods", "0")
}

// hooks starts the test server as a webhook behind a service, and answers the authority that its certificate is of.
func (w *world) hooks() []byte {
	w.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	now := time.Now()
	name := "hooks." + w.ns + ".svc"
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e-ca"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	root := must(x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key))
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der := must(x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key))
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	w.secret("pair", map[string]string{"tls.crt": encode("CERTIFICATE", der), "tls.key": encode("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))})
	w.ready(server("hooks", []string{"-tls", "8444", "-pair", "/etc/pair"}, volume("pair", filesOf{secret: true}.source("pair", nil, nil, nil))))
	w.service("hooks", map[string]string{"name": "hooks"}, 8443, 8444)
	w.endpoints("hooks", "hooks")
	return []byte(encode("CERTIFICATE", root))
}

func (w *world) hook(ca []byte, path string) admissionv1.WebhookClientConfig {
	return admissionv1.WebhookClientConfig{CABundle: ca, Service: &admissionv1.ServiceReference{Namespace: w.ns, Name: "hooks", Path: &path, Port: ptr(int32(8443))}}
}

func (w *world) own() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": w.ns}}
}

func hookRule(resource string) []admissionv1.RuleWithOperations {
	return []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create}, Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{resource}}}}
}

func webhooks(w *world) {
	ca := w.hooks()
	none := ptr(admissionv1.SideEffectClassNone)
	mutating := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: w.ns}}
	for i := range 2 {
		mutating.Webhooks = append(mutating.Webhooks, admissionv1.MutatingWebhook{Name: fmt.Sprintf("m%d.e2e.example.com", i), Rules: hookRule("configmaps"), ClientConfig: w.hook(ca, fmt.Sprintf("/review/stage-%d", i+1)),
			SideEffects: none, AdmissionReviewVersions: []string{"v1", "v1beta1"}, NamespaceSelector: w.own()})
	}
	must(api.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, mutating, metav1.CreateOptions{}))
	w.Cleanup(func() {
		_ = api.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, w.ns, metav1.DeleteOptions{})
	})
	validating := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: w.ns}, Webhooks: []admissionv1.ValidatingWebhook{
		{Name: "v.e2e.example.com", Rules: hookRule("pods"), ClientConfig: w.hook(ca, "/review/deny"), SideEffects: none, AdmissionReviewVersions: []string{"v1"}, NamespaceSelector: w.own()}}}
	must(api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, validating, metav1.CreateOptions{}))
	w.Cleanup(func() {
		_ = api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(ctx, w.ns, metav1.DeleteOptions{})
	})
	w.until(30*time.Second, "both webhooks are called", func() error {
		m, err := api.CoreV1().ConfigMaps(w.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "m-"}, Data: map[string]string{"start": "yes"}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		return differs("data", m.Data["stage-1"]+m.Data["stage-2"], "yesyes")
	})
	w.until(30*time.Second, "pods are denied", func() error {
		_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("denied", "true"), metav1.CreateOptions{DryRun: []string{"All"}})
		if err == nil {
			return errGone
		}
		contains(err.Error(), `admission webhook "v.e2e.example.com" denied the request: the tester denies it`)
		return nil
	})
	must(api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(ctx, w.ns, types.JSONPatchType, []byte(`[{"op":"replace","path":"/webhooks/0/rules/0/operations","value":["UPDATE"]}]`), metav1.PatchOptions{}))
	w.until(30*time.Second, "pods are let in again", func() error {
		_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("let-in", "true"), metav1.CreateOptions{DryRun: []string{"All"}})
		return err
	})
}

func webhookClosed(w *world) {
	validating := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: w.ns}, Webhooks: []admissionv1.ValidatingWebhook{
		{Name: "closed.e2e.example.com", Rules: hookRule("configmaps"), ClientConfig: w.hook(nil, "/configmaps"), FailurePolicy: ptr(admissionv1.Fail), SideEffects: ptr(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}, NamespaceSelector: w.own()}}}
	must(api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, validating, metav1.CreateOptions{}))
	w.Cleanup(func() {
		_ = api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(ctx, w.ns, metav1.DeleteOptions{})
	})
	w.until(30*time.Second, "config maps are refused", func() error {
		_, err := api.CoreV1().ConfigMaps(w.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "m-"}}, metav1.CreateOptions{})
		if err == nil {
			return errGone
		}
		return differs("internal error", apierrors.IsInternalError(err), true)
	})
}

func conversion(w *world) {
	ca := w.hooks()
	group := strings.ReplaceAll(w.ns, "-", "") + ".example.com"
	schemaOf := map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}
	crd := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "tests." + group},
		"spec": map[string]any{"group": group, "scope": "Namespaced", "names": map[string]any{"plural": "tests", "singular": "test", "kind": "Test", "listKind": "TestList"}, "preserveUnknownFields": false,
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": schemaOf}, map[string]any{"name": "v2", "served": true, "storage": false, "schema": schemaOf}},
			"conversion": map[string]any{"strategy": "Webhook", "webhook": map[string]any{"conversionReviewVersions": []any{"v1", "v1beta1"}, "clientConfig": map[string]any{
				"caBundle": ca, "service": map[string]any{"namespace": w.ns, "name": "hooks", "path": "/convert", "port": int64(8443)}}}}}}}
	crds := dyn.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	must(crds.Create(ctx, crd, metav1.CreateOptions{}))
	w.Cleanup(func() { _ = crds.Delete(ctx, "tests."+group, metav1.DeleteOptions{}) })
	v1 := dyn.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: "tests"}).Namespace(w.ns)
	v2 := dyn.Resource(schema.GroupVersionResource{Group: group, Version: "v2", Resource: "tests"}).Namespace(w.ns)
	w.until(30*time.Second, "the kind is served", func() error {
		_, err := v1.Create(ctx, &unstructured.Unstructured{Object: map[string]any{"apiVersion": group + "/v1", "kind": "Test", "metadata": map[string]any{"name": "t"}, "hostPort": "localhost:8080"}}, metav1.CreateOptions{})
		return err
	})
	got := must(v2.Get(ctx, "t", metav1.GetOptions{}))
	same("host", fmt.Sprint(got.Object["host"]), "localhost")
	same("port", fmt.Sprint(got.Object["port"]), "8080")
	must(v2.Create(ctx, &unstructured.Unstructured{Object: map[string]any{"apiVersion": group + "/v2", "kind": "Test", "metadata": map[string]any{"name": "u"}, "host": "example.com", "port": "80"}}, metav1.CreateOptions{}))
	for _, o := range must(v1.List(ctx, metav1.ListOptions{})).Items {
		if o.GetName() == "u" {
			same("host and port", fmt.Sprint(o.Object["hostPort"]), "example.com:80")
		}
	}
}
