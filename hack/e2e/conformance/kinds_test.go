//go:build e2e

package conformance

import (
	"encoding/json"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"
)

// kind is an API resource whose objects are made from a manifest; $NAME in it stands for something unused, $NS for the namespace.
type kind struct {
	name, resource string // "storage.k8s.io/v1 csidrivers"
	manifest       string
	namespaced     bool
	status         string // a merge patch for the status subresource, if it has one
	statusPath     string // where in the answer the patch shows
	statusValue    string
	custom         bool // of a CustomResourceDefinition
}

// operations sees every verb of a kind at work, as the suite's "should support ... API operations" do.
func operations(k kind) func(w *world) {
	return func(w *world) {
		gv, plural, _ := strings.Cut(k.resource, " ")
		gvr := must(schema.ParseGroupVersion(gv)).WithResource(plural)
		discovered(gv, plural)
		var client dynamic.ResourceInterface = dyn.Resource(gvr)
		if k.namespaced {
			client = dyn.Resource(gvr).Namespace(w.ns)
		}
		selector := metav1.ListOptions{LabelSelector: "special-label=" + w.ns}
		build := func(suffix string) *unstructured.Unstructured {
			u := &unstructured.Unstructured{}
			done(json.Unmarshal([]byte(strings.NewReplacer("$NAME", w.ns+suffix, "$NS", w.ns).Replace(k.manifest)), &u.Object))
			u.SetAPIVersion(gv)
			u.SetKind(k.name)
			if u.GetName() == "" {
				u.SetName(w.ns + suffix)
			}
			u.SetLabels(map[string]string{"special-label": w.ns})
			return u
		}
		w.Cleanup(func() { _ = client.DeleteCollection(ctx, metav1.DeleteOptions{}, selector) })

		made := must(client.Create(ctx, build("-a"), metav1.CreateOptions{}))
		_, err := client.Create(ctx, build("-a"), metav1.CreateOptions{})
		refused(err, apierrors.IsAlreadyExists)
		must(client.Create(ctx, build("-b"), metav1.CreateOptions{}))
		must(client.Create(ctx, build("-c"), metav1.CreateOptions{}))
		got := must(client.Get(ctx, made.GetName(), metav1.GetOptions{}))
		same("uid", got.GetUID(), made.GetUID())
		list := must(client.List(ctx, selector))
		same("listed", len(list.Items), 3)
		if k.namespaced {
			same("listed in all namespaces", len(must(dyn.Resource(gvr).List(ctx, selector)).Items), 3)
		}
		follow := must(client.Watch(ctx, metav1.ListOptions{LabelSelector: selector.LabelSelector, ResourceVersion: list.GetResourceVersion()}))
		defer follow.Stop()

		patched := must(client.Patch(ctx, made.GetName(), types.MergePatchType, []byte(`{"metadata":{"annotations":{"patched":"true"}}}`), metav1.PatchOptions{}))
		same("patched", patched.GetAnnotations()["patched"], "true")
		done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
			now := must(client.Get(ctx, made.GetName(), metav1.GetOptions{}))
			notes := now.GetAnnotations()
			notes["updated"] = "true"
			now.SetAnnotations(notes)
			now, err := client.Update(ctx, now, metav1.UpdateOptions{})
			if err == nil {
				same("updated", now.GetAnnotations()["updated"], "true")
			}
			return err
		}))
		sees(follow, watch.Modified, func(u *unstructured.Unstructured) bool { return u.GetAnnotations()["patched"] == "true" })
		sees(follow, watch.Modified, func(u *unstructured.Unstructured) bool { return u.GetAnnotations()["updated"] == "true" })
		if k.status != "" {
			must(client.Get(ctx, made.GetName(), metav1.GetOptions{}, "status"))
			now := must(client.Patch(ctx, made.GetName(), types.MergePatchType, []byte(k.status), metav1.PatchOptions{}, "status"))
			same("patched status", at2(now.Object, k.statusPath), k.statusValue)
			done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
				now := must(client.Get(ctx, made.GetName(), metav1.GetOptions{}, "status"))
				notes := now.GetAnnotations()
				notes["status-updated"] = "true"
				now.SetAnnotations(notes)
				_, err := client.UpdateStatus(ctx, now, metav1.UpdateOptions{})
				return err
			}))
		}
		w.encodings(gvr, k.namespaced, made.GetName(), !k.custom)
		w.promises(client, selector, build("-b").GetName(), build)
		must(client.Create(ctx, build("-e"), metav1.CreateOptions{}))
		done(client.Delete(ctx, made.GetName(), metav1.DeleteOptions{}))
		w.until(30*time.Second, "deleted", func() error {
			_, err := client.Get(ctx, made.GetName(), metav1.GetOptions{})
			return absent(err)
		})
		sees(follow, watch.Deleted, func(u *unstructured.Unstructured) bool { return u.GetName() == made.GetName() })
		same("listed", len(must(client.List(ctx, selector)).Items), 2)
		done(client.DeleteCollection(ctx, metav1.DeleteOptions{}, selector))
		w.until(30*time.Second, "collection deleted", func() error {
			return differs("listed", len(must(client.List(ctx, selector)).Items), 0)
		})
	}
}

// sees ends the row unless a watch tells of an event before long.
func sees(follow watch.Interface, kind watch.EventType, wanted func(u *unstructured.Unstructured) bool) {
	for limit := time.After(20 * time.Second); ; {
		select {
		case e, ok := <-follow.ResultChan():
			if !ok {
				fatal("the watch ended before %s", kind)
			}
			if u, is := e.Object.(*unstructured.Unstructured); is && e.Type == kind && wanted(u) {
				return
			}
		case <-limit:
			fatal("no %s event", kind)
		}
	}
}

// at2 is a text at a dotted path; a number in it is an index.
func at2(object any, path string) string {
	for _, step := range strings.Split(path, ".") {
		switch o := object.(type) {
		case map[string]any:
			object = o[step]
		case []any:
			if len(o) == 0 {
				return ""
			}
			object = o[len(o)-1]
		}
	}
	text, ok := object.(string)
	if !ok {
		raw, _ := json.Marshal(object)
		return string(raw)
	}
	return text
}

// discovered ends the row unless the group, the version and the resource stand in the discovery documents.
func discovered(gv, plural string) {
	group, version, has := strings.Cut(gv, "/")
	if has {
		groups := must(api.Discovery().ServerGroups())
		found := false
		for _, g := range groups.Groups {
			found = found || g.Name == group
		}
		same("group "+group, found, true)
		one := must(api.Discovery().RESTClient().Get().AbsPath("/apis/" + group).DoRaw(ctx))
		contains(string(one), `"`+version+`"`)
	}
	list := must(api.Discovery().ServerResourcesForGroupVersion(gv))
	found := false
	for _, r := range list.APIResources {
		found = found || r.Name == plural
	}
	same("resource "+plural, found, true)
}
