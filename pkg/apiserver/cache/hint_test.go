package cache

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// TestHints: an item made with a hint is the item made without; a hint of another value counts for nothing.
func TestHints(t *testing.T) {
	def := podDef()
	r := newResource(def)
	pod := func(node string) (*corev1.Pod, []byte) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", Labels: map[string]string{"b": "1", "a": "2"}}, Spec: corev1.PodSpec{NodeName: node}}
		value, err := codec.StoredValue(def, p)
		if err != nil {
			t.Fatal(err)
		}
		return p, value
	}
	one, first := pod("one")
	two, second := pod("two")
	check := func(value []byte, rev int64) {
		t.Helper()
		kv := store.KV{Value: value, Rev: rev}
		got, err := r.item("n/p", kv)
		if err != nil {
			t.Fatal(err)
		}
		want, err := newItem(def, "n/p", kv)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
	check(first, 5)
	r.Expect("n/p", one, first)
	check(first, 6)
	if len(r.hints.by) != 0 {
		t.Error("the hint stays")
	}
	r.Expect("n/p", two, second)
	check(first, 7) // of another writer
	check(second, 8)
	for i := range 3 * hintsMost {
		r.Expect(string(rune(i+1000)), one, first) // of writes that failed
	}
	if n := len(r.hints.by); n > hintsMost {
		t.Errorf("%d hints are kept", n)
	}
}
