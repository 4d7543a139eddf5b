package fields

import (
	"bytes"
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Write is who wrote an object, and how.
type Write struct {
	Manager string
	// Version is the group and version in which both objects are, and the write was made.
	Version string
	// Subresource is what the write went through; empty is the object itself.
	Subresource string
	// Ignore is a field at the top of which the write changes nothing, whatever it holds; empty is none.
	Ignore string
	// Now is when it was written.
	Now time.Time
}

// most is how many writers an object may have before the oldest are put together.
const most = 10

// spareMost is how many nodes a tree has at most whose memory is kept for others.
const spareMost = 4096

// walks are spare: a tree of a pod takes some 10 KB while it is made.
var walks = sync.Pool{New: func() any { return new(walk) }}

// Update answers the entries of an object after a write, given those before it. old and obj are pointers to values of the
// Type's Go type; of a new object, old is nil. The entries given are not changed. It answers false where the library has to
// be asked.
func (t *Type) Update(old, obj any, entries []metav1.ManagedFieldsEntry, by Write) ([]metav1.ManagedFieldsEntry, bool) {
	l, r := t.empty, reflect.ValueOf(obj)
	if old != nil {
		l = reflect.ValueOf(old).Elem()
	}
	if r = r.Elem(); l.Type() != r.Type() || !utf8.ValidString(by.Manager) {
		return nil, false
	}
	w := walks.Get().(*walk)
	defer w.putBack()
	w.values(t.root, side{v: l}, side{v: r})
	if w.bad {
		return nil, false
	}
	diff := w.out
	if by.Ignore != "" {
		diff = diff.without("f:" + by.Ignore)
	}
	w.gain.gained(diff)
	return t.give(diff, w.gain, entries, by)
}

// putBack makes a walk ready for others. The names of what was written are not held.
func (w *walk) putBack() {
	clear(w.out)
	clear(w.gain)
	w.out, w.gain, w.bad = w.out[:0], w.gain[:0], false
	if cap(w.out) < spareMost {
		walks.Put(w)
	}
}

// without leaves out a field at the top.
func (t tree) without(key string) tree {
	for at := 0; at < len(t); at += int(t[at].size) {
		if t[at].key == key {
			return slices.Delete(t, at, at+int(t[at].size))
		}
	}
	return t
}

// give takes what changed from all entries, and gives what is gained to the writer.
func (t *Type) give(diff, gain tree, entries []metav1.ManagedFieldsEntry, by Write) ([]metav1.ManagedFieldsEntry, bool) {
	out := make([]metav1.ManagedFieldsEntry, 0, len(entries)+1)
	written := false
	for i := range entries {
		e := &entries[i]
		if e.APIVersion != by.Version || e.FieldsType != "FieldsV1" || e.FieldsV1 == nil || e.Operation != metav1.ManagedFieldsOperationUpdate && e.Operation != metav1.ManagedFieldsOperationApply {
			return nil, false
		}
		for n := range i {
			if o := &entries[n]; o.Manager == e.Manager && o.Operation == e.Operation && o.Subresource == e.Subresource {
				return nil, false
			}
		}
		had, ok := read(e.FieldsV1.GetRawString())
		if !ok || !utf8.ValidString(e.Manager) || !t.root.fits(had) {
			return nil, false
		}
		mine := e.Operation == metav1.ManagedFieldsOperationUpdate && e.Manager == by.Manager && e.Subresource == by.Subresource
		mine = mine && len(gain) > 0
		has, loses := had, meets(had, diff)
		if loses {
			has = make(tree, 0, len(had))
			has.subtract(had, diff)
		}
		if mine {
			joined := make(tree, 0, len(has)+len(gain))
			joined.join(has, gain)
			has = joined
		}
		if len(has) == 0 {
			continue
		}
		next := *e
		if mine {
			written = true
			next.Time = &metav1.Time{Time: by.Now.UTC()}
		}
		if mine || loses {
			next.FieldsV1 = has.fieldsV1()
		}
		out = append(out, next)
	}
	if !written && len(gain) > 0 {
		out = append(out, metav1.ManagedFieldsEntry{
			Manager: by.Manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: by.Version, Subresource: by.Subresource,
			Time: &metav1.Time{Time: by.Now.UTC()}, FieldsType: "FieldsV1", FieldsV1: gain.fieldsV1(),
		})
	}
	updates := 0
	for i := range out {
		if out[i].Operation == metav1.ManagedFieldsOperationUpdate {
			updates++
		}
	}
	if updates > most {
		return nil, false
	}
	slices.SortFunc(out, before)
	if len(out) == 0 {
		out = nil
	}
	return out, true
}

var texts = sync.Pool{New: func() any { return new([]byte) }}

func (t tree) fieldsV1() *metav1.FieldsV1 {
	buf := texts.Get().(*[]byte)
	defer texts.Put(buf)
	*buf = t.appendJSON((*buf)[:0], false)
	f := &metav1.FieldsV1{}
	f.SetRawBytes(bytes.Clone(*buf))
	return f
}

// before orders entries as they are stored.
func before(a, b metav1.ManagedFieldsEntry) int {
	seconds := func(t *metav1.Time) int64 {
		if t == nil {
			return 0
		}
		return t.Unix()
	}
	return cmp.Or(strings.Compare(string(a.Operation), string(b.Operation)), cmp.Compare(seconds(a.Time), seconds(b.Time)),
		strings.Compare(a.Manager, b.Manager), strings.Compare(a.APIVersion, b.APIVersion), strings.Compare(a.Subresource, b.Subresource))
}

// fits tells whether an entry goes into a value as deep as the schema of today does. It may not, when it was written by a
// release with another schema.
func (p *plan) fits(e tree) bool {
	for ; len(e) > 0; e = e.after() {
		if e[0].size == 1 {
			continue
		}
		sub := p.element
		if p.shape == object {
			i, ok := p.byKey[e[0].key]
			if !ok {
				return false
			}
			sub = p.fields[i].plan
		}
		if sub == nil || sub.shape == leaf || sub.shape == unknown || !sub.fits(e.below()) {
			return false
		}
	}
	return true
}
