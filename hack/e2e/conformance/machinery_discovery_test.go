//go:build e2e

package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
)

var machineryDiscovery = []behaviour{
	{name: "server version should find the server version", test: serverVersion},
	{name: "Discovery should validate PreferredVersion and locate the groupVersion and a resource within each APIGroup", test: discoveryGroups},
	{name: "AggregatedDiscovery should tell of built-in resources and those of a CRD, as the Accept header asks", test: discoveryAggregated},
	{name: "OpenAPI documents are found by their index, and change with what is served", test: openAPIThree},
	{name: "Namespaces should patch and update a Namespace, its status and its finalizers", test: namespaceChanged},
	{name: "ResourceQuota should be updated, and its status applied", test: quotaChanged},
	{name: "ResourceQuota should verify ResourceQuota with a priority class scope", test: quotaPriority},
	{name: "ResourceQuota should create a ResourceQuota and capture the life of a custom resource", test: quotaCustom},
	{name: "Watchers should be able to start watching from a specific resource version, and be told when it is too old", test: watchesFrom},
	{name: "Lists are of the version they ask for", test: listsVersions},
	{name: "Servers refuse what they do not know", test: refusals},
	{name: "ServerSideApply should merge lists by their keys, apply to a status, and take over from an update", test: appliesLists},
	{name: "Health checks answer", test: health},
}

func serverVersion(*world) {
	v := must(api.Discovery().ServerVersion())
	same("major", v.Major, "1")
	if strings.Trim(v.Minor, "0123456789+") != "" || v.Minor == "" || !strings.HasPrefix(v.GitVersion, "v1."+strings.TrimSuffix(v.Minor, "+")) || v.Platform == "" || v.GoVersion == "" {
		fatal("the version is %v", v)
	}
}

func discoveryGroups(*world) {
	groups := must(api.Discovery().ServerGroups())
	for _, g := range groups.Groups {
		if strings.HasSuffix(g.Name, ".example.com") {
			continue
		}
		found := false
		for _, v := range g.Versions {
			found = found || v == g.PreferredVersion
		}
		same("the preferred version of "+g.Name, found, true)
		if g.Name == "" {
			continue
		}
		one := metav1.APIGroup{}
		done(json.Unmarshal(must(api.Discovery().RESTClient().Get().AbsPath("/apis/"+g.Name).SetHeader("Accept", "application/json").DoRaw(ctx)), &one))
		same("preferred", one.PreferredVersion, g.PreferredVersion)
		for _, v := range one.Versions {
			list := must(api.Discovery().ServerResourcesForGroupVersion(v.GroupVersion))
			same("group and version", list.GroupVersion, v.GroupVersion)
			same("resources of "+v.GroupVersion, len(list.APIResources) > 0, true)
			for _, r := range list.APIResources {
				if r.Kind == "" || len(r.Verbs) == 0 || !strings.Contains(r.Name, "/") && r.SingularName == "" {
					fatal("%s: %v", v.GroupVersion, r)
				}
			}
		}
	}
}

func discoveryAggregated(w *world) {
	tell := func(path, version string) apidiscoveryv2.APIGroupDiscoveryList {
		list := apidiscoveryv2.APIGroupDiscoveryList{}
		done(json.Unmarshal(must(api.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json;v="+version+";g=apidiscovery.k8s.io;as=APIGroupDiscoveryList").DoRaw(ctx)), &list))
		same("kind", list.Kind, "APIGroupDiscoveryList")
		same("version", list.APIVersion, "apidiscovery.k8s.io/"+version)
		return list
	}
	has := func(list apidiscoveryv2.APIGroupDiscoveryList, group, version, resource string) error {
		for _, g := range list.Items {
			for _, v := range g.Versions {
				for _, r := range v.Resources {
					if g.Name == group && v.Version == version && r.Resource == resource {
						return nil
					}
				}
			}
		}
		return fmt.Errorf("%s/%s %s is not told of", group, version, resource)
	}
	done(has(tell("/api", "v2"), "", "v1", "pods"))
	for _, want := range []string{"apps v1 deployments", "batch v1 jobs", "networking.k8s.io v1 ingresses", "admissionregistration.k8s.io v1 validatingwebhookconfigurations", "apiextensions.k8s.io v1 customresourcedefinitions", "apiregistration.k8s.io v1 apiservices", "rbac.authorization.k8s.io v1 roles"} {
		f := strings.Fields(want)
		done(has(tell("/apis", "v2"), f[0], f[1], f[2]))
	}
	d := definition{group: w.group(), kind: "Told", versions: []string{"v1"}}
	w.define(d)
	w.until(30*time.Second, "the new kind is told of", func() error { return has(tell("/apis", "v2"), d.group, "v1", "tolds") })
	plain := string(must(api.Discovery().RESTClient().Get().AbsPath("/apis").SetHeader("Accept", "application/json").DoRaw(ctx)))
	contains(plain, `"kind":"APIGroupList"`)
}

func openAPIThree(w *world) {
	index := func() map[string]string {
		var doc struct {
			Paths map[string]struct{ ServerRelativeURL string }
		}
		done(json.Unmarshal(must(api.Discovery().RESTClient().Get().AbsPath("/openapi/v3").DoRaw(ctx)), &doc))
		urls := map[string]string{}
		for k, v := range doc.Paths {
			urls[k] = v.ServerRelativeURL
		}
		return urls
	}
	before := index()
	for _, path := range []string{"api/v1", "apis/apps/v1", "apis/batch/v1", "apis/apiextensions.k8s.io/v1"} {
		text := string(must(api.Discovery().RESTClient().Get().RequestURI(before[path]).DoRaw(ctx)))
		contains(text, `"openapi":"3.0`)
		contains(text, `"x-kubernetes-group-version-kind"`)
	}
	d := definition{group: w.group(), kind: "Third", versions: []string{"v1"}, schema: called}
	w.define(d)
	w.until(30*time.Second, "the new kind is published", func() error {
		url := index()["apis/"+d.group+"/v1"]
		if url == "" {
			return errGone
		}
		contains(string(must(api.Discovery().RESTClient().Get().RequestURI(url).DoRaw(ctx))), "What it is called.")
		return nil
	})
	same("the hash of apps/v1", index()["apis/apps/v1"], before["apis/apps/v1"])
}

func namespaceChanged(w *world) {
	namespaces := api.CoreV1().Namespaces()
	must(namespaces.Patch(ctx, w.ns, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"testLabel":"testValue"}}}`), metav1.PatchOptions{}))
	same("listed", len(must(namespaces.List(ctx, metav1.ListOptions{LabelSelector: "testLabel=testValue,kubernetes.io/metadata.name=" + w.ns})).Items), 1)
	done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n := must(namespaces.Get(ctx, w.ns, metav1.GetOptions{}))
		n.Labels["updated"] = "yes"
		n, err := namespaces.Update(ctx, n, metav1.UpdateOptions{})
		if err == nil {
			same("label", n.Labels["updated"], "yes")
		}
		return err
	}))
	now := must(dyn.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")).Get(ctx, w.ns, metav1.GetOptions{}, "status"))
	same("phase", at2(now.Object, "status.phase"), "Active")
	n := must(namespaces.Patch(ctx, w.ns, types.MergePatchType, []byte(`{"metadata":{"annotations":{"status":"patched"}},"status":{"conditions":[{"type":"StatusPatch","status":"True","reason":"E2E","message":"Patched by an e2e test"}]}}`), metav1.PatchOptions{}, "status"))
	same("condition", string(n.Status.Conditions[0].Type), "StatusPatch")
	done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n := must(namespaces.Get(ctx, w.ns, metav1.GetOptions{}))
		n.Status.Conditions = append(n.Status.Conditions, corev1.NamespaceCondition{Type: "StatusUpdate", Status: corev1.ConditionTrue, Reason: "E2E", Message: "Updated by an e2e test"})
		n, err := namespaces.UpdateStatus(ctx, n, metav1.UpdateOptions{})
		if err == nil {
			same("conditions", len(n.Status.Conditions), 2)
		}
		return err
	}))
	name := w.ns + "-held"
	w.Cleanup(func() {
		_ = namespaces.Delete(ctx, name, metav1.DeleteOptions{})
		_, _ = namespaces.Finalize(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.UpdateOptions{})
	})
	other := must(namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
	same("finalizer", other.Spec.Finalizers[0], corev1.FinalizerKubernetes)
	other.Spec.Finalizers = append(other.Spec.Finalizers, "e2e.example.com/fakeFinalizer")
	other = must(namespaces.Finalize(ctx, other, metav1.UpdateOptions{}))
	same("finalizers", len(other.Spec.Finalizers), 2)
	done(namespaces.Delete(ctx, name, metav1.DeleteOptions{}))
	w.until(startLimit, "only the row's finalizer is left", func() error {
		other = must(namespaces.Get(ctx, name, metav1.GetOptions{}))
		same("phase", other.Status.Phase, corev1.NamespaceTerminating)
		return differs("finalizers", len(other.Spec.Finalizers), 1)
	})
	_, err := api.CoreV1().ConfigMaps(name).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "late"}}, metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	same("cause", apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), true)
	other.Spec.Finalizers = nil
	must(namespaces.Finalize(ctx, other, metav1.UpdateOptions{}))
	w.until(startLimit, "the namespace is gone", func() error {
		_, err := namespaces.Get(ctx, name, metav1.GetOptions{})
		return absent(err)
	})
}

func quotaChanged(w *world) {
	quotas := api.CoreV1().ResourceQuotas(w.ns)
	w.quota("q", map[corev1.ResourceName]string{"cpu": "1", "memory": "500Mi"})
	done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		q := must(quotas.Get(ctx, "q", metav1.GetOptions{}))
		for k, v := range resources("2", "1Gi") {
			q.Spec.Hard[k] = v
		}
		_, err := quotas.Update(ctx, q, metav1.UpdateOptions{})
		return err
	}))
	hard := func(name corev1.ResourceName, want string) {
		w.until(30*time.Second, "the status follows", func() error {
			v := must(quotas.Get(ctx, "q", metav1.GetOptions{})).Status.Hard[name]
			return differs("hard", v.String(), want)
		})
	}
	hard("cpu", "2")
	must(quotas.Patch(ctx, "q", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"l":"patched"}},"spec":{"hard":{"memory":"750Mi"}}}`), metav1.PatchOptions{}))
	hard("memory", "750Mi")
	// What is written to the status goes as soon as the controller counts again.
	q := must(quotas.Patch(ctx, "q", types.StrategicMergePatchType, []byte(`{"metadata":{"annotations":{"note":"x"}},"status":{"hard":{"cpu":"7"}}}`), metav1.PatchOptions{}, "status"))
	v := q.Status.Hard["cpu"]
	same("patched", v.String(), "7")
	hard("cpu", "2")
	same("listed", len(must(api.CoreV1().ResourceQuotas("").List(ctx, metav1.ListOptions{LabelSelector: "l=patched"})).Items) > 0, true)
	done(quotas.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "l=patched"}))
	_, err := quotas.Get(ctx, "q", metav1.GetOptions{})
	refused(err, apierrors.IsNotFound)
}

func quotaPriority(w *world) {
	high, low := w.priority("high", 1000), w.priority("low", 10)
	scope := func(name string, operator corev1.ScopeSelectorOperator, values ...string) {
		w.quota(name, map[corev1.ResourceName]string{"pods": "1"}, func(q *corev1.ResourceQuota) {
			q.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: operator, Values: values}}}
		})
	}
	scope("in", corev1.ScopeSelectorOpIn, high)
	scope("not-in", corev1.ScopeSelectorOpNotIn, high)
	scope("exists", corev1.ScopeSelectorOpExists)
	with := func(class string) edit { return func(p *corev1.Pod) { p.Spec.PriorityClassName = class } }
	same("priority", *w.create(pod("high", sleepScript, with(high))).Spec.Priority, 1000)
	w.used("in", "pods", "1")
	w.used("exists", "pods", "1")
	w.used("not-in", "pods", "0")
	_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("more", sleepScript, with(high)), metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	done(api.CoreV1().Pods(w.ns).Delete(ctx, "high", *metav1.NewDeleteOptions(0)))
	w.used("exists", "pods", "0")
	w.create(pod("low", sleepScript, with(low)))
	w.used("not-in", "pods", "1")
	w.used("in", "pods", "0")
}

func quotaCustom(w *world) {
	d := definition{group: w.group(), kind: "Counted", versions: []string{"v1"}}
	client := w.define(d)
	name := corev1.ResourceName("count/" + d.plural() + "." + d.group)
	w.quota("q", map[corev1.ResourceName]string{name: "1"})
	w.until(30*time.Second, "one is let in", func() error {
		_, err := client.Create(ctx, d.object("one", nil), metav1.CreateOptions{})
		return err
	})
	w.used("q", name, "1")
	_, err := client.Create(ctx, d.object("two", nil), metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	done(client.Delete(ctx, "one", metav1.DeleteOptions{}))
	w.used("q", name, "0")
	must(client.Create(ctx, d.object("two", nil), metav1.CreateOptions{}))
}

func watchesFrom(w *world) {
	first := w.marked("m", "from")
	second := w.mutate("m", `{"data":{"mutation":"1"}}`)
	w.mutate("m", `{"data":{"mutation":"2"}}`)
	w.unmap("m")
	f := w.follow("from", first.ResourceVersion)
	follows(f, watch.Modified, "m", "1")
	follows(f, watch.Modified, "m", "2")
	follows(f, watch.Deleted, "m", "2")
	f.Stop()
	f = w.follow("from", second.ResourceVersion)
	follows(f, watch.Modified, "m", "2")
	f.Stop()
	w.marked("n", "from")
	f = w.follow("from", "0")
	follows(f, watch.Added, "n", "")
	f.Stop()
	limited := must(api.CoreV1().ConfigMaps(w.ns).Watch(ctx, metav1.ListOptions{TimeoutSeconds: ptr(int64(1)), ResourceVersion: first.ResourceVersion}))
	for ended := time.After(20 * time.Second); ; {
		select {
		case _, open := <-limited.ResultChan():
			if open {
				continue
			}
		case <-ended:
			fatal("the watch outlives its limit")
		}
		break
	}
	_, err := api.CoreV1().ConfigMaps(w.ns).Watch(ctx, metav1.ListOptions{ResourceVersion: "none"})
	if err == nil {
		fatal("a version that is none was taken")
	}
}

func listsVersions(w *world) {
	maps := api.CoreV1().ConfigMaps(w.ns)
	one := w.marked("one", "v")
	w.marked("two", "v")
	count := func(o metav1.ListOptions, want int) {
		o.LabelSelector = "watch=v"
		same(fmt.Sprintf("listed by %s %q", o.ResourceVersionMatch, o.ResourceVersion), len(must(maps.List(ctx, o)).Items), want)
	}
	count(metav1.ListOptions{}, 2)
	count(metav1.ListOptions{ResourceVersion: one.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact}, 1)
	count(metav1.ListOptions{ResourceVersion: one.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact, Limit: 1}, 1)
	count(metav1.ListOptions{ResourceVersion: one.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}, 2)
	count(metav1.ListOptions{ResourceVersion: one.ResourceVersion}, 2)
	for _, o := range []metav1.ListOptions{{ResourceVersionMatch: metav1.ResourceVersionMatchExact}, {ResourceVersion: "0", ResourceVersionMatch: metav1.ResourceVersionMatchExact}, {ResourceVersion: "1", ResourceVersionMatch: "Other"}} {
		_, err := maps.List(ctx, o)
		refused(err, func(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) })
	}
	_, err := maps.List(ctx, metav1.ListOptions{ResourceVersion: "1", ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if err != nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		fatal("an old version: %v", err)
	}
	_, err = maps.List(ctx, metav1.ListOptions{Limit: 1, Continue: "nonsense"})
	refused(err, apierrors.IsBadRequest)
	_, err = maps.List(ctx, metav1.ListOptions{FieldSelector: "data.none=x"})
	refused(err, apierrors.IsBadRequest)
	_, err = maps.List(ctx, metav1.ListOptions{LabelSelector: "a in b"})
	refused(err, apierrors.IsBadRequest)
}

func refusals(w *world) {
	get := func(path string) error {
		_, err := api.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
		return err
	}
	refused(get("/api/v1/namespaces/"+w.ns+"/nones"), apierrors.IsNotFound)
	refused(get("/apis/none.example.com/v1"), apierrors.IsNotFound)
	refused(get("/apis/apps/v9/deployments"), apierrors.IsNotFound)
	post := func(path, body string) error {
		return api.Discovery().RESTClient().Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(ctx).Error()
	}
	path := "/api/v1/namespaces/" + w.ns + "/configmaps"
	refused(post(path, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`), apierrors.IsBadRequest)
	refused(post(path, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"default"}}`), apierrors.IsBadRequest)
	refused(post(path, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"Not A Name"}}`), apierrors.IsInvalid)
	refused(post(path, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{}}`), apierrors.IsInvalid)
	refused(post(path, `{"apiVersion":"v1",`), apierrors.IsBadRequest)
	refused(post("/api/v1/namespaces/"+w.ns+"-none/configmaps", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}`), apierrors.IsNotFound)
	refused(api.Discovery().RESTClient().Put().AbsPath(path).Body([]byte(`{}`)).Do(ctx).Error(), apierrors.IsMethodNotSupported)
	err := api.Discovery().RESTClient().Post().AbsPath(path).SetHeader("Content-Type", "text/none").Body([]byte(`{}`)).Do(ctx).Error()
	refused(err, apierrors.IsUnsupportedMediaType)
	w.marked("m", "x")
	for _, c := range []struct{ kind, body string }{{"application/json", `{}`}, {"application/merge-patch+json", `[`}, {"application/json-patch+json", `{}`}} {
		err := api.Discovery().RESTClient().Patch(types.PatchType(c.kind)).AbsPath(path + "/m").Body([]byte(c.body)).Do(ctx).Error()
		refused(err, func(err error) bool { return apierrors.IsBadRequest(err) || apierrors.IsUnsupportedMediaType(err) })
	}
	var status apierrors.APIStatus
	_, err = api.CoreV1().Namespaces().Get(ctx, "none-"+w.ns, metav1.GetOptions{})
	same("a status", errors.As(err, &status), true)
	same("details", status.Status().Details.Kind+" "+status.Status().Details.Name, "namespaces none-"+w.ns)
}

func appliesLists(w *world) {
	path := "/apis/apps/v1/namespaces/" + w.ns + "/deployments/d"
	apply := func(manager, suffix, spec string, force bool) (bool, error) {
		r := api.Discovery().RESTClient().Patch(types.ApplyPatchType).AbsPath(path+suffix).Param("fieldManager", manager).Param("force", fmt.Sprint(force)).
			Body([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","namespace":"` + w.ns + `"},` + spec + `}`))
		return force, r.Do(ctx).Error()
	}
	base := `"spec":{"replicas":0,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i:1","ports":[{"containerPort":80},{"containerPort":80,"protocol":"UDP"}],"env":[{"name":"A","value":"1"}]}]}}}`
	must(apply("one", "", base, false))
	must(apply("two", "", `"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"B","value":"2"}]},{"name":"side","image":"s:1"}]}}}`, false))
	d := must(api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{}))
	same("containers", len(d.Spec.Template.Spec.Containers), 2)
	same("ports", len(d.Spec.Template.Spec.Containers[0].Ports), 2)
	same("variables", len(d.Spec.Template.Spec.Containers[0].Env), 2)
	_, err := apply("two", "", `"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i:2"}]}}}`, false)
	refused(err, apierrors.IsConflict)
	contains(err.Error(), `.spec.template.spec.containers[name="c"].image`)
	must(apply("two", "", `"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"B","value":"2"}]}]}}}`, false))
	d = must(api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{}))
	same("containers", len(d.Spec.Template.Spec.Containers), 1)
	must(apply("told", "/status", `"status":{"conditions":[{"type":"Told","status":"True","reason":"E2E","message":"m"}]}`, false))
	d = must(api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{}))
	found := false
	for _, f := range d.ManagedFields {
		found = found || f.Manager == "told" && f.Subresource == "status" && f.Operation == metav1.ManagedFieldsOperationApply
	}
	same("the status has its manager", found, true)
	done(retry.RetryOnConflict(retry.DefaultRetry, func() error { // its controller writes too
		scale := must(api.AppsV1().Deployments(w.ns).GetScale(ctx, "d", metav1.GetOptions{}))
		scale.Spec.Replicas = 1
		_, err := api.AppsV1().Deployments(w.ns).UpdateScale(ctx, "d", scale, metav1.UpdateOptions{FieldManager: "scaler"})
		return err
	}))
	_, err = apply("one", "", base, false)
	refused(err, apierrors.IsConflict)
	contains(err.Error(), `"scaler"`)
	must(apply("one", "", strings.Replace(base, `"replicas":0,`, "", 1), false))
	same("replicas", *must(api.AppsV1().Deployments(w.ns).Get(ctx, "d", metav1.GetOptions{})).Spec.Replicas, 1)
}

func health(*world) {
	for _, path := range []string{"/healthz", "/livez", "/readyz", "/livez/ping", "/readyz/etcd"} {
		same(path, string(must(api.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx))), "ok")
	}
	contains(string(must(api.Discovery().RESTClient().Get().AbsPath("/readyz").Param("verbose", "true").DoRaw(ctx))), "[+]ping ok")
	contains(string(must(api.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx))), "apiserver_request_total")
}
