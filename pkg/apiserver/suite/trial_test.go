package suite

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// trial takes one row's sample through every verb.
type trial struct {
	*row
	t    *testing.T
	s    *client
	name string
	path string // of the object
}

const (
	mergeType     = "application/merge-patch+json"
	jsonPatchType = "application/json-patch+json"
	strategicType = "application/strategic-merge-patch+json"
	applyType     = "application/apply-patch+yaml"
)

// do makes a request whose code has to be the one given, and answers the object.
func (x *trial) do(want int, method, path, body, media string) *unstructured.Unstructured {
	x.t.Helper()
	headers := map[string]string{}
	if media != "" {
		headers["Content-Type"] = media
	}
	code, _, b := x.s.Try(x.t, method, path, body, headers)
	if code != want {
		x.t.Fatalf("%s %s %.300s: %d, want %d: %.1000s", method, path, body, code, want, b)
	}
	o := &unstructured.Unstructured{}
	decode(x.t, b, &o.Object)
	return o
}

func (x *trial) json(o *unstructured.Unstructured) string {
	x.t.Helper()
	b, err := json.Marshal(o.Object)
	if err != nil {
		x.t.Fatal(err)
	}
	return string(b)
}

func (x *trial) run() {
	o := &unstructured.Unstructured{}
	decode(x.t, x.Body, &o.Object)
	labels := maps.Clone(o.GetLabels())
	if labels == nil {
		labels = map[string]string{}
	}
	labels["suite"] = "yes"
	o.SetLabels(labels)
	x.name = o.GetName()
	x.path = x.at + "/" + x.name
	told := x.follow()

	x.do(201, "POST", x.at+"?dryRun=All", x.json(o), "")
	x.do(404, "GET", x.path, "", "")
	made := x.do(201, "POST", x.at, x.json(o), "")
	if made.GetUID() == "" || made.GetResourceVersion() == "" || made.GetCreationTimestamp() == (metav1.Time{}) || made.GetKind() != x.Kind || made.GetAPIVersion() != x.gv {
		x.t.Errorf("made was %s", x.json(made))
	}
	if m := made.GetManagedFields(); len(m) != 1 || m[0].Operation != metav1.ManagedFieldsOperationUpdate || m[0].APIVersion != x.gv || m[0].FieldsV1 == nil {
		x.t.Errorf("its fields are managed as %v", m)
	}
	x.do(409, "POST", x.at, x.json(o), "")
	x.settle()
	x.forms()
	x.lists()
	x.updates()
	x.patches()
	x.applies()
	x.parts()
	x.pages(o)
	x.ends()
	x.gone(o)
	x.heard(told)
}

// selfTold are the conditions that the server itself writes of new objects, by kind.
var selfTold = map[string]string{"CustomResourceDefinition": "Established", "FlowSchema": "Dangling"}

// settle waits until the server itself has nothing more to write.
func (x *trial) settle() {
	x.t.Helper()
	before, limit := "", time.Now().Add(30*time.Second)
	for ; ; time.Sleep(50 * time.Millisecond) {
		o := x.do(200, "GET", x.path, "", "")
		if now := o.GetResourceVersion(); now != before {
			before = now
		} else if want := selfTold[x.Kind]; want == "" || strings.Contains(x.json(o), `"type":"`+want+`"`) {
			return
		}
		if time.Now().After(limit) {
			x.t.Fatalf("the server tells nothing of it: %s", x.json(o))
		}
	}
}

// forms reads the object in every media type and as tables and metadata; all of them say the same.
func (x *trial) forms() {
	x.t.Helper()
	want := x.do(200, "GET", x.path, "", "")
	get := func(path, accept string) []byte {
		code, h, b := x.s.Try(x.t, "GET", path, "", map[string]string{"Accept": accept})
		media, _, _ := strings.Cut(accept, ";")
		if code != 200 || !strings.HasPrefix(h.Get("Content-Type"), media) {
			x.t.Fatalf("%s as %s: %d %s %.300s", path, accept, code, h.Get("Content-Type"), b)
		}
		return b
	}
	same := func(form string, got any) {
		b, err := json.Marshal(got)
		if err != nil {
			x.t.Fatal(err)
		}
		is := map[string]any{}
		decode(x.t, b, &is)
		if !reflect.DeepEqual(is, want.Object) {
			x.t.Errorf("as %s it is %s, not %s", form, b, x.json(want))
		}
	}
	var loose map[string]any
	if err := yaml.Unmarshal(get(x.path, "application/yaml"), &loose); err != nil {
		x.t.Fatal(err)
	}
	same("YAML", loose)
	loose = nil
	if err := direct.Unmarshal(get(x.path, "application/cbor"), &loose); err != nil {
		x.t.Fatal(err)
	}
	same("CBOR", loose)
	if gvk := want.GroupVersionKind(); scheme.Scheme.Recognizes(gvk) {
		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(get(x.path, "application/vnd.kubernetes.protobuf"), nil, nil)
		if err != nil {
			x.t.Fatal(err)
		}
		x.sameMessage(obj, want)
	}
	var meta metav1.PartialObjectMetadata
	decode(x.t, get(x.path, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), &meta)
	if meta.Kind != "PartialObjectMetadata" || meta.UID != want.GetUID() || meta.ResourceVersion != want.GetResourceVersion() {
		x.t.Errorf("its metadata are %v", meta)
	}
	var tab metav1.Table
	decode(x.t, get(x.at+"?labelSelector=suite", "application/json;as=Table;g=meta.k8s.io;v=v1"), &tab)
	if tab.Kind != "Table" || len(tab.Rows) != 1 || len(tab.Rows[0].Cells) != len(tab.ColumnDefinitions) || len(tab.ColumnDefinitions) == 0 {
		x.t.Errorf("its table is %v", tab)
	}
	get(x.at+"?labelSelector=suite", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
}

// sameMessage compares what came as protobuf with the message of what came as JSON: the first does not carry the kinds of
// what is in an object.
func (x *trial) sameMessage(got runtime.Object, want *unstructured.Unstructured) {
	x.t.Helper()
	whole, err := scheme.Scheme.New(want.GroupVersionKind())
	if err != nil {
		x.t.Fatal(err)
	}
	decode(x.t, []byte(x.json(want)), whole)
	type message interface{ Marshal() ([]byte, error) }
	a, err := got.(message).Marshal()
	if err != nil {
		x.t.Fatal(err)
	}
	b, err := whole.(message).Marshal()
	if err != nil {
		x.t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		x.t.Errorf("as protobuf it is %v, not %v", got, whole)
	}
}

// lists selects by labels and fields.
func (x *trial) lists() {
	x.t.Helper()
	for query, want := range map[string]int{
		"labelSelector=suite%3Dyes": 1, "labelSelector=suite%21%3Dyes,suite": 0, "labelSelector=suite+in+(no,yes)": 1,
		"fieldSelector=metadata.name%3D" + x.name: 1, "fieldSelector=metadata.name%3Dno-such": 0, "labelSelector=suite&resourceVersion=0": -1,
	} {
		list := x.do(200, "GET", x.at+"?"+query, "", "")
		items, _, _ := unstructured.NestedSlice(list.Object, "items") // none is an empty list
		if want >= 0 && len(items) != want || list.GetKind() != x.Kind+"List" || list.GetResourceVersion() == "" {
			x.t.Errorf("?%s has %d items of %s at %s, want %d", query, len(items), list.GetKind(), list.GetResourceVersion(), want)
		}
	}
	x.do(400, "GET", x.at+"?fieldSelector=no.such.field%3Dx", "", "")
	x.do(400, "GET", x.at+"?labelSelector=%3D%3D%3D", "", "")
}

// updates puts the object: as it is, changed, over an old version, over another object.
func (x *trial) updates() {
	x.t.Helper()
	o := x.do(200, "GET", x.path, "", "")
	same := x.do(200, "PUT", x.path, x.json(o), "")
	if same.GetResourceVersion() != o.GetResourceVersion() && !strings.HasSuffix(x.gv+x.Name, "v1events") {
		x.t.Errorf("a write of nothing took it from %s to %s", o.GetResourceVersion(), same.GetResourceVersion())
	}
	stale := o.GetResourceVersion()
	o.SetResourceVersion(same.GetResourceVersion())
	annotate(o, "put")
	x.do(200, "PUT", x.path+"?dryRun=All", x.json(o), "")
	put := x.do(200, "PUT", x.path+"?fieldManager=putter", x.json(o), "")
	if put.GetResourceVersion() == stale || put.GetAnnotations()["suite"] != "put" || put.GetGeneration() != same.GetGeneration() || put.GetUID() != o.GetUID() {
		x.t.Errorf("put was %s", x.json(put))
	}
	if !slices.ContainsFunc(put.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool { return m.Manager == "putter" }) {
		x.t.Errorf("who put it owns nothing: %v", put.GetManagedFields())
	}
	annotate(o, "lost")
	o.SetResourceVersion(stale)
	x.do(409, "PUT", x.path, x.json(o), "")
	o.SetResourceVersion(put.GetResourceVersion())
	o.SetUID("00000000-0000-0000-0000-000000000000")
	x.do(409, "PUT", x.path, x.json(o), "")
	o.SetName("another")
	x.do(400, "PUT", x.path, x.json(o), "")
}

func annotate(o *unstructured.Unstructured, value string) {
	a := o.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}
	a["suite"] = value
	o.SetAnnotations(a)
}

func (x *trial) patches() {
	x.t.Helper()
	is := func(want string, o *unstructured.Unstructured) {
		x.t.Helper()
		if got := o.GetAnnotations()["suite"]; got != want {
			x.t.Errorf("the patch made it %q, want %q", got, want)
		}
	}
	is("json", x.do(200, "PATCH", x.path, `[{"op":"test","path":"/metadata/name","value":"`+x.name+`"},{"op":"replace","path":"/metadata/annotations/suite","value":"json"}]`, jsonPatchType))
	x.do(422, "PATCH", x.path, `[{"op":"test","path":"/metadata/name","value":"other"}]`, jsonPatchType)
	is("merge", x.do(200, "PATCH", x.path, `{"metadata":{"annotations":{"suite":"merge"}}}`, mergeType))
	is("", x.do(200, "PATCH", x.path+"?dryRun=All", `{"metadata":{"annotations":{"suite":null}}}`, mergeType))
	is("strategic", x.do(200, "PATCH", x.path, `{"metadata":{"annotations":{"suite":"strategic"}}}`, strategicType))
	x.do(409, "PATCH", x.path, `{"metadata":{"resourceVersion":"1"}}`, mergeType)
	x.do(415, "PATCH", x.path, `{}`, "text/plain")
	x.do(400, "PATCH", x.path, `{`, mergeType)
}

func (x *trial) applies() {
	x.t.Helper()
	config := func(value string) string {
		return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":%q,"annotations":{"applied":%q}}}`, x.gv, x.Kind, x.name, value)
	}
	o := x.do(200, "PATCH", x.path+"?fieldManager=one", config("one"), applyType)
	if !slices.ContainsFunc(o.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == "one" && m.Operation == metav1.ManagedFieldsOperationApply && strings.Contains(string(m.FieldsV1.Raw), "f:applied")
	}) {
		x.t.Errorf("applied, its fields are managed as %v", o.GetManagedFields())
	}
	no := x.do(409, "PATCH", x.path+"?fieldManager=two", config("two"), applyType)
	if !strings.Contains(x.json(no), "FieldManagerConflict") {
		x.t.Errorf("the conflict is told as %s", x.json(no))
	}
	o = x.do(200, "PATCH", x.path+"?fieldManager=two&force=true", config("two"), applyType)
	if o.GetAnnotations()["applied"] != "two" {
		x.t.Errorf("forced, it is %v", o.GetAnnotations())
	}
	x.do(422, "PATCH", x.path, config("three"), applyType) // without a manager
}

// parts reads and writes the subresources that show the object or its scale.
func (x *trial) parts() {
	x.t.Helper()
	for _, sub := range x.subs {
		_, name, _ := strings.Cut(sub.Name, "/")
		path := x.path + "/" + name
		if sub.Kind != x.Kind && sub.Kind != "Scale" || !slices.Contains(sub.Verbs, "patch") {
			continue
		}
		if slices.Contains(sub.Verbs, "get") {
			if o := x.do(200, "GET", path, "", ""); o.GetKind() != sub.Kind || o.GetName() != x.name {
				x.t.Errorf("its %s is %s", name, x.json(o))
			}
		}
		before := x.do(200, "GET", x.path, "", "")
		o := x.do(200, "PATCH", path, `{}`, mergeType)
		if o.GetKind() != sub.Kind || o.GetResourceVersion() != before.GetResourceVersion() {
			x.t.Errorf("a patch of nothing made its %s %s", name, x.json(o))
		}
		x.do(200, "PATCH", path+"?dryRun=All", `{"metadata":{"resourceVersion":"`+before.GetResourceVersion()+`"}}`, mergeType)
		if name == "status" {
			spec, _, _ := unstructured.NestedMap(before.Object, "spec") // some have none
			o = x.do(200, "PATCH", path, `{"spec":null}`, mergeType)
			if now, _, _ := unstructured.NestedMap(o.Object, "spec"); !reflect.DeepEqual(now, spec) {
				x.t.Errorf("through its status its spec became %v", now)
			}
		}
	}
}

// pages makes more of the kind where names are free, and reads them a page at a time.
func (x *trial) pages(o *unstructured.Unstructured) {
	x.t.Helper()
	names := []string{x.name}
	for i := range 3 {
		c := o.DeepCopy()
		c.SetName(fmt.Sprintf("%s%d", x.name, i))
		if code, _, _ := x.s.Try(x.t, "POST", x.at, x.json(c), nil); code == http.StatusCreated {
			names = append(names, c.GetName())
		}
	}
	var read []string
	token, rv := "", ""
	for {
		list := x.do(200, "GET", x.at+"?limit=1&labelSelector=suite&continue="+url.QueryEscape(token), "", "")
		items, _, _ := unstructured.NestedSlice(list.Object, "items") // none is an empty list
		for _, i := range items {
			read = append(read, (&unstructured.Unstructured{Object: i.(map[string]any)}).GetName())
		}
		if rv == "" {
			rv = list.GetResourceVersion()
		} else if rv != list.GetResourceVersion() {
			x.t.Errorf("a page is of %s, the first was of %s", list.GetResourceVersion(), rv)
		}
		if token = list.GetContinue(); token == "" {
			break
		}
	}
	slices.Sort(names)
	slices.Sort(read)
	if !slices.Equal(names, read) {
		x.t.Errorf("page by page there are %q, want %q", read, names)
	}
}

// ends deletes the object, which a finalizer holds.
func (x *trial) ends() {
	x.t.Helper()
	x.do(409, "DELETE", x.path, `{"preconditions":{"uid":"00000000-0000-0000-0000-000000000000"}}`, "")
	x.do(409, "DELETE", x.path, `{"preconditions":{"resourceVersion":"1"}}`, "")
	x.do(200, "DELETE", x.path+"?dryRun=All&gracePeriodSeconds=0", "", "")
	o := x.do(200, "PATCH", x.path, `{"metadata":{"finalizers":["suite.example.com/hold"]}}`, mergeType)
	if o.GetDeletionTimestamp() != nil {
		x.t.Error("a dry run deleted it")
	}
	x.do(200, "DELETE", x.path+"?gracePeriodSeconds=0", "", "")
	o = x.do(200, "GET", x.path, "", "")
	if o.GetDeletionTimestamp() == nil || !slices.Contains(o.GetFinalizers(), "suite.example.com/hold") {
		x.t.Errorf("held, it is %s", x.json(o))
	}
	x.do(200, "PATCH", x.path, `{"metadata":{"finalizers":null}}`, mergeType)
	x.finalize(x.path)
	x.absent(x.path)
}

// finalize does for a namespace what its controller does.
func (x *trial) finalize(path string) {
	x.t.Helper()
	if x.Kind == "Namespace" {
		code, _, b := x.s.Try(x.t, "GET", path, "", nil)
		if code == http.StatusOK {
			x.do(200, "PUT", path+"/finalize", strings.Replace(string(b), `"finalizers":["kubernetes"]`, `"finalizers":[]`, 1), "")
		}
	}
}

// absent waits for the server's own finalizers.
func (x *trial) absent(path string) {
	x.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		code, _, b := x.s.Try(x.t, "GET", path, "", nil)
		if code == http.StatusNotFound {
			return
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("deleted, it is still there: %s", b)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// gone deletes what is left of the collection.
func (x *trial) gone(o *unstructured.Unstructured) {
	x.t.Helper()
	x.do(201, "POST", x.at, x.json(o), "")
	if !slices.Contains(x.Verbs, "deletecollection") {
		x.do(200, "DELETE", x.path, "", "")
		x.finalize(x.path)
		x.absent(x.path)
		return
	}
	list := x.do(200, "GET", x.at+"?labelSelector=suite", "", "")
	items, _, _ := unstructured.NestedSlice(list.Object, "items") // none is an empty list
	for _, i := range items {
		name := (&unstructured.Unstructured{Object: i.(map[string]any)}).GetName()
		if x.Kind != "CustomResourceDefinition" {
			x.do(200, "PATCH", x.at+"/"+name, `{"metadata":{"finalizers":null}}`, mergeType)
		}
	}
	x.do(200, "DELETE", x.at+"?labelSelector=suite%3Dno", "", "")
	x.do(200, "GET", x.path, "", "")
	x.do(200, "DELETE", x.at+"?labelSelector=suite&gracePeriodSeconds=0", "", "")
	x.absent(x.path)
}

// told is a watch of the object: its events, until the object was deleted a second time.
type told struct {
	events chan metav1.WatchEvent
	stop   context.CancelFunc
}

func (x *trial) follow() *told {
	x.t.Helper()
	list := x.do(200, "GET", x.at+"?limit=1", "", "")
	ctx, stop := context.WithCancel(context.Background())
	x.t.Cleanup(stop)
	req, err := http.NewRequestWithContext(ctx, "GET", x.s.URL+x.at+"?watch=1&resourceVersion="+list.GetResourceVersion()+"&fieldSelector=metadata.name%3D"+x.name, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+rig.AdminToken)
	resp, err := x.s.HTTP.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	w := &told{events: make(chan metav1.WatchEvent, 1000), stop: stop}
	go func() {
		defer close(w.events)
		defer resp.Body.Close() //nolint:errcheck // only read
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			var e metav1.WatchEvent
			if json.Unmarshal(bytes.Clone(lines.Bytes()), &e) == nil {
				w.events <- e
			}
		}
	}()
	return w
}

// heard compares what the watch told with what was done.
func (x *trial) heard(w *told) {
	x.t.Helper()
	defer w.stop()
	if x.Kind == "Namespace" {
		return // its second life ends with its controller
	}
	last, n := int64(0), map[string]int{}
	deadline := time.After(10 * time.Second)
	for n["DELETED"] < 2 {
		select {
		case e, ok := <-w.events:
			if !ok {
				x.t.Fatalf("the watch ended after %v", n)
			}
			var o metav1.PartialObjectMetadata
			decode(x.t, e.Object.Raw, &o)
			rv, err := strconv.ParseInt(o.ResourceVersion, 10, 64)
			if err != nil || rv <= last || o.Name != x.name || e.Type == "ADDED" && n["ADDED"] != n["DELETED"] || e.Type != "ADDED" && n["ADDED"] != n["DELETED"]+1 {
				x.t.Errorf("after %v at %d the watch told %s of %s at %s", n, last, e.Type, o.Name, o.ResourceVersion)
			}
			last = rv
			n[e.Type]++
		case <-deadline:
			x.t.Fatalf("the watch told of %v only", n)
		}
	}
	if n["ADDED"] != 2 || n["MODIFIED"] < 7 {
		x.t.Errorf("the watch told %v", n)
	}
}
