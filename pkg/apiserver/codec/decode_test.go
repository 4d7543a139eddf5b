package codec

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// FuzzDecode reads anything as a pod in each media type, loosely and strictly, and as the options of a deletion: it is
// refused, or can be stored and read again.
func FuzzDecode(f *testing.F) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	v := kind.In[corev1.Pod, corev1.PodList](corev1.SchemeGroupVersion, nil)
	def := kind.Row(kind.Def{Kind: "Pod", Resource: "pods", Namespaced: true}, v)
	value, err := StoredValue(def, pod)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	for _, s := range []string{
		`{}`, `null`, `[]`, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","ports":[{"containerPort":1e3}]}]}}`, `{"kind":"Pod","kind":"Pod"}`, `{"spec":{"nodeSelector":{"a":1}}}`,
		"kind: Pod\nmetadata: {name: a}\n", "a: &a [*a]", "a: &a {b: *a}\n", "\xd9\xd9\xf7\xa1DkindCPod", "k8s\x00\x0a\x04\x0a\x02v1", `{"metadata":{"creationTimestamp":"x"}}`, `{"preconditions":{"uid":"1"},"gracePeriodSeconds":-1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, m := range []Media{JSON, YAML, Proto, CBOR} {
			var o metav1.DeleteOptions
			_ = DecodeOptions(body, m, schema.GroupVersion{Group: "x.io", Version: "v1"}, &o)
			for _, fields := range []string{Ignore, Strict} {
				obj, _, err := DecodeAs(def, &def.Versions[0], body, m, fields)
				if err != nil {
					continue
				}
				value, err := StoredValue(def, obj)
				if err != nil {
					t.Fatalf("%q cannot be stored: %v", body, err)
				}
				if _, err := FromStored(def, value); err != nil {
					t.Fatalf("%q was stored as %q and cannot be read: %v", body, value, err)
				}
			}
		}
		_, _ = FromStored(def, body) // what lies in etcd may be anything
	})
}
