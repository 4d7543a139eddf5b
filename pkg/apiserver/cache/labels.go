package cache

import (
	"slices"
	"strings"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// Labels are an item's labels, sorted by key. They are a list since most objects have few: a map of three is five times as
// large and no faster.
type Labels []label

type label struct{ key, value string }

// Labels are what selectors ask.
var _ labels.Labels = Labels{}

// Lookup answers a label's value, and whether it is there.
func (l Labels) Lookup(key string) (string, bool) {
	for i := range l {
		if l[i].key == key {
			return l[i].value, true
		}
	}
	return "", false
}

// Has tells whether a label is there.
func (l Labels) Has(key string) bool { _, ok := l.Lookup(key); return ok }

// Get answers a label's value, "" if it is not there.
func (l Labels) Get(key string) string { v, _ := l.Lookup(key); return v }

func sortLabels(l Labels) Labels {
	slices.SortFunc(l, func(a, b label) int { return strings.Compare(a.key, b.key) })
	return l
}

// labelsOf makes labels of a map.
func labelsOf(m map[string]string) Labels {
	if len(m) == 0 {
		return nil
	}
	l := make(Labels, 0, len(m))
	for k, v := range m {
		l = append(l, label{k, v})
	}
	return sortLabels(l)
}

// metaLabels is the field of an ObjectMeta that holds its labels, an entry each of key and value.
const metaLabels = 11

// labelsIn reads the labels of an object's message. They share its memory, which never changes.
func labelsIn(msg []byte) Labels {
	_, meta, _, err := store.Metadata(msg)
	if err != nil {
		return nil
	}
	n := 0
	each(meta, func(num protowire.Number, _ []byte) {
		if num == metaLabels {
			n++
		}
	})
	if n == 0 {
		return nil
	}
	l := make(Labels, 0, n)
	each(meta, func(num protowire.Number, entry []byte) {
		if num != metaLabels {
			return
		}
		var one label
		each(entry, func(num protowire.Number, text []byte) {
			switch num {
			case 1:
				one.key = view(text)
			case 2:
				one.value = view(text)
			}
		})
		l = append(l, one)
	})
	return sortLabels(l)
}

// each calls f with every field of a message that holds bytes.
func each(msg []byte, f func(num protowire.Number, value []byte)) {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return
		}
		m := protowire.ConsumeFieldValue(num, typ, msg[n:])
		if m < 0 {
			return
		}
		if typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(msg[n:])
			f(num, v)
		}
		msg = msg[n+m:]
	}
}

// view is a string in the memory of bytes that never change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
