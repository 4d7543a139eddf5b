//go:build e2e

package conformance

import (
	"fmt"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var machineryPolicy = []behaviour{
	{name: "API priority and fairness should support FlowSchema API operations", test: operations(kind{name: "FlowSchema", resource: "flowcontrol.apiserver.k8s.io/v1 flowschemas",
		manifest: `{"spec":{"matchingPrecedence":10000,"priorityLevelConfiguration":{"name":"global-default"},"rules":[{"subjects":[{"kind":"User","user":{"name":"e2e"}}],"nonResourceRules":[{"nonResourceURLs":["*"],"verbs":["*"]}]}]}}`,
		status:   `{"status":{"conditions":[{"type":"Patched","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"E2E","message":"set"}]}}`, statusPath: "status.conditions.0.type", statusValue: "Patched"})},
	{name: "API priority and fairness should support PriorityLevelConfiguration API operations", test: operations(kind{name: "PriorityLevelConfiguration", resource: "flowcontrol.apiserver.k8s.io/v1 prioritylevelconfigurations",
		manifest: `{"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":2,"limitResponse":{"type":"Reject"}}}}`, status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"})},
	{name: "ValidatingAdmissionPolicy should support ValidatingAdmissionPolicy API operations", test: operations(kind{name: "ValidatingAdmissionPolicy", resource: "admissionregistration.k8s.io/v1 validatingadmissionpolicies",
		manifest: `{"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":["e2e.example.com"],"apiVersions":["v1"],"operations":["CREATE"],"resources":["none"]}]},"validations":[{"expression":"true"}]}}`, status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"})},
	{name: "ValidatingAdmissionPolicy should support ValidatingAdmissionPolicyBinding API operations", test: operations(kind{name: "ValidatingAdmissionPolicyBinding", resource: "admissionregistration.k8s.io/v1 validatingadmissionpolicybindings",
		manifest: `{"spec":{"policyName":"none-such","validationActions":["Deny"]}}`})},
	{name: "MutatingAdmissionPolicy should support MutatingAdmissionPolicy API operations", test: operations(kind{name: "MutatingAdmissionPolicy", resource: "admissionregistration.k8s.io/v1 mutatingadmissionpolicies",
		manifest: `{"spec":{"reinvocationPolicy":"Never","matchConstraints":{"resourceRules":[{"apiGroups":["e2e.example.com"],"apiVersions":["v1"],"operations":["CREATE"],"resources":["none"]}]},"mutations":[{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":"Object{}"}}]}}`})},
	{name: "MutatingAdmissionPolicy should support MutatingAdmissionPolicyBinding API operations", test: operations(kind{name: "MutatingAdmissionPolicyBinding", resource: "admissionregistration.k8s.io/v1 mutatingadmissionpolicybindings",
		manifest: `{"spec":{"policyName":"none-such"}}`})},
	{name: "AdmissionWebhook patching/updating a mutating webhook should work", test: operations(kind{name: "MutatingWebhookConfiguration", resource: "admissionregistration.k8s.io/v1 mutatingwebhookconfigurations",
		manifest: `{"webhooks":[{"name":"a.example.com","rules":[{"apiGroups":["e2e.example.com"],"apiVersions":["v1"],"operations":["CREATE"],"resources":["none"]}],"clientConfig":{"url":"https://127.0.0.1:1/"},"sideEffects":"None","admissionReviewVersions":["v1"]}]}`})},
	{name: "AdmissionWebhook patching/updating a validating webhook should work", test: operations(kind{name: "ValidatingWebhookConfiguration", resource: "admissionregistration.k8s.io/v1 validatingwebhookconfigurations",
		manifest: `{"webhooks":[{"name":"a.example.com","rules":[{"apiGroups":["e2e.example.com"],"apiVersions":["v1"],"operations":["CREATE"],"resources":["none"]}],"clientConfig":{"url":"https://127.0.0.1:1/"},"sideEffects":"None","admissionReviewVersions":["v1"]}]}`})},
	{name: "ValidatingAdmissionPolicy should validate against a Deployment, and allow expressions to refer variables", test: policyValidates},
	{name: "MutatingAdmissionPolicy should mutate a Deployment with annotations", test: policyMutates},
	{name: "AdmissionWebhook should be able to deny attaching pod", test: webhookAttach},
	{name: "AdmissionWebhook should be able to deny custom resource creation, update and deletion, and mutate it with pruning", test: webhookCustom},
	{name: "AdmissionWebhook should deny crd creation", test: webhookDefinition},
	{name: "AdmissionWebhook should not be able to mutate or prevent deletion of webhook configuration objects", test: webhookConfigurations},
	{name: "AdmissionWebhook should be able to create and update webhook configurations with match conditions, and reject invalid ones", test: webhookConditions},
}

// manifest makes an object, and unmakes it after the row.
func (w *world) manifest(resource, text string) {
	w.Helper()
	must(w.fed(text, "create", "-f", "-"))
	w.Cleanup(func() { _, _ = w.tryKubectl("delete", "--ignore-not-found", "--wait=false", resource, w.ns) })
}

func policyValidates(w *world) {
	w.manifest("validatingadmissionpolicy", `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicy","metadata":{"name":"`+w.ns+`"},"spec":{"failurePolicy":"Fail",
"matchConstraints":{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"`+w.ns+`"}},"resourceRules":[{"apiGroups":["apps"],"apiVersions":["v1"],"operations":["CREATE","UPDATE"],"resources":["deployments"]}]},
"variables":[{"name":"replicas","expression":"object.spec.replicas"},{"name":"few","expression":"variables.replicas < 2"}],
"validations":[{"expression":"variables.few","messageExpression":"'wants ' + string(variables.replicas) + ', may have 1'"}]}}`)
	w.manifest("validatingadmissionpolicybinding", `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicyBinding","metadata":{"name":"`+w.ns+`"},"spec":{"policyName":"`+w.ns+`","validationActions":["Deny"]}}`)
	w.until(30*time.Second, "two are refused", func() error {
		_, err := w.tryKubectl("create", "deployment", "--dry-run=server", "--image="+image, "--replicas=2", "two")
		if err == nil {
			return errGone
		}
		contains(err.Error(), "ValidatingAdmissionPolicy '"+w.ns+"' with binding '"+w.ns+"' denied request: wants 2, may have 1")
		return nil
	})
	w.kubectl("create", "deployment", "--image="+image, "--replicas=1", "one")
	_, err := w.tryKubectl("scale", "deployment", "one", "--replicas=0")
	done(err)
	_, err = w.tryKubectl("patch", "deployment", "one", "--patch", `{"spec":{"replicas":5}}`)
	same("growth is refused", err != nil, true)
}

func policyMutates(w *world) {
	w.manifest("mutatingadmissionpolicy", `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingAdmissionPolicy","metadata":{"name":"`+w.ns+`"},"spec":{"failurePolicy":"Fail","reinvocationPolicy":"Never",
"matchConstraints":{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"`+w.ns+`"}},"resourceRules":[{"apiGroups":["apps"],"apiVersions":["v1"],"operations":["CREATE"],"resources":["deployments"]}]},
"mutations":[{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":"Object{metadata: Object.metadata{annotations: {\"mutated\": \"yes\"}}}"}}]}}`)
	w.manifest("mutatingadmissionpolicybinding", `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingAdmissionPolicyBinding","metadata":{"name":"`+w.ns+`"},"spec":{"policyName":"`+w.ns+`"}}`)
	w.until(30*time.Second, "annotated", func() error {
		return differs("annotation", w.kubectl("create", "deployment", "--dry-run=server", "--image="+image, "d", "--output=jsonpath={.metadata.annotations.mutated}"), "yes")
	})
}

// rule is of one resource, for some operations.
func rule(group, version, resource string, operations ...admissionv1.OperationType) []admissionv1.RuleWithOperations {
	return []admissionv1.RuleWithOperations{{Operations: operations, Rule: admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{resource}}}}
}

// validating registers a webhook that is asked for what a rule says.
func (w *world) validating(ca []byte, path string, rules []admissionv1.RuleWithOperations, edits ...func(h *admissionv1.ValidatingWebhook)) {
	w.Helper()
	h := admissionv1.ValidatingWebhook{Name: "v.e2e.example.com", Rules: rules, ClientConfig: w.hook(ca, path), SideEffects: ptr(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}, NamespaceSelector: w.own()}
	for _, e := range edits {
		e(&h)
	}
	must(api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: w.ns}, Webhooks: []admissionv1.ValidatingWebhook{h}}, metav1.CreateOptions{}))
	w.Cleanup(func() {
		_ = api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(ctx, w.ns, metav1.DeleteOptions{})
	})
}

func (w *world) mutating(ca []byte, path string, rules []admissionv1.RuleWithOperations, edits ...func(h *admissionv1.MutatingWebhook)) {
	w.Helper()
	h := admissionv1.MutatingWebhook{Name: "m.e2e.example.com", Rules: rules, ClientConfig: w.hook(ca, path), SideEffects: ptr(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}, NamespaceSelector: w.own()}
	for _, e := range edits {
		e(&h)
	}
	must(api.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: w.ns}, Webhooks: []admissionv1.MutatingWebhook{h}}, metav1.CreateOptions{}))
	w.Cleanup(func() {
		_ = api.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, w.ns, metav1.DeleteOptions{})
	})
}

// denied waits until something is refused by the webhook that denies.
func (w *world) denied(what string, try func() error) {
	w.Helper()
	w.until(30*time.Second, what+" is denied", func() error {
		err := try()
		if err == nil {
			return errGone
		}
		contains(err.Error(), "denied the request: the tester denies it")
		return nil
	})
}

func webhookAttach(w *world) {
	ca := w.hooks()
	w.ready(pod("attached", sleepScript))
	w.validating(ca, "/review/deny", rule("", "v1", "pods/attach", admissionv1.Connect))
	w.denied("attaching", func() error {
		_, err := w.tryKubectl("attach", "attached", "--stdin=false", "--request-timeout=5s")
		return err
	})
}

func webhookCustom(w *world) {
	ca := w.hooks()
	d := definition{group: w.group(), kind: "Judged", versions: []string{"v1"}, schema: `{"type":"object","properties":{"data":{"type":"object","properties":{"known":{"type":"string"},"stage-1":{"type":"string"}}}}}`}
	client := w.define(d)
	must(client.Create(ctx, d.object("kept", object{"data": object{"known": "x"}}), metav1.CreateOptions{}))
	// One hook adds a field that the schema has, the other one that is pruned.
	w.mutating(ca, "/review/stage-1", rule(d.group, "v1", d.plural(), admissionv1.Create))
	w.until(30*time.Second, "it is mutated", func() error {
		u := must(client.Create(ctx, d.object("", object{"metadata": object{"generateName": "m-"}, "data": object{}}), metav1.CreateOptions{}))
		return differs("data", at2(u.Object, "data.stage-1"), "yes")
	})
	must(api.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(ctx, w.ns, types.JSONPatchType, []byte(`[{"op":"replace","path":"/webhooks/0/clientConfig/service/path","value":"/review/unheard"}]`), metav1.PatchOptions{}))
	w.until(30*time.Second, "what no schema has is pruned", func() error {
		u := must(client.Create(ctx, d.object("", object{"metadata": object{"generateName": "m-"}, "data": object{}}), metav1.CreateOptions{}))
		return differs("data", at2(u.Object, "data"), "{}")
	})
	w.validating(ca, "/review/deny", rule(d.group, "v1", d.plural(), admissionv1.Create, admissionv1.Update, admissionv1.Delete))
	w.denied("creation", func() error {
		_, err := client.Create(ctx, d.object("", object{"metadata": object{"generateName": "d-"}, "data": object{}}), metav1.CreateOptions{})
		return err
	})
	w.denied("an update", func() error {
		_, err := client.Patch(ctx, "kept", types.MergePatchType, []byte(`{"data":{"known":"y"}}`), metav1.PatchOptions{})
		return err
	})
	w.denied("deletion", func() error { return client.Delete(ctx, "kept", metav1.DeleteOptions{}) })
	must(api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(ctx, w.ns, types.JSONPatchType, []byte(`[{"op":"replace","path":"/webhooks/0/rules/0/operations","value":["CREATE"]}]`), metav1.PatchOptions{}))
	w.until(30*time.Second, "deletion is let through", func() error { return client.Delete(ctx, "kept", metav1.DeleteOptions{}) })
}

func webhookDefinition(w *world) {
	ca := w.hooks()
	w.validating(ca, "/review/deny", rule("apiextensions.k8s.io", "*", "customresourcedefinitions", admissionv1.Create), func(h *admissionv1.ValidatingWebhook) {
		h.NamespaceSelector = nil
		h.ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"denied": w.ns}}
	})
	d := definition{group: w.group(), kind: "Denied", versions: []string{"v1"}}
	w.denied("a definition", func() error {
		crd := d.object(d.plural()+"."+d.group, object{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": object{"group": d.group, "scope": "Namespaced", "versions": []any{d.version("v1", true)},
			"names": object{"plural": d.plural(), "singular": "denied", "kind": d.kind, "listKind": "DeniedList"}}})
		crd.SetLabels(map[string]string{"denied": w.ns})
		_, err := dyn.Resource(crds).Create(ctx, crd, metav1.CreateOptions{DryRun: []string{"All"}})
		return err
	})
}

func webhookConfigurations(w *world) {
	ca := w.hooks()
	all := rule("admissionregistration.k8s.io", "*", "*", admissionv1.Create, admissionv1.Update, admissionv1.Delete)
	labelled := &metav1.LabelSelector{MatchLabels: map[string]string{"judged": w.ns}}
	w.validating(ca, "/review/deny", all, func(h *admissionv1.ValidatingWebhook) { h.NamespaceSelector, h.ObjectSelector = nil, labelled })
	w.mutating(ca, "/review/stage-1", all, func(h *admissionv1.MutatingWebhook) { h.NamespaceSelector, h.ObjectSelector = nil, labelled })
	// What these are asked about is not known from outside, so a second is what they get to become active.
	time.Sleep(time.Second)
	for _, resource := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"} {
		client := dyn.Resource(schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: resource})
		kind := strings.NewReplacer("mutatingwebhookc", "MutatingWebhookC", "validatingwebhookc", "ValidatingWebhookC", "ions", "ion").Replace(resource)
		u := definition{group: "admissionregistration.k8s.io", kind: kind, versions: []string{"v1"}}.object(w.ns+"-dummy", object{"webhooks": []any{object{"name": "dummy.e2e.example.com", "sideEffects": "None", "admissionReviewVersions": []any{"v1"},
			"clientConfig": object{"url": "https://127.0.0.1:1/"}, "rules": []any{object{"apiGroups": []any{"e2e.example.com"}, "apiVersions": []any{"v1"}, "operations": []any{"CREATE"}, "resources": []any{"none"}}}}}})
		u.SetLabels(map[string]string{"judged": w.ns})
		made := must(client.Create(ctx, u, metav1.CreateOptions{}))
		same("data", made.Object["data"] == nil, true)
		done(client.Delete(ctx, u.GetName(), metav1.DeleteOptions{}))
	}
}

func webhookConditions(w *world) {
	ca := w.hooks()
	condition := func(text string) []admissionv1.MatchCondition {
		return []admissionv1.MatchCondition{{Name: "c", Expression: text}}
	}
	for _, bad := range []string{"... [] bad expression", "1 + 1", "unheard == 1"} {
		h := admissionv1.ValidatingWebhook{Name: "v.e2e.example.com", Rules: hookRule("configmaps"), ClientConfig: w.hook(ca, "/review/deny"), SideEffects: ptr(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}, MatchConditions: condition(bad)}
		_, err := api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: w.ns}, Webhooks: []admissionv1.ValidatingWebhook{h}}, metav1.CreateOptions{})
		refused(err, apierrors.IsInvalid)
		contains(err.Error(), "webhooks[0].matchConditions[0].expression")
		m := admissionv1.MutatingWebhook{Name: "m.e2e.example.com", Rules: hookRule("configmaps"), ClientConfig: w.hook(ca, "/review/deny"), SideEffects: ptr(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}, MatchConditions: condition(bad)}
		_, err = api.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: w.ns}, Webhooks: []admissionv1.MutatingWebhook{m}}, metav1.CreateOptions{})
		refused(err, apierrors.IsInvalid)
	}
	w.validating(ca, "/review/deny", hookRule("configmaps"), func(h *admissionv1.ValidatingWebhook) {
		h.MatchConditions = condition("object.metadata.name.startsWith('no-')")
	})
	create := func(prefix string) error {
		_, err := api.CoreV1().ConfigMaps(w.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix}}, metav1.CreateOptions{})
		return err
	}
	w.denied("a name that the condition meets", func() error { return create("no-") })
	done(create("yes-"))
	must(api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(ctx, w.ns, types.JSONPatchType, []byte(fmt.Sprintf(`[{"op":"replace","path":"/webhooks/0/matchConditions/0/expression","value":%q}]`, "object.metadata.name.startsWith('yes-')")), metav1.PatchOptions{}))
	w.denied("the other name, after an update", func() error { return create("yes-") })
	done(create("no-"))
}
