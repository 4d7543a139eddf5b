package engine

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// patches by type, some of them wrong.
var patches = map[types.PatchType][]string{
	types.MergePatchType: {
		`{}`, `{"status":{"phase":"Running"}}`, `{"status":null}`, `{"metadata":{"labels":{"a":null,"z":"9"}}}`, `{"metadata":{"uid":"u"},"status":{"podIP":"1.2.3.4"}}`,
		`{"metadata":null}`, `{"spec":{"nodeName":"m"}}`, `{"kind":"Pod","apiVersion":"v1","spec":{"tolerations":[{"key":"k"}]}}`, `{"wrong":1}`, `{"spec":3}`, `{"status":{"wrong":{}}}`,
		`{"metadata":{"finalizers":["a/b"],"annotations":null}}`,
	},
	types.StrategicMergePatchType: {
		`{"status":{"conditions":[{"type":"Ready","status":"x"}]}}`, `{"status":{"$setElementOrder/conditions":[{"type":"PodScheduled"},{"type":"Ready"}],"conditions":[{"type":"Ready","status":"y"}]}}`,
		`{"spec":{"containers":[{"name":"c0","image":"new"}]}}`, `{"$patch":"replace","spec":{"nodeName":"z"}}`, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["a/b"]}}`,
		`{"spec":{"containers":[{"name":"c0","$patch":"delete"}]}}`, `{"metadata":{"labels":{"$patch":"replace","q":"1"}}}`, `{"spec":{"containers":"no"}}`,
	},
	types.JSONPatchType: {
		`[]`, `[{"op":"add","path":"/metadata/labels/z","value":"1"}]`, `[{"op":"replace","path":"/status/phase","value":"Failed"}]`, `[{"op":"remove","path":"/spec/containers/0"}]`,
		`[{"op":"test","path":"/metadata/name","value":"p"},{"op":"add","path":"/spec/nodeName","value":"k"}]`, `[{"op":"test","path":"/metadata/name","value":"q"}]`,
		`[{"op":"move","from":"/metadata/annotations/note","path":"/metadata/annotations/note~1b"}]`, `[{"op":"replace","path":"","value":{}}]`,
		`[{"op":"copy","from":"/spec/nodeName","path":"/status/podIP"}]`, `[{"op":"replace","path":"/metadata","value":{"name":"p","namespace":"n"}}]`, `[{"op":"no"}]`,
	},
}

// TestPatchOfAPart patches pods wholly and in part: the results are the same, and the object patched stays as it was.
func TestPatchOfAPart(t *testing.T) {
	def := kind.Row(kind.Def{Kind: "Pod", Resource: "pods", Namespaced: true}, kind.In[corev1.Pod, corev1.PodList](corev1.SchemeGroupVersion, nil))
	c := &call{served: newServed(def, &def.Storage, nil), info: &request.Info{}, r: &http.Request{URL: &url.URL{}}}
	parts := 0
	rapid.Check(t, func(t *rapid.T) {
		pod := anyPod(t)
		pod.Finalizers = []string{"a/b", "c/d"}
		kinds := []types.PatchType{types.MergePatchType, types.StrategicMergePatchType, types.JSONPatchType}
		typ := rapid.SampledFrom(kinds).Draw(t, "type")
		patch := []byte(rapid.SampledFrom(patches[typ]).Draw(t, "patch"))
		part, few := touchedBy(typ, patch)
		if !few {
			return
		}
		before := pod.DeepCopy()
		got, gotWarnings, ok := c.patchPart(typ, &part, pod, patch, codec.Warn)
		before.SetGroupVersionKind(pod.GroupVersionKind())
		if !equality.Semantic.DeepEqual(before, pod) {
			t.Fatalf("%s changed the pod itself", patch)
		}
		want, wantWarnings, err := c.patchWhole(typ, pod, patch, codec.Warn)
		if !ok {
			return
		}
		parts++
		if err != nil {
			t.Fatalf("%s is refused, and was made in part: %v", patch, err)
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if string(a) != string(b) || len(gotWarnings) != len(wantWarnings) {
			t.Fatalf("%s makes in part\n%s %q\nand wholly\n%s %q", patch, a, gotWarnings, b, wantWarnings)
		}
	})
	if parts < 20 {
		t.Errorf("%d patches were made in part: that tests nothing", parts)
	}
}

func TestTouched(t *testing.T) {
	for _, tc := range []struct {
		t            types.PatchType
		patch        string
		fields, meta map[string]bool
		ok           bool
	}{
		{types.MergePatchType, `{"status":{},"metadata":{"labels":{}}}`, map[string]bool{"status": true, "metadata": true}, map[string]bool{"labels": true}, true},
		{types.MergePatchType, `{"metadata":null}`, map[string]bool{"metadata": true}, nil, true},
		{types.StrategicMergePatchType, `{"$retainKeys":["a"]}`, map[string]bool{}, nil, false},
		{types.StrategicMergePatchType, `{"metadata":{"$patch":"delete"}}`, map[string]bool{"metadata": true}, nil, true},
		{types.JSONPatchType, `[{"op":"add","path":"/metadata/labels/a~1b","value":1}]`, map[string]bool{"metadata": true}, map[string]bool{"labels": true}, true},
		{types.JSONPatchType, `[{"op":"add","path":"/metadata","value":1}]`, map[string]bool{"metadata": true}, nil, true},
		{types.JSONPatchType, `[{"op":"add","path":"","value":1}]`, map[string]bool{}, map[string]bool{}, false},
	} {
		got, ok := touchedBy(tc.t, []byte(tc.patch))
		if ok != tc.ok || !maps.Equal(got.fields, tc.fields) || !maps.Equal(got.meta, tc.meta) || (got.meta == nil) != (tc.meta == nil) {
			t.Errorf("%s touches %v, %v (%v)", tc.patch, got.fields, got.meta, ok)
		}
	}
}
