//go:build e2e

package conformance

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

var machineryWatch = []behaviour{
	{name: "Watchers should observe add, update, and delete watch notifications on configmaps", test: watchesAll},
	{name: "Watchers should be able to restart watching from the last resource version observed by the previous watch", test: watchResumes},
	{name: "Watchers should observe an object deletion if it stops meeting the requirements of the selector", test: watchSelects},
	{name: "Watchers should receive events on concurrent watches in same order", test: watchesAgree},
	{name: "Servers with support for API chunking should return chunks of results for list calls", test: chunks},
	{name: "Servers with support for API chunking should support continue listing from the last key if the original version has been compacted away", test: chunksCompacted, slow: true},
	{name: "Servers with support for Table transformation should return a 406 for a backend which does not implement metadata", test: noTable},
	{name: "ServerSideApply should create, keep owners, refuse conflicts, and remove what is given up", test: applies},
}

// follow watches the row's config maps of a label from a version on.
func (w *world) follow(label, version string) watch.Interface {
	return must(api.CoreV1().ConfigMaps(w.ns).Watch(ctx, metav1.ListOptions{LabelSelector: "watch=" + label, ResourceVersion: version}))
}

// next is the event that comes next.
func next(follow watch.Interface) (watch.EventType, *corev1.ConfigMap) {
	select {
	case e := <-follow.ResultChan():
		m, ok := e.Object.(*corev1.ConfigMap)
		if !ok {
			fatal("the watch gave %s %v", e.Type, e.Object)
		}
		return e.Type, m
	case <-time.After(20 * time.Second):
		fatal("no event")
	}
	return "", nil
}

// follows ends the row unless the next event is of that kind and object, with that much written in it.
func follows(follow watch.Interface, kind watch.EventType, name, mutation string) *corev1.ConfigMap {
	got, m := next(follow)
	same("event", fmt.Sprint(got, " ", m.Name, " ", m.Data["mutation"]), fmt.Sprint(kind, " ", name, " ", mutation))
	return m
}

func (w *world) marked(name, label string) *corev1.ConfigMap {
	return must(api.CoreV1().ConfigMaps(w.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"watch": label}}}, metav1.CreateOptions{}))
}

func (w *world) mutate(name, patch string) *corev1.ConfigMap {
	return must(api.CoreV1().ConfigMaps(w.ns).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}))
}

func (w *world) unmap(name string) {
	done(api.CoreV1().ConfigMaps(w.ns).Delete(ctx, name, metav1.DeleteOptions{}))
}

func watchesAll(w *world) {
	a, both := w.follow("a", ""), must(api.CoreV1().ConfigMaps(w.ns).Watch(ctx, metav1.ListOptions{LabelSelector: "watch in (a,b)"}))
	defer a.Stop()
	defer both.Stop()
	each := func(kind watch.EventType, name, mutation string, whom ...watch.Interface) {
		for _, f := range whom {
			follows(f, kind, name, mutation)
		}
	}
	w.marked("a", "a")
	each(watch.Added, "a", "", a, both)
	for _, n := range []string{"1", "2"} {
		w.mutate("a", `{"data":{"mutation":"`+n+`"}}`)
		each(watch.Modified, "a", n, a, both)
	}
	w.unmap("a")
	each(watch.Deleted, "a", "2", a, both)
	w.marked("b", "b")
	each(watch.Added, "b", "", both)
	w.unmap("b")
	each(watch.Deleted, "b", "", both)
	select {
	case e := <-a.ResultChan():
		fatal("a watch of a was told of b: %v", e)
	case <-time.After(2 * time.Second):
	}
}

func watchResumes(w *world) {
	first := w.follow("resumed", "")
	w.marked("m", "resumed")
	w.mutate("m", `{"data":{"mutation":"1"}}`)
	follows(first, watch.Added, "m", "")
	seen := follows(first, watch.Modified, "m", "1")
	first.Stop()
	middle := w.mutate("m", `{"data":{"mutation":"2"}}`)
	w.unmap("m")
	second := w.follow("resumed", seen.ResourceVersion)
	defer second.Stop()
	follows(second, watch.Modified, "m", "2")
	follows(second, watch.Deleted, "m", "2")
	// From any version between, only what came after it is told.
	third := w.follow("resumed", middle.ResourceVersion)
	defer third.Stop()
	follows(third, watch.Deleted, "m", "2")
}

func watchSelects(w *world) {
	f := w.follow("in", "")
	defer f.Stop()
	w.marked("m", "in")
	follows(f, watch.Added, "m", "")
	w.mutate("m", `{"data":{"mutation":"1"}}`)
	follows(f, watch.Modified, "m", "1")
	w.mutate("m", `{"metadata":{"labels":{"watch":"out"}}}`)
	follows(f, watch.Deleted, "m", "1")
	w.mutate("m", `{"data":{"mutation":"2"}}`)
	w.mutate("m", `{"metadata":{"labels":{"watch":"in"}}}`)
	follows(f, watch.Added, "m", "2")
	w.mutate("m", `{"data":{"mutation":"3"}}`)
	follows(f, watch.Modified, "m", "3")
	w.unmap("m")
	follows(f, watch.Deleted, "m", "3")
}

// watchesAgree starts a watch at every event of the first one, while objects come, change and go: all tell the same from there on.
func watchesAgree(w *world) {
	const events = 100
	start := must(api.CoreV1().ConfigMaps(w.ns).List(ctx, metav1.ListOptions{})).ResourceVersion
	go func() {
		for i := range events {
			m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m%d", i/3), Labels: map[string]string{"watch": "order"}}}
			switch i % 3 {
			case 0:
				_, _ = api.CoreV1().ConfigMaps(w.ns).Create(ctx, m, metav1.CreateOptions{})
			case 1:
				_, _ = api.CoreV1().ConfigMaps(w.ns).Patch(ctx, m.Name, types.MergePatchType, []byte(`{"data":{"mutation":"1"}}`), metav1.PatchOptions{})
			default:
				_ = api.CoreV1().ConfigMaps(w.ns).Delete(ctx, m.Name, metav1.DeleteOptions{})
			}
		}
	}()
	follow := []watch.Interface{w.follow("order", start)}
	for range events {
		_, m := next(follow[0])
		for _, f := range follow[1:] {
			_, other := next(f)
			same("version", other.ResourceVersion, m.ResourceVersion)
		}
		if len(follow) < 20 {
			follow = append(follow, w.follow("order", m.ResourceVersion))
		}
	}
	for _, f := range follow {
		f.Stop()
	}
}

// templates makes n pod templates, in parallel.
func (w *world) templates(n int) {
	failed := make(chan error, n)
	for i := range n {
		go func() {
			_, err := api.CoreV1().PodTemplates(w.ns).Create(ctx, &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("template-%04d", i)}, Template: template("t")}, metav1.CreateOptions{})
			failed <- err
		}()
	}
	for range n {
		done(<-failed)
	}
}

func chunks(w *world) {
	const all = 100
	w.templates(all)
	var token, version string
	found := 0
	for {
		page := must(api.CoreV1().PodTemplates(w.ns).List(ctx, metav1.ListOptions{Limit: 17, Continue: token}))
		if version == "" {
			version = page.ResourceVersion
		}
		same("version", page.ResourceVersion, version)
		for _, t := range page.Items {
			same("name", t.Name, fmt.Sprintf("template-%04d", found))
			found++
		}
		token = page.Continue
		if token == "" {
			same("remaining", page.RemainingItemCount == nil, true)
			break
		}
		same("a page", len(page.Items), 17)
		same("remaining", *page.RemainingItemCount, int64(all-found))
	}
	same("found", found, all)
	same("in one", len(must(api.CoreV1().PodTemplates(w.ns).List(ctx, metav1.ListOptions{Limit: all + 1})).Items), all)
}

func chunksCompacted(w *world) {
	w.templates(40)
	page := must(api.CoreV1().PodTemplates(w.ns).List(ctx, metav1.ListOptions{Limit: 10}))
	var fresh string
	w.until(15*time.Minute, "the version is compacted away", func() error {
		_, err := api.CoreV1().PodTemplates(w.ns).List(ctx, metav1.ListOptions{Limit: 10, Continue: page.Continue})
		if err == nil {
			time.Sleep(5 * time.Second)
			return errGone
		}
		refused(err, apierrors.IsResourceExpired)
		var status apierrors.APIStatus
		same("a status", errors.As(err, &status), true)
		fresh = status.Status().ListMeta.Continue
		return differs("fresh token", fresh != "", true)
	})
	rest := must(api.CoreV1().PodTemplates(w.ns).List(ctx, metav1.ListOptions{Continue: fresh}))
	same("the rest", len(rest.Items), 30)
	same("it begins with", rest.Items[0].Name, "template-0010")
}

func noTable(*world) {
	r := api.Discovery().RESTClient().Post().AbsPath("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").SetHeader("Content-Type", "application/json").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Body([]byte(`{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`)).Do(ctx)
	code := 0
	r.StatusCode(&code)
	same("code", code, http.StatusNotAcceptable)
	contains(string(must(api.Discovery().RESTClient().Get().AbsPath("/api/v1/nodes").SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(ctx))), `"kind":"Table"`)
}

func applies(w *world) {
	apply := func(manager, data string, force bool) (*corev1.ConfigMap, error) {
		return api.CoreV1().ConfigMaps(w.ns).Patch(ctx, "m", types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"data":`+data+`}`), metav1.PatchOptions{FieldManager: manager, Force: &force})
	}
	m := must(apply("one", `{"a":"1","b":"1"}`, false))
	same("managers", len(m.ManagedFields), 1)
	same("again", must(apply("one", `{"a":"1","b":"1"}`, false)).ResourceVersion, m.ResourceVersion)
	_, err := apply("two", `{"a":"2"}`, false)
	refused(err, apierrors.IsConflict)
	contains(err.Error(), `conflict with "one"`)
	contains(err.Error(), ".data.a")
	m = must(apply("two", `{"a":"2"}`, true))
	same("a and b", m.Data["a"]+m.Data["b"], "21")
	// What the first gives up goes if it is its alone, and stays if somebody else owns it by now.
	m = must(apply("one", `{}`, false))
	same("data", fmt.Sprint(m.Data), "map[a:2]")
	m = must(api.CoreV1().ConfigMaps(w.ns).Patch(ctx, "m", types.MergePatchType, []byte(`{"data":{"c":"3"}}`), metav1.PatchOptions{FieldManager: "three"}))
	owners := map[string]metav1.ManagedFieldsOperationType{}
	for _, f := range m.ManagedFields {
		owners[f.Manager] = f.Operation
	}
	same("owners", string(owners["two"]+" "+owners["three"]), "Apply Update")
}
