package engine

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// FuzzApply applies anything, in YAML and in CBOR, to a pod whose managedFields may be anything too: it is refused as the client's
// fault, or the pod can be stored, and applying the same once more changes nothing.
func FuzzApply(f *testing.F) {
	const pod = `{"apiVersion":"v1","kind":"Pod",`
	const mine = `[{"manager":"m","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{}}}}}},
		{"manager":"other","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{"f:x":{}},"f:finalizers":{"v:\"a\"":{}}}}}]`
	for _, s := range [][2]string{
		{``, ``}, {pod + `"metadata":{"name":"a","labels":{"x":"z"}}}`, mine}, {pod + `"spec":{"containers":[{"name":"c","image":"i"},{"name":"c"}]}}`, mine},
		{pod + `"spec":{"containers":[{"name":"c","ports":[{"containerPort":80,"protocol":"TCP"},{"containerPort":80}]}],"volumes":null}}`, mine},
		{pod + `"metadata":{"finalizers":["a","a"],"ownerReferences":[{"uid":"u"}]},"spec":{}}`, mine}, {pod + `"spec":[]}`, mine}, {pod + `"spec":{"nodeSelector":{"a":{}}}}`, `[{}]`},
		{pod + `"metadata":{"name":"a"}}`, `[{"manager":"m","operation":"Apply","apiVersion":"v9","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{}}}]`},
		{pod + `"metadata":{"name":"a"}}`, `[{"manager":"m","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"k:{\"name\":\"c\"}":{},"i:9":{},"v:1":{},"f:a":{"f:b":null}}}]`},
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, env: [{name: A, value: b}], resources: {limits: {cpu: 1}}}]}\n", mine},
		{"\xd9\xd9\xf7\xa2JapiVersionBv1DkindCPod", mine},
	} {
		f.Add([]byte(s[0]), []byte(s[1]))
	}
	v := kind.In[corev1.Pod, corev1.PodList](corev1.SchemeGroupVersion, defaults.Pod)
	def := kind.Row(kind.Def{Kind: "Pod", Resource: "pods", Namespaced: true}, v)
	s := newServed(def, &def.Versions[0], nil)
	f.Fuzz(func(t *testing.T, body, managed []byte) {
		var entries []metav1.ManagedFieldsEntry
		if json.Unmarshal(managed, &entries) != nil || managedfields.ValidateManagedFields(entries) != nil {
			return // it would not have been stored
		}
		for _, media := range []types.PatchType{types.ApplyYAMLPatchType, types.ApplyCBORPatchType} {
			begun := time.Now()
			c := &call{served: s, info: &request.Info{Namespace: "n", Name: "a"}, manager: "m", r: httptest.NewRequest(http.MethodPatch, "/", nil)}
			patch, err := c.configuration(media, body)
			if err != nil {
				askedFor(t, string(body), err)
				continue
			}
			m, err := c.fieldManager()
			if err != nil {
				t.Fatal(err)
			}
			old := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", UID: "u", Labels: map[string]string{"x": "y"}, Finalizers: []string{"a", "b"}, ManagedFields: entries},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{ContainerPort: 80, Protocol: "TCP"}}}, {Name: "d"}}}}
			for _, live := range []kind.Object{nil, old} {
				for _, force := range []bool{false, true} {
					obj, err := m.apply(c, live, patch.DeepCopy(), "m", force)
					if errors.As(err, &wrong{}) {
						continue // as upstream, with a 500
					}
					if err != nil {
						askedFor(t, string(body), err)
						continue
					}
					value, err := codec.StoredValue(def, obj)
					if err != nil {
						t.Fatalf("%q makes what cannot be stored: %v", body, err)
					}
					if _, err := codec.FromStored(def, value); err != nil {
						t.Fatalf("%q was stored as %q and cannot be read: %v", body, value, err)
					}
					again, err := m.apply(c, obj.DeepCopyObject().(kind.Object), patch.DeepCopy(), "m", force)
					if err != nil {
						t.Fatalf("%q applied twice: %v", body, err)
					}
					if a, b := text(t, obj), text(t, again); a != b {
						t.Errorf("%q applied twice makes %s of %s", body, b, a)
					}
				}
			}
			if took := time.Since(begun); took > 3*time.Second {
				t.Errorf("%q took %v", body, took)
			}
		}
	})
}

// text is an object without its managedFields: of one that has none they tell the past.
func text(t *testing.T, o kind.Object) string {
	t.Helper()
	o = o.DeepCopyObject().(kind.Object)
	o.SetManagedFields(nil)
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
