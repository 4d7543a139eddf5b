package engine

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// TestStateFrames holds the frames that are spliced to those that are encoded.
func TestStateFrames(t *testing.T) {
	def := kind.Row(kind.Def{Kind: "Pod", Resource: "pods", Namespaced: true}, kind.In[corev1.Pod, corev1.PodList](corev1.SchemeGroupVersion, nil))
	for _, size := range []int{0, 1, 100, 20000, 1 << 20} {
		p := &corev1.Pod{}
		p.Name, p.Annotations = "p", map[string]string{"a": string(make([]byte, size))}
		raw, err := codec.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		i := &cache.Item{Proto: raw}
		s := &stream{call: &call{served: &served{def: def, ver: &def.Storage}}, target: codec.Target{Media: codec.Proto}}
		var got bytes.Buffer
		k := &chunks{w: &got}
		if err := s.addFrame(k, i); err != nil {
			t.Fatal(err)
		}
		want, err := frame(codec.Proto, watch.Added, store.Wrap("v1", "Pod", raw))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%d bytes: got %d bytes %q\nwant %d %q", size, got.Len(), got.Bytes()[:60], len(want), want[:60])
		}
	}
}
