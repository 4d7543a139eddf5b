//go:build e2e

package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

var machineryCustom = []behaviour{
	{name: "CustomResourceDefinition resources Simple CustomResourceDefinition listing custom resource definition objects works", test: customListed},
	{name: "CustomResourceDefinition resources Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works", test: customStatus},
	{name: "CustomResourceDefinition resources custom resource defaulting for requests and from storage works", test: customDefaults},
	{name: "CustomResourceDefinition Watch watch on custom resource definition objects", test: customWatched},
	{name: "CustomResourcePublishOpenAPI works for CRD with validation schema, without one, and preserving unknown fields", test: customPublished},
	{name: "CustomResourcePublishOpenAPI works for multiple CRDs of different groups, versions and kinds", test: customPublishedTogether},
	{name: "CustomResourcePublishOpenAPI removes definition from spec when one version gets changed to not be served", test: customUnserved},
	{name: "FieldValidation should create/apply a CR with unknown and duplicate fields as the schema says", test: customFields},
	{name: "FieldValidation should detect unknown and duplicate fields of a typed object", test: typedFields},
	{name: "FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR", test: customMetadata},
}

var crds = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// object is what stands in JSON.
type object = map[string]any

// definition is a custom resource to be: what its versions' schemas are, and what else its spec says.
type definition struct {
	group, kind string
	versions    []string
	schema      string // of all versions, "" = anything goes
	spec        object
}

func (d definition) plural() string { return strings.ToLower(d.kind) + "s" }

func (d definition) version(name string, storage bool) object {
	v := object{"name": name, "served": true, "storage": storage}
	root := object{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	if d.schema != "" {
		root = object{}
		done(json.Unmarshal([]byte(d.schema), &root))
	}
	v["schema"] = object{"openAPIV3Schema": root}
	return v
}

// define makes a custom resource and answers its client, once it is served.
func (w *world) define(d definition) dynamic.ResourceInterface {
	w.Helper()
	var versions []any
	for i, v := range d.versions {
		versions = append(versions, d.version(v, i == 0))
	}
	spec := object{"group": d.group, "scope": "Namespaced", "versions": versions, "names": object{"plural": d.plural(), "singular": strings.ToLower(d.kind), "kind": d.kind, "listKind": d.kind + "List"}}
	for k, v := range d.spec {
		spec[k] = v
	}
	name := d.plural() + "." + d.group
	crd := &unstructured.Unstructured{Object: object{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": object{"name": name, "labels": object{"row": w.ns}}, "spec": spec}}
	must(dyn.Resource(crds).Create(ctx, crd, metav1.CreateOptions{}))
	w.Cleanup(func() { _ = dyn.Resource(crds).Delete(ctx, name, metav1.DeleteOptions{}) })
	client := dyn.Resource(schema.GroupVersionResource{Group: d.group, Version: d.versions[0], Resource: d.plural()}).Namespace(w.ns)
	w.until(30*time.Second, d.kind+" is served", func() error {
		_, err := client.List(ctx, metav1.ListOptions{})
		return err
	})
	return client
}

// group is an API group of the row's own.
func (w *world) group() string { return strings.ReplaceAll(w.ns, "-", "") + ".example.com" }

func (d definition) object(name string, fields object) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: object{"apiVersion": d.group + "/" + d.versions[0], "kind": d.kind, "metadata": object{"name": name}}}
	for k, v := range fields {
		u.Object[k] = v
	}
	return u
}

func customListed(w *world) {
	for i := range 10 {
		w.define(definition{group: w.group(), kind: fmt.Sprintf("Listed%d", i), versions: []string{"v1"}})
	}
	own := metav1.ListOptions{LabelSelector: "row=" + w.ns}
	same("definitions", len(must(dyn.Resource(crds).List(ctx, own)).Items), 10)
	done(dyn.Resource(crds).DeleteCollection(ctx, metav1.DeleteOptions{}, own))
	w.until(30*time.Second, "the collection is gone", func() error {
		return differs("definitions", len(must(dyn.Resource(crds).List(ctx, own)).Items), 0)
	})
	for _, path := range []string{"/apis", "/apis/apiextensions.k8s.io", "/apis/apiextensions.k8s.io/v1"} {
		contains(string(must(api.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(ctx))), map[bool]string{true: "customresourcedefinitions", false: "apiextensions.k8s.io/v1"}[strings.HasSuffix(path, "v1")])
	}
}

func customStatus(w *world) {
	d := definition{group: w.group(), kind: "Told", versions: []string{"v1"}}
	w.define(d)
	name := "tolds." + d.group
	u := must(dyn.Resource(crds).Get(ctx, name, metav1.GetOptions{}, "status"))
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	done(unstructured.SetNestedSlice(u.Object, append(conditions, object{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set"}), "status", "conditions"))
	updated := must(dyn.Resource(crds).UpdateStatus(ctx, u, metav1.UpdateOptions{}))
	contains(at2(updated.Object, "status"), "StatusUpdate")
	patched := must(dyn.Resource(crds).Patch(ctx, name, types.JSONPatchType, []byte(`[{"op":"add","path":"/status/conditions/-","value":{"type":"StatusPatched","status":"True","reason":"E2E","message":"set"}}]`), metav1.PatchOptions{}, "status"))
	contains(at2(patched.Object, "status"), "StatusPatched")
	same("generation", patched.GetGeneration(), u.GetGeneration())
}

func customDefaults(w *world) {
	d := definition{group: w.group(), kind: "Filled", versions: []string{"v1"}, schema: `{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"},"c":{"type":"string"}}}`}
	client := w.define(d)
	name := "filleds." + d.group
	must(client.Create(ctx, d.object("old", nil), metav1.CreateOptions{}))
	path := "/spec/versions/0/schema/openAPIV3Schema/properties/"
	must(dyn.Resource(crds).Patch(ctx, name, types.JSONPatchType, []byte(`[{"op":"add","path":"`+path+`a/default","value":"A"},{"op":"add","path":"`+path+`b/default","value":"B"}]`), metav1.PatchOptions{}))
	w.until(30*time.Second, "what is new is filled", func() error {
		u := must(client.Create(ctx, d.object("", object{"metadata": object{"generateName": "new-"}, "b": "mine"}), metav1.CreateOptions{}))
		return differs("a and b", fmt.Sprintf("%v %v %v", u.Object["a"], u.Object["b"], u.Object["c"]), "A mine <nil>")
	})
	w.until(30*time.Second, "what was stored is filled", func() error {
		u := must(client.Get(ctx, "old", metav1.GetOptions{}))
		return differs("a and b", fmt.Sprintf("%v %v %v", u.Object["a"], u.Object["b"], u.Object["c"]), "A B <nil>")
	})
	must(dyn.Resource(crds).Patch(ctx, name, types.JSONPatchType, []byte(`[{"op":"add","path":"`+path+`c/default","value":"C"},{"op":"remove","path":"`+path+`a/default"}]`), metav1.PatchOptions{}))
	w.until(30*time.Second, "defaults change", func() error {
		u := must(client.Get(ctx, "old", metav1.GetOptions{}))
		return differs("a, b and c", fmt.Sprintf("%v %v %v", u.Object["a"], u.Object["b"], u.Object["c"]), "<nil> B C")
	})
}

func customWatched(w *world) {
	d := definition{group: w.group(), kind: "Watched", versions: []string{"v1"}}
	client := w.define(d)
	for _, name := range []string{"one", "two"} {
		follow := must(client.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name}))
		is := func(u *unstructured.Unstructured) bool { return u.GetName() == name }
		must(client.Create(ctx, d.object(name, nil), metav1.CreateOptions{}))
		sees(follow, watch.Added, is)
		must(client.Patch(ctx, name, types.MergePatchType, []byte(`{"num":2}`), metav1.PatchOptions{}))
		sees(follow, watch.Modified, is)
		done(client.Delete(ctx, name, metav1.DeleteOptions{}))
		sees(follow, watch.Deleted, is)
		follow.Stop()
	}
}

// fed runs kubectl with a manifest on its standard input.
func (w *world) fed(manifest string, args ...string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	cmd := w.command(limited, args...)
	cmd.Stdin = strings.NewReader(manifest)
	text, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %v: %w: %s", args, err, text)
	}
	return string(text), err
}

// published waits until the OpenAPI document of version 2 holds a definition that the condition is content with.
func (w *world) published(group, version, kind string, holds func(d object) error) {
	w.Helper()
	parts := strings.Split(group, ".")
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	name := strings.Join(append(parts, version, kind), ".")
	w.until(30*time.Second, name+" is published", func() error {
		var doc struct {
			Definitions map[string]object `json:"definitions"`
		}
		done(json.Unmarshal(must(api.Discovery().RESTClient().Get().AbsPath("/openapi/v2").SetHeader("Accept", "application/json").DoRaw(ctx)), &doc))
		return holds(doc.Definitions[name])
	})
}

// there is content with any definition of the kind.
func there(kind string) func(d object) error {
	return func(d object) error { return differs("kind", at2(d, "x-kubernetes-group-version-kind.0.kind"), kind) }
}

func missing(d object) error { return differs("published", d != nil, false) }

const called = `{"type":"object","description":"A thing to try","properties":{"spec":{"type":"object","description":"What it should be","required":["name"],"properties":{"name":{"type":"string","description":"What it is called."},"age":{"type":"integer"}}}}}`

func customPublished(w *world) {
	d := definition{group: w.group(), kind: "Foo", versions: []string{"v1"}, schema: called}
	w.define(d)
	w.published(d.group, "v1", "Foo", func(d object) error {
		return differs("description", at2(d, "properties.spec.properties.name.description"), "What it is called.")
	})
	contains(w.kubectl("explain", "foos.spec"), "What it should be")
	contains(w.kubectl("explain", "foos.spec.name"), "What it is called.")
	manifest := func(spec string) string {
		return fmt.Sprintf(`{"apiVersion":"%s/v1","kind":"Foo","metadata":{"name":"foo","namespace":%q},"spec":%s}`, d.group, w.ns, spec)
	}
	must(w.fed(manifest(`{"name":"bar","age":3}`), "apply", "-f", "-"))
	told, err := w.fed(manifest(`{"name":"bar","nickname":"x"}`), "apply", "-f", "-")
	same("an unknown field is refused", err != nil, true)
	contains(told, `unknown field "spec.nickname"`)
	told, err = w.fed(manifest(`{"age":3}`), "replace", "-f", "-")
	same("a missing field is refused", err != nil, true)
	contains(told, "spec.name: Required value")
	for kind, schema := range map[string]string{"Bare": `{"type":"object","x-kubernetes-preserve-unknown-fields":true}`, "Inside": `{"type":"object","properties":{"spec":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}`} {
		d := definition{group: w.group(), kind: kind, versions: []string{"v1"}, schema: schema}
		w.define(d)
		w.published(d.group, "v1", kind, there(kind))
		must(w.fed(fmt.Sprintf(`{"apiVersion":"%s/v1","kind":%q,"metadata":{"name":"free","namespace":%q},"spec":{"a":{"b":[1]}}}`, d.group, kind, w.ns), "apply", "-f", "-"))
	}
}

func customPublishedTogether(w *world) {
	other := "other" + w.group()
	w.define(definition{group: w.group(), kind: "Left", versions: []string{"v1", "v2"}, schema: called})
	w.define(definition{group: w.group(), kind: "Right", versions: []string{"v1"}, schema: called})
	w.define(definition{group: other, kind: "Left", versions: []string{"v3"}, schema: called})
	w.published(w.group(), "v1", "Left", there("Left"))
	w.published(w.group(), "v2", "Left", there("Left"))
	w.published(w.group(), "v1", "Right", there("Right"))
	w.published(other, "v3", "Left", there("Left"))
	// A version is renamed: its name goes, the new one comes, the other stays as it is.
	must(dyn.Resource(crds).Patch(ctx, "lefts."+w.group(), types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/versions/1/name","value":"v4"}]`), metav1.PatchOptions{}))
	w.published(w.group(), "v4", "Left", there("Left"))
	w.published(w.group(), "v2", "Left", missing)
	w.published(w.group(), "v1", "Left", there("Left"))
}

func customUnserved(w *world) {
	w.define(definition{group: w.group(), kind: "Half", versions: []string{"v1", "v2"}, schema: called})
	w.published(w.group(), "v2", "Half", there("Half"))
	must(dyn.Resource(crds).Patch(ctx, "halfs."+w.group(), types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/versions/1/served","value":false}]`), metav1.PatchOptions{}))
	w.published(w.group(), "v2", "Half", missing)
	w.published(w.group(), "v1", "Half", there("Half"))
}

// raw sends a body as it is, and answers what came back with its warnings.
func raw(verb, path, kind, validation string, body string) (string, error) {
	r := api.Discovery().RESTClient().Verb(verb).AbsPath(path).Param("fieldValidation", validation).SetHeader("Content-Type", kind).Body([]byte(body))
	if kind == string(types.ApplyPatchType) {
		r = r.Param("fieldManager", "row")
	}
	answer := r.Do(ctx)
	var told []string
	for _, warning := range answer.Warnings() {
		told = append(told, warning.Text)
	}
	return strings.Join(told, "\n"), answer.Error()
}

func customFields(w *world) {
	strict := definition{group: w.group(), kind: "Strict", versions: []string{"v1"}, schema: `{"type":"object","properties":{"spec":{"type":"object","properties":{"foo":{"type":"string"}}}}}`}
	free := definition{group: w.group(), kind: "Free", versions: []string{"v1"}}
	w.define(strict)
	w.define(free)
	send := func(d definition, name, spec string) (string, error) {
		path := fmt.Sprintf("/apis/%s/v1/namespaces/%s/%s/%s", d.group, w.ns, d.plural(), name)
		return raw("PATCH", path, string(types.ApplyPatchType), "Strict", fmt.Sprintf(`{"apiVersion":"%s/v1","kind":%q,"metadata":{"name":%q},"spec":%s}`, d.group, d.kind, name, spec))
	}
	_, err := send(strict, "known", `{"foo":"a"}`)
	done(err)
	_, err = send(strict, "unknown", `{"foo":"a","bar":1}`)
	refused(err, func(err error) bool { return strings.Contains(err.Error(), ".spec.bar: field not declared in schema") })
	_, err = send(free, "unknown", `{"foo":"a","bar":1}`)
	done(err)
	create := func(d definition, validation, body string) (string, error) {
		return raw("POST", fmt.Sprintf("/apis/%s/v1/namespaces/%s/%s", d.group, w.ns, d.plural()), "application/json", validation, fmt.Sprintf(`{"apiVersion":"%s/v1","kind":%q,"metadata":{"generateName":"x-"},%s}`, d.group, d.kind, body))
	}
	_, err = create(free, "Strict", `"spec":{"foo":"a","foo":"b"}`)
	refused(err, apierrors.IsBadRequest)
	contains(err.Error(), `duplicate field "spec.foo"`)
	_, err = create(strict, "Strict", `"spec":{"bar":1}`)
	refused(err, apierrors.IsBadRequest)
	contains(err.Error(), `unknown field "spec.bar"`)
	told, err := create(strict, "Warn", `"spec":{"bar":1,"foo":"a","foo":"b"}`)
	done(err)
	contains(told, `unknown field "spec.bar"`)
	contains(told, `duplicate field "spec.foo"`)
	told, err = create(strict, "Ignore", `"spec":{"bar":1}`)
	done(err)
	same("warnings", told, "")
}

func typedFields(w *world) {
	body := func(name, spec string) string {
		return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":%q,"unknownMeta":1},"spec":{%s"selector":{"matchLabels":{"a":"b"}},"replicas":0,"replicas":0,"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, name, spec)
	}
	path := "/apis/apps/v1/namespaces/" + w.ns + "/deployments"
	_, err := raw("POST", path, "application/json", "Strict", body("d", `"unknown1":1,`))
	refused(err, apierrors.IsBadRequest)
	for _, want := range []string{`unknown field "spec.unknown1"`, `duplicate field "spec.replicas"`, `unknown field "metadata.unknownMeta"`} {
		contains(err.Error(), want)
	}
	told, err := raw("POST", path, "application/json", "Warn", body("d", `"unknown1":1,`))
	done(err)
	contains(told, `unknown field "spec.unknown1"`)
	contains(told, `duplicate field "spec.replicas"`)
}

func customMetadata(w *world) {
	d := definition{group: w.group(), kind: "Holder", versions: []string{"v1"}, schema: `{"type":"object","properties":{"spec":{"type":"object","properties":{"template":{"type":"object","x-kubernetes-embedded-resource":true,"properties":{"metadata":{"type":"object"},"spec":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}}}`}
	w.define(d)
	path := fmt.Sprintf("/apis/%s/v1/namespaces/%s/%s", d.group, w.ns, d.plural())
	_, err := raw("POST", path, "application/json", "Strict", fmt.Sprintf(`{"apiVersion":"%s/v1","kind":"Holder","metadata":{"name":"h","unknownMeta":"x"},"spec":{"template":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"in","unknownSubMeta":"y"}}}}`, d.group))
	refused(err, apierrors.IsBadRequest)
	contains(err.Error(), `unknown field "metadata.unknownMeta"`)
	contains(err.Error(), `unknown field "spec.template.metadata.unknownSubMeta"`)
}
