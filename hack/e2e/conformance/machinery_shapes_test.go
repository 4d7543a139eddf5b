//go:build e2e

package conformance

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var machineryShapes = []behaviour{
	{name: "CustomResourceDefinition resources every operation of a custom resource", test: customOperations},
	{name: "CustomResourceDefinition resources the status and the scale are written by themselves", test: customParts},
	{name: "CustomResourceDefinition resources rules of the schema hold", test: customRules},
	{name: "CustomResourceDefinition resources are found by fields, categories and short names, and shown in columns", test: customShown},
	{name: "CustomResourceDefinition resources what has no structure or no free name is told of", test: customUnfit},
	{name: "CustomResourceDefinition resources go with their definition", test: customGone},
	{name: "ValidatingAdmissionPolicy should use parameters, variables, warnings and messages", test: policyParameters},
	{name: "ValidatingAdmissionPolicy should type check a CRD and say what does not fit", test: policyTypes},
	{name: "MutatingAdmissionPolicy should patch by JSON, once its conditions match", test: policyPatches},
	{name: "Garbage collector should support cascading deletion of custom resources, and orphan them", test: collectsCustom},
	{name: "Garbage collector should delete what has an owner that is not there", test: collectsAbsent},
	{name: "Services should be given addresses and ports, keep them, and refuse those of others", test: serviceAddresses},
	{name: "PersistentVolumes and StorageClasses should refuse what may not change, and use the default class", test: storageFixed, serial: true},
	{name: "Pod Security should be enforced and warned of by the namespace's labels", test: podSecurity},
	{name: "LimitRange should hold claims, pods and ratios", test: limitRangeKinds},
}

func customOperations(w *world) {
	d := definition{group: w.group(), kind: "Whole", versions: []string{"v1"}, schema: called, spec: nil}
	w.define(d)
	operations(kind{name: "Whole", resource: d.group + "/v1 wholes", namespaced: true, custom: true, manifest: `{"spec":{"name":"x"}}`})(w)
}

func customParts(w *world) {
	d := definition{group: w.group(), kind: "Part", versions: []string{"v1"}}
	d.spec = object{"versions": []any{object{"name": "v1", "served": true, "storage": true, "schema": object{"openAPIV3Schema": object{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
		"subresources": object{"status": object{}, "scale": object{"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}}}}}
	client := w.define(d)
	u := must(client.Create(ctx, d.object("p", object{"spec": object{"replicas": int64(2)}, "status": object{"replicas": int64(9)}}), metav1.CreateOptions{}))
	same("a status at creation", at2(u.Object, "status"), "null")
	same("generation", u.GetGeneration(), 1)
	u.Object["status"] = object{"replicas": int64(1), "selector": "a=b"}
	u.Object["spec"].(object)["replicas"] = int64(5)
	u = must(client.UpdateStatus(ctx, u, metav1.UpdateOptions{}))
	same("told, not asked", at2(u.Object, "spec.replicas")+at2(u.Object, "status.replicas"), "21")
	same("generation", u.GetGeneration(), 1)
	scale := must(client.Get(ctx, "p", metav1.GetOptions{}, "scale"))
	same("scale", at2(scale.Object, "kind")+at2(scale.Object, "spec.replicas")+at2(scale.Object, "status.replicas")+at2(scale.Object, "status.selector"), "Scale21a=b")
	must(client.Patch(ctx, "p", types.MergePatchType, []byte(`{"spec":{"replicas":7}}`), metav1.PatchOptions{}, "scale"))
	u = must(client.Get(ctx, "p", metav1.GetOptions{}))
	same("asked", at2(u.Object, "spec.replicas"), "7")
	same("generation", u.GetGeneration(), 2)
	w.kubectl("scale", d.plural()+"."+d.group, "p", "--replicas=3")
	same("scaled", at2(must(client.Get(ctx, "p", metav1.GetOptions{})).Object, "spec.replicas"), "3")
}

func customRules(w *world) {
	d := definition{group: w.group(), kind: "Ruled", versions: []string{"v1"}, schema: `{"type":"object","properties":{"spec":{"type":"object","required":["size"],"x-kubernetes-validations":[{"rule":"self.size <= self.limit","message":"too large"},{"rule":"!has(oldSelf.fixed) || self.fixed == oldSelf.fixed","messageExpression":"'fixed was ' + oldSelf.fixed"}],
		"properties":{"size":{"type":"integer","minimum":1},"limit":{"type":"integer","default":10},"fixed":{"type":"string","maxLength":5,"pattern":"^[a-z]+$"},"mode":{"type":"string","enum":["A","B"]},"list":{"type":"array","maxItems":2,"x-kubernetes-list-type":"set","items":{"type":"string"}},"either":{"x-kubernetes-int-or-string":true}}}}}`}
	client := w.define(d)
	try := func(spec object) error {
		_, err := client.Create(ctx, d.object("", object{"metadata": object{"generateName": "r-"}, "spec": spec}), metav1.CreateOptions{})
		return err
	}
	for want, spec := range map[string]object{"too large": {"size": int64(11)}, "spec.size": {"size": int64(0)}, "Required value": {}, "spec.fixed": {"size": int64(1), "fixed": "UPPER"}, `supported values: "A", "B"`: {"size": int64(1), "mode": "C"},
		"Duplicate value": {"size": int64(1), "list": []any{"a", "a"}}, "must be of type integer": {"size": "1"}, "spec.either": {"size": int64(1), "either": true}} {
		err := try(spec)
		refused(err, apierrors.IsInvalid)
		contains(err.Error(), want)
	}
	done(try(object{"size": int64(1), "either": "50%", "list": []any{"a", "b"}}))
	must(client.Create(ctx, d.object("kept", object{"spec": object{"size": int64(1), "fixed": "a", "unknown": "x"}}), metav1.CreateOptions{}))
	u := must(client.Get(ctx, "kept", metav1.GetOptions{}))
	same("default and pruned", at2(u.Object, "spec.limit")+at2(u.Object, "spec.unknown"), "10null")
	_, err := client.Patch(ctx, "kept", types.MergePatchType, []byte(`{"spec":{"fixed":"b"}}`), metav1.PatchOptions{})
	refused(err, apierrors.IsInvalid)
	contains(err.Error(), "fixed was a")
}

func customShown(w *world) {
	d := definition{group: w.group(), kind: "Shown", versions: []string{"v1"}}
	d.spec = object{"names": object{"plural": "showns", "singular": "shown", "kind": "Shown", "listKind": "ShownList", "shortNames": []any{"sh" + strings.ReplaceAll(w.ns, "-", "")}, "categories": []any{"cat" + strings.ReplaceAll(w.ns, "-", "")}},
		"versions": []any{object{"name": "v1", "served": true, "storage": true, "schema": object{"openAPIV3Schema": object{"type": "object", "properties": object{"spec": object{"type": "object", "properties": object{"color": object{"type": "string"}}}}}},
			"selectableFields":         []any{object{"jsonPath": ".spec.color"}},
			"additionalPrinterColumns": []any{object{"name": "Color", "type": "string", "jsonPath": ".spec.color"}, object{"name": "Deep", "type": "string", "jsonPath": ".spec.color", "priority": int64(1)}}}}}
	client := w.define(d)
	for name, color := range map[string]string{"one": "red", "two": "blue"} {
		must(client.Create(ctx, d.object(name, object{"spec": object{"color": color}}), metav1.CreateOptions{}))
	}
	found := must(client.List(ctx, metav1.ListOptions{FieldSelector: "spec.color=blue"})).Items
	same("found", len(found) == 1 && found[0].GetName() == "two", true)
	follow := must(client.Watch(ctx, metav1.ListOptions{FieldSelector: "spec.color=red"}))
	defer follow.Stop()
	sees(follow, "ADDED", func(u *unstructured.Unstructured) bool { return u.GetName() == "one" })
	must(client.Patch(ctx, "one", types.MergePatchType, []byte(`{"spec":{"color":"green"}}`), metav1.PatchOptions{}))
	sees(follow, "DELETED", func(u *unstructured.Unstructured) bool { return u.GetName() == "one" })
	short := strings.ReplaceAll(w.ns, "-", "")
	inOrder(w.kubectl("get", "sh"+short), "NAME COLOR", "two blue")
	inOrder(w.kubectl("get", "cat"+short, "-o", "wide"), "NAME COLOR DEEP", "two blue blue")
}

func customUnfit(w *world) {
	condition := func(name, kind string) object {
		u := must(dyn.Resource(crds).Get(ctx, name, metav1.GetOptions{}))
		conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		for _, c := range conditions {
			if c.(object)["type"] == kind {
				return c.(object)
			}
		}
		return object{}
	}
	w.define(definition{group: w.group(), kind: "Taken", versions: []string{"v1"}})
	second := definition{group: w.group(), kind: "Other", versions: []string{"v1"}}
	u := &unstructured.Unstructured{Object: object{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": object{"name": "others." + second.group}, "spec": object{"group": second.group, "scope": "Namespaced",
		"versions": []any{second.version("v1", true)}, "names": object{"plural": "others", "singular": "other", "kind": "Taken", "listKind": "OtherList"}}}}
	must(dyn.Resource(crds).Create(ctx, u, metav1.CreateOptions{}))
	w.Cleanup(func() { _ = dyn.Resource(crds).Delete(ctx, "others."+second.group, metav1.DeleteOptions{}) })
	w.until(20*time.Second, "its name is taken", func() error {
		return differs("condition", fmt.Sprint(condition("others."+second.group, "NamesAccepted")["status"], condition("others."+second.group, "NamesAccepted")["reason"]), "FalseKindConflict")
	})
	same("established", fmt.Sprint(condition("takens."+w.group(), "Established")["status"]), "True")
	bad := func(change func(spec object)) {
		d := definition{group: w.group(), kind: "Bad", versions: []string{"v1"}}
		spec := object{"group": d.group, "scope": "Namespaced", "versions": []any{d.version("v1", true)}, "names": object{"plural": "bads", "singular": "bad", "kind": "Bad", "listKind": "BadList"}}
		change(spec)
		_, err := dyn.Resource(crds).Create(ctx, &unstructured.Unstructured{Object: object{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": object{"name": "bads." + d.group}, "spec": spec}}, metav1.CreateOptions{})
		refused(err, apierrors.IsInvalid)
	}
	first := func(spec object) object { return spec["versions"].([]any)[0].(object) }
	bad(func(spec object) { delete(first(spec), "schema") })
	bad(func(spec object) { first(spec)["storage"] = false })
	bad(func(spec object) {
		first(spec)["schema"] = object{"openAPIV3Schema": object{"properties": object{"a": object{"type": "string"}}}}
	})
	bad(func(spec object) {
		first(spec)["schema"] = object{"openAPIV3Schema": object{"type": "object", "properties": object{"a": object{"type": "string", "x-kubernetes-validations": []any{object{"rule": "self >"}}}}}}
	})
	bad(func(spec object) { spec["scope"] = "Other" })
	bad(func(spec object) { spec["names"].(object)["plural"] = "others" })
}

func customGone(w *world) {
	d := definition{group: w.group(), kind: "Going", versions: []string{"v1"}}
	client := w.define(d)
	must(client.Create(ctx, d.object("one", nil), metav1.CreateOptions{}))
	held := d.object("held", nil)
	held.SetFinalizers([]string{"e2e.example.com/hold"})
	must(client.Create(ctx, held, metav1.CreateOptions{}))
	done(dyn.Resource(crds).Delete(ctx, "goings."+d.group, metav1.DeleteOptions{}))
	w.until(20*time.Second, "one is gone", func() error {
		_, err := client.Get(ctx, "one", metav1.GetOptions{})
		return absent(err)
	})
	_, err := client.Create(ctx, d.object("late", nil), metav1.CreateOptions{})
	refused(err, apierrors.IsMethodNotSupported)
	must(client.Patch(ctx, "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}))
	w.until(30*time.Second, "the definition is gone", func() error {
		_, err := dyn.Resource(crds).Get(ctx, "goings."+d.group, metav1.GetOptions{})
		return absent(err)
	})
	w.until(30*time.Second, "the kind is gone", func() error {
		_, err := client.List(ctx, metav1.ListOptions{})
		return absent(err)
	})
}

// policy makes an admission policy on the row's config maps, and what binds it to the row's namespace.
func (w *world) policy(prefix, spec, binding string) {
	w.Helper()
	match := `"matchConstraints":{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"` + w.ns + `"}},"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE","UPDATE"],"resources":["configmaps"]}]}`
	group := schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"}
	for kind, text := range map[string]string{"AdmissionPolicy": `{` + match + `,` + spec + `}`, "AdmissionPolicyBinding": `{"policyName":"` + w.ns + `",` + binding + `}`} {
		body := object{}
		done(json.Unmarshal([]byte(text), &body))
		client := dyn.Resource(group.WithResource(strings.ToLower(prefix) + map[bool]string{true: "admissionpolicies", false: "admissionpolicybindings"}[kind == "AdmissionPolicy"]))
		must(client.Create(ctx, &unstructured.Unstructured{Object: object{"apiVersion": group.String(), "kind": prefix + kind, "metadata": object{"name": w.ns}, "spec": body}}, metav1.CreateOptions{}))
		w.Cleanup(func() { _ = client.Delete(ctx, w.ns, metav1.DeleteOptions{}) })
	}
}

func policyParameters(w *world) {
	w.configMap("params", map[string]string{"limit": "3"})
	w.policy("Validating", `"failurePolicy":"Fail","paramKind":{"apiVersion":"v1","kind":"ConfigMap"},"matchConditions":[{"name":"named","expression":"object.metadata.name != 'params'"}],"variables":[{"name":"n","expression":"object.?data['n'].orValue('0')"}],
		"validations":[{"expression":"int(variables.n) <= int(params.data.limit)","messageExpression":"'n is over ' + params.data.limit + ' in ' + namespaceObject.metadata.name","reason":"Forbidden"},{"expression":"request.userInfo.username != ''"}],"auditAnnotations":[{"key":"n","valueExpression":"variables.n"}]`,
		`"validationActions":["Deny","Audit"],"paramRef":{"name":"params","namespace":"`+w.ns+`","parameterNotFoundAction":"Deny"}`)
	try := func(n string) error {
		_, err := api.CoreV1().ConfigMaps(w.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "n-"}, Data: map[string]string{"n": n}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	w.until(30*time.Second, "the policy holds", func() error { return differs("refused", try("4") != nil, true) })
	err := try("4")
	refused(err, apierrors.IsForbidden)
	contains(err.Error(), "n is over 3 in "+w.ns)
	done(try("3"))
	must(api.CoreV1().ConfigMaps(w.ns).Patch(ctx, "params", types.MergePatchType, []byte(`{"data":{"limit":"5"}}`), metav1.PatchOptions{}))
	w.until(20*time.Second, "the new limit holds", func() error { return try("4") })
	must(dyn.Resource(schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"}).Patch(ctx, w.ns, types.MergePatchType, []byte(`{"spec":{"validationActions":["Warn"]}}`), metav1.PatchOptions{}))
	w.until(20*time.Second, "it warns", func() error {
		told, err := raw("POST", "/api/v1/namespaces/"+w.ns+"/configmaps", "application/json", "Strict", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"n-"},"data":{"n":"6"}}`)
		if err != nil {
			return err
		}
		return differs("warned", strings.Contains(told, "n is over 5"), true)
	})
	w.unmap("params")
	must(dyn.Resource(schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"}).Patch(ctx, w.ns, types.MergePatchType, []byte(`{"spec":{"validationActions":["Deny"]}}`), metav1.PatchOptions{}))
	w.until(20*time.Second, "without its parameters nothing is let in", func() error { return differs("refused", try("1") != nil, true) })
}

func policyTypes(w *world) {
	policies := dyn.Resource(schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"})
	d := definition{group: w.group(), kind: "Typed", versions: []string{"v1"}, schema: `{"type":"object","properties":{"spec":{"type":"object","properties":{"replicas":{"type":"integer"}}}}}`}
	w.define(d)
	check := func(name, group, resource, expression, want string) {
		body := object{}
		done(json.Unmarshal(fmt.Appendf(nil, `{"matchConstraints":{"resourceRules":[{"apiGroups":[%q],"apiVersions":["v1"],"operations":["CREATE"],"resources":[%q]}]},"validations":[{"expression":%q}]}`, group, resource, expression), &body))
		must(policies.Create(ctx, &unstructured.Unstructured{Object: object{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": object{"name": name}, "spec": body}}, metav1.CreateOptions{}))
		w.Cleanup(func() { _ = policies.Delete(ctx, name, metav1.DeleteOptions{}) })
		w.until(40*time.Second, "the types are checked", func() error {
			u := must(policies.Get(ctx, name, metav1.GetOptions{}))
			if at2(u.Object, "status.observedGeneration") != "1" {
				return errGone
			}
			return differs("warnings", strings.Contains(at2(u.Object, "status.typeChecking"), "spec.validations[0].expression"), want != "")
		})
		if want != "" {
			contains(at2(must(policies.Get(ctx, name, metav1.GetOptions{})).Object, "status.typeChecking.expressionWarnings.0.warning"), want)
		}
	}
	check(w.ns+"-good", "apps", "deployments", "object.spec.replicas > 1", "")
	check(w.ns+"-bad", "apps", "deployments", "object.spec.replicas > '1'", "found no matching overload for '_>_'")
	check(w.ns+"-none", "apps", "deployments", "object.spec.nothing > 1", "undefined field 'nothing'")
	check(w.ns+"-custom", d.group, "typeds", "object.spec.replicas > '1'", "found no matching overload for '_>_'")
}

func policyPatches(w *world) {
	w.policy("Mutating", `"failurePolicy":"Fail","reinvocationPolicy":"IfNeeded","matchConditions":[{"name":"marked","expression":"has(object.data) && 'mark' in object.data"}],"variables":[{"name":"v","expression":"object.data.mark + '!'"}],
		"mutations":[{"patchType":"JSONPatch","jsonPatch":{"expression":"[JSONPatch{op: 'add', path: '/data/by-patch', value: variables.v}]"}},{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":"Object{data: {'by-apply': object.data['by-patch']}}"}}]`, `"matchResources":{}`)
	make := func(data map[string]string) string {
		return fmt.Sprint(must(api.CoreV1().ConfigMaps(w.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "m-"}, Data: data}, metav1.CreateOptions{})).Data)
	}
	w.until(30*time.Second, "it is patched", func() error {
		return differs("data", make(map[string]string{"mark": "x"}), "map[by-apply:x! by-patch:x! mark:x]")
	})
	same("unmarked", make(map[string]string{"other": "x"}), "map[other:x]")
}

func collectsCustom(w *world) {
	d := definition{group: w.group(), kind: "Owner", versions: []string{"v1"}}
	client := w.define(d)
	own := func(owner, dependent string) {
		o := must(client.Create(ctx, d.object(owner, nil), metav1.CreateOptions{}))
		c := d.object(dependent, nil)
		c.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Name: o.GetName(), UID: o.GetUID(), BlockOwnerDeletion: ptr(true)}})
		must(client.Create(ctx, c, metav1.CreateOptions{}))
	}
	own("a", "a-child")
	own("b", "b-child")
	done(client.Delete(ctx, "a", propagating(metav1.DeletePropagationForeground)))
	done(client.Delete(ctx, "b", propagating(metav1.DeletePropagationOrphan)))
	for _, name := range []string{"a", "a-child", "b"} {
		w.until(90*time.Second, name+" is gone", func() error {
			_, err := client.Get(ctx, name, metav1.GetOptions{})
			return absent(err)
		})
	}
	w.holds(3*time.Second, "the orphan stays", func() error {
		_, err := client.Get(ctx, "b-child", metav1.GetOptions{})
		return err
	})
}

func collectsAbsent(w *world) {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "orphan", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "none", UID: "11111111-1111-1111-1111-111111111111"}}}}
	must(api.CoreV1().ConfigMaps(w.ns).Create(ctx, m, metav1.CreateOptions{}))
	w.until(60*time.Second, "it is collected", func() error {
		_, err := api.CoreV1().ConfigMaps(w.ns).Get(ctx, "orphan", metav1.GetOptions{})
		return absent(err)
	})
}

func serviceAddresses(w *world) {
	services := api.CoreV1().Services(w.ns)
	one := w.service("one", nil, 80, 80, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort })
	same("policy", *one.Spec.IPFamilyPolicy, corev1.IPFamilyPolicySingleStack)
	same("families", string(one.Spec.IPFamilies[0]), "IPv4")
	same("addresses", strings.Join(one.Spec.ClusterIPs, ""), one.Spec.ClusterIP)
	port := one.Spec.Ports[0].NodePort
	same("the port is of the range", port >= 30000 && port <= 32767, true)
	must(api.NetworkingV1().IPAddresses().Get(ctx, one.Spec.ClusterIP, metav1.GetOptions{}))
	create := func(edit func(s *corev1.Service)) error {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{GenerateName: "s-"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		edit(s)
		_, err := services.Create(ctx, s, metav1.CreateOptions{})
		return err
	}
	for want, edit := range map[string]func(s *corev1.Service){
		"provided IP is already allocated":                   func(s *corev1.Service) { s.Spec.ClusterIP = one.Spec.ClusterIP },
		"provided port is already allocated":                 func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, port },
		"not in the valid range":                             func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 79 },
		"spec.ports[1].name: Required value":                 func(s *corev1.Service) { s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: 81}) },
		"spec.ports: Required value":                         func(s *corev1.Service) { s.Spec.Ports = nil },
		"spec.externalName":                                  func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName },
		"may not be set to 'None'":                           func(s *corev1.Service) { s.Spec.Type, s.Spec.ClusterIP = corev1.ServiceTypeNodePort, "None" },
		"may only be set for externally-accessible services": func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal },
		"spec.sessionAffinity: Unsupported value":            func(s *corev1.Service) { s.Spec.SessionAffinity = "Other" },
	} {
		err := create(edit)
		refused(err, apierrors.IsInvalid)
		contains(err.Error(), want)
	}
	patch := func(body string) (*corev1.Service, error) {
		return services.Patch(ctx, "one", types.MergePatchType, []byte(body), metav1.PatchOptions{})
	}
	_, err := patch(`{"spec":{"clusterIP":"10.96.200.200","clusterIPs":["10.96.200.200"]}}`)
	refused(err, apierrors.IsInvalid)
	contains(err.Error(), "may not change once set")
	s := must(patch(`{"spec":{"ports":[{"port":81,"protocol":"TCP"}]}}`))
	same("the port is kept or given anew", s.Spec.Ports[0].NodePort > 0, true)
	s = must(patch(`{"spec":{"type":"ClusterIP"}}`))
	same("no port of the node", s.Spec.Ports[0].NodePort, 0)
	same("the address stays", s.Spec.ClusterIP, one.Spec.ClusterIP)
	done(services.Delete(ctx, "one", metav1.DeleteOptions{}))
	done(create(func(s *corev1.Service) { s.Spec.ClusterIP = one.Spec.ClusterIP }))
	s = w.service("headless", nil, 80, 80, func(s *corev1.Service) { s.Spec.ClusterIP = "None" })
	same("headless", s.Spec.ClusterIP, "None")
	balanced := w.service("balanced", nil, 80, 80, func(s *corev1.Service) {
		s.Spec.Type, s.Spec.LoadBalancerClass = corev1.ServiceTypeLoadBalancer, ptr("e2e.example.com/none")
		s.Spec.ExternalTrafficPolicy, s.Spec.AllocateLoadBalancerNodePorts = corev1.ServiceExternalTrafficPolicyLocal, ptr(false)
	})
	same("ports", balanced.Spec.Ports[0].NodePort, 0)
	same("health", balanced.Spec.HealthCheckNodePort >= 30000, true)
}

func storageFixed(w *world) {
	classes := api.StorageV1().StorageClasses()
	w.manifest("storageclass", `{"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"`+w.ns+`","annotations":{"storageclass.kubernetes.io/is-default-class":"true"}},"provisioner":"e2e.example.com/none","volumeBindingMode":"WaitForFirstConsumer"}`)
	_, err := classes.Patch(ctx, w.ns, types.MergePatchType, []byte(`{"provisioner":"other"}`), metav1.PatchOptions{})
	refused(err, apierrors.IsInvalid)
	same("policy", *must(classes.Get(ctx, w.ns, metav1.GetOptions{})).ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
	claims := api.CoreV1().PersistentVolumeClaims(w.ns)
	build := func(name, class string) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: gigabyte}}}
		if class != "default" {
			c.Spec.StorageClassName = &class
		}
		return c
	}
	c := must(claims.Create(ctx, build("c", "default"), metav1.CreateOptions{}))
	same("class", *c.Spec.StorageClassName, w.ns)
	same("mode", *c.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
	same("finalizer", strings.Join(c.Finalizers, ""), "kubernetes.io/pvc-protection")
	same("no class", *must(claims.Create(ctx, build("none", ""), metav1.CreateOptions{})).Spec.StorageClassName, "")
	for _, patch := range []string{`{"spec":{"accessModes":["ReadWriteMany"]}}`, `{"spec":{"storageClassName":"other"}}`, `{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`} {
		_, err := claims.Patch(ctx, "c", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		refused(err, func(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) })
	}
	w.until(30*time.Second, "it waits for a pod", func() error {
		list := must(api.CoreV1().Events(w.ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=c,reason=WaitForFirstConsumer"}))
		return differs("told", len(list.Items) > 0, true)
	})
}

func podSecurity(w *world) {
	label := func(mode, level string) {
		must(api.CoreV1().Namespaces().Patch(ctx, w.ns, types.MergePatchType, []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/`+mode+`":"`+level+`"}}}`), metav1.PatchOptions{}))
	}
	label("enforce", "restricted")
	try := func(edits ...edit) error {
		_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("p", "true", edits...), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	w.until(20*time.Second, "the level holds", func() error { return differs("refused", apierrors.IsForbidden(try()), true) })
	contains(try().Error(), `violates PodSecurity "restricted:latest"`)
	done(try(func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: ptr(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	}))
	label("enforce", "baseline")
	w.until(20*time.Second, "the lower level holds", func() error { return try() })
	refused(try(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), apierrors.IsForbidden)
	label("enforce", "privileged")
	label("warn", "baseline")
	w.until(20*time.Second, "it warns", func() error {
		told, err := raw("POST", "/api/v1/namespaces/"+w.ns+"/pods", "application/json", "Strict", `{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"p-"},"spec":{"nodeSelector":{"none":"such"},"hostPID":true,"containers":[{"name":"c","image":"i"}]}}`)
		if err != nil {
			return err
		}
		return differs("warned", strings.Contains(told, "host namespaces (hostPID=true)"), true)
	})
}

func limitRangeKinds(w *world) {
	w.apply(`{"apiVersion":"v1","kind":"LimitRange","metadata":{"name":"l"},"spec":{"limits":[{"type":"PersistentVolumeClaim","min":{"storage":"1Gi"},"max":{"storage":"2Gi"}},{"type":"Pod","max":{"cpu":"1"}},{"type":"Container","maxLimitRequestRatio":{"cpu":"2"}}]}}`)
	claim := func(size string) error {
		return api.Discovery().RESTClient().Post().AbsPath("/api/v1/namespaces/"+w.ns+"/persistentvolumeclaims").SetHeader("Content-Type", "application/json").
			Body([]byte(`{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"generateName":"c-"},"spec":{"storageClassName":"none-such","accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"` + size + `"}}}}`)).Do(ctx).Error()
	}
	w.until(20*time.Second, "the range holds", func() error { return differs("refused", apierrors.IsForbidden(claim("3Gi")), true) })
	contains(claim("3Gi").Error(), "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi")
	contains(claim("1Mi").Error(), "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi")
	done(claim("1Gi"))
	_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("wide", "true", first(func(c *corev1.Container) {
		c.Resources = corev1.ResourceRequirements{Requests: resources("100m", "1Mi"), Limits: resources("300m", "1Mi")}
	})), metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	contains(err.Error(), "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000")
	_, err = api.CoreV1().Pods(w.ns).Create(ctx, pod("large", "true", wants(1500)), metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	contains(err.Error(), "maximum cpu usage per Pod is 1")
}
