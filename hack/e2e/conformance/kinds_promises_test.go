//go:build e2e

package conformance

import (
	"bytes"
	"encoding/json"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"
)

// promises sees what the API promises of the objects of any kind. Three objects match the selector, "-b" is one of them.
func (w *world) promises(client dynamic.ResourceInterface, selector metav1.ListOptions, name string, build func(suffix string) *unstructured.Unstructured) {
	w.Helper()
	all := []string{metav1.DryRunAll}
	extra := build("-d")
	must(client.Create(ctx, extra, metav1.CreateOptions{DryRun: all}))
	_, err := client.Get(ctx, extra.GetName(), metav1.GetOptions{})
	refused(err, apierrors.IsNotFound)
	_, err = client.Patch(ctx, extra.GetName(), types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
	refused(err, apierrors.IsNotFound)
	refused(client.Delete(ctx, extra.GetName(), metav1.DeleteOptions{}), apierrors.IsNotFound)

	first := must(client.Patch(ctx, name, types.JSONPatchType, []byte(`[{"op":"add","path":"/metadata/labels/json","value":"patched"}]`), metav1.PatchOptions{}))
	same("label", first.GetLabels()["json"], "patched")
	_, err = client.Patch(ctx, name, types.JSONPatchType, []byte(`[{"op":"test","path":"/metadata/labels/json","value":"other"}]`), metav1.PatchOptions{})
	refused(err, apierrors.IsInvalid)
	must(client.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"labels":{"json":null}}}`), metav1.PatchOptions{DryRun: all}))
	same("label after a dry run", must(client.Get(ctx, name, metav1.GetOptions{})).GetLabels()["json"], "patched")
	stale := first.DeepCopy()
	must(client.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"newer":"true"}}}`), metav1.PatchOptions{}))
	stale.SetAnnotations(map[string]string{"stale": "true"})
	_, err = client.Update(ctx, stale, metav1.UpdateOptions{})
	refused(err, apierrors.IsConflict)
	other := types.UID("00000000-0000-0000-0000-000000000000")
	_, err = client.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"uid":"`+string(other)+`"}}`), metav1.PatchOptions{})
	refused(err, apierrors.IsConflict)
	refused(client.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}}), apierrors.IsConflict)
	done(client.Delete(ctx, name, metav1.DeleteOptions{DryRun: all}))

	applied := &unstructured.Unstructured{Object: object{"apiVersion": first.GetAPIVersion(), "kind": first.GetKind(), "metadata": object{"name": name, "labels": object{"applied": "one"}}}}
	must(client.Apply(ctx, name, applied, metav1.ApplyOptions{FieldManager: "one"}))
	applied.SetLabels(map[string]string{"applied": "two"})
	_, err = client.Apply(ctx, name, applied, metav1.ApplyOptions{FieldManager: "two"})
	refused(err, apierrors.IsConflict)
	same("label", must(client.Apply(ctx, name, applied, metav1.ApplyOptions{FieldManager: "two", Force: true})).GetLabels()["applied"], "two")
	applied.SetLabels(nil)
	_, kept := must(client.Apply(ctx, name, applied, metav1.ApplyOptions{FieldManager: "two"})).GetLabels()["applied"]
	same("a label given up is kept", kept, false)

	one := selector
	one.FieldSelector = "metadata.name=" + name
	same("of that name", len(must(client.List(ctx, one)).Items), 1)
	one.FieldSelector = "metadata.name!=" + name
	same("of other names", len(must(client.List(ctx, one)).Items), 2)
	page, pages := selector, 0
	for page.Limit = 1; pages == 0 || page.Continue != ""; pages++ {
		list := must(client.List(ctx, page))
		same("on a page", len(list.Items) <= 1, true)
		page.Continue = list.GetContinue()
	}
	same("pages", pages >= 3, true)
	page.Limit = 0
	page.ResourceVersion, page.ResourceVersionMatch = "0", metav1.ResourceVersionMatchNotOlderThan
	must(client.List(ctx, page))
	w.initial(client, selector)
	w.held(client, name)
}

// initial follows from the state of the moment: what is there, a bookmark that says so, nothing else.
func (w *world) initial(client dynamic.ResourceInterface, selector metav1.ListOptions) {
	w.Helper()
	selector.SendInitialEvents, selector.AllowWatchBookmarks, selector.ResourceVersionMatch = ptr(true), true, metav1.ResourceVersionMatchNotOlderThan
	selector.TimeoutSeconds = ptr(int64(30))
	follow := must(client.Watch(ctx, selector))
	defer follow.Stop()
	seen := map[string]bool{}
	for e := range follow.ResultChan() {
		u, is := e.Object.(*unstructured.Unstructured)
		if !is {
			fatal("the watch gave %s %v", e.Type, e.Object)
		}
		if e.Type == watch.Bookmark && u.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
			same("initial events", len(seen), 3)
			return
		}
		seen[u.GetName()] = true
	}
	fatal("the watch ended before its initial events did")
}

// held deletes an object that a finalizer holds, and lets it go.
func (w *world) held(client dynamic.ResourceInterface, name string) {
	w.Helper()
	finalizers := func(change func(have []string) []string) {
		done(retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			u, err := client.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			u.SetFinalizers(change(u.GetFinalizers()))
			_, err = client.Update(ctx, u, metav1.UpdateOptions{})
			return err
		}))
	}
	const own = "e2e.example.com/hold"
	finalizers(func(have []string) []string { return append(have, own) })
	done(client.Delete(ctx, name, metav1.DeleteOptions{}))
	same("held", must(client.Get(ctx, name, metav1.GetOptions{})).GetDeletionTimestamp() != nil, true)
	_, err := client.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"finalizers":["e2e.example.com/another","`+own+`"]}}`), metav1.PatchOptions{})
	refused(err, func(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) })
	finalizers(func(have []string) []string {
		var rest []string
		for _, f := range have {
			if f != own {
				rest = append(rest, f)
			}
		}
		return rest
	})
	w.until(startLimit, name+" is let go", func() error {
		_, err := client.Get(ctx, name, metav1.GetOptions{})
		return absent(err)
	})
}

// encodings reads an object as a table, by its metadata alone, and in the encoding that daemons use.
func (w *world) encodings(gvr schema.GroupVersionResource, namespaced bool, name string, ours bool) {
	w.Helper()
	path := "/apis/" + gvr.Group + "/" + gvr.Version
	if gvr.Group == "" {
		path = "/api/" + gvr.Version
	}
	if namespaced {
		path += "/namespaces/" + w.ns
	}
	path += "/" + gvr.Resource + "/" + name
	get := func(accept string) []byte {
		return must(api.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", accept).DoRaw(ctx))
	}
	table := metav1.Table{}
	done(json.Unmarshal(get("application/json;as=Table;v=v1;g=meta.k8s.io"), &table))
	same("rows", len(table.Rows), 1)
	same("cells", len(table.Rows[0].Cells), len(table.ColumnDefinitions))
	partial := metav1.PartialObjectMetadata{}
	done(json.Unmarshal(get("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"), &partial))
	same("kind and name", partial.Kind+" "+partial.Name, "PartialObjectMetadata "+name)
	if ours {
		same("protobuf", bytes.HasPrefix(get("application/vnd.kubernetes.protobuf"), []byte("k8s\x00")), true)
	}
	same("yaml", strings.Contains(string(get("application/yaml")), "name: "+name), true)
}
