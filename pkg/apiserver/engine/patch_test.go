package engine

import (
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// FuzzPatch applies anything to a pod in each of the ways that do not need a schema of their own: it is refused, or is JSON
// afterwards, soon and not much larger.
func FuzzPatch(f *testing.F) {
	for _, s := range []string{
		`[]`, `{}`, `null`, `[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`, `[{"op":"copy","from":"","path":"/a"}]`, `[{"op":"move","from":"/spec","path":"/spec/x"}]`, `[{"op":"remove","path":"/spec/containers/-1"}]`,
		`{"spec":{"containers":[{"name":"c","$patch":"delete"}]}}`, `{"spec":{"$setElementOrder/containers":[{"name":"x"}],"containers":[{"image":"y"}]}}`, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"]}}`, `{"$patch":"replace"}`,
		`{"spec":{"$retainKeys":["a"],"a":1}}`, `{"metadata":{"labels":null}}`, `{"spec":{"containers":{"a":1}}}`,
	} {
		f.Add([]byte(s))
	}
	boundCopies()
	v := kind.In[corev1.Pod, corev1.PodList](corev1.SchemeGroupVersion, nil)
	before := []byte(`{"metadata":{"name":"a","finalizers":["a","b"],"labels":{"x":"y"}},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}]},{"name":"d"}],"volumes":[{"name":"v","emptyDir":{}}]}}`)
	f.Fuzz(func(t *testing.T, patch []byte) {
		for _, kind := range []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType} {
			begun := time.Now()
			after, err := patchJSON(kind, before, patch, &v)
			if took := time.Since(begun); took > 3*time.Second {
				t.Errorf("%s took %v", kind, took)
			}
			if err == nil && len(after) > maxPatchCopies+2*(len(before)+len(patch))+1024 {
				t.Errorf("%s made %d bytes", kind, len(after))
			}
			if err == nil && json.Valid(patch) && !json.Valid(after) {
				t.Errorf("%s of %s made %s", kind, patch, after)
			}
		}
	})
}
