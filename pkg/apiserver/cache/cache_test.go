package cache

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// podDef is a row with an indexed field.
func podDef() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Pod", Resource: "pods", Namespaced: true, Indexed: "spec.nodeName", FieldNames: []string{"spec.nodeName"},
		Fields: kind.Of(func(p *corev1.Pod) map[string]string { return map[string]string{"spec.nodeName": p.Spec.NodeName} }),
	}, kind.In[corev1.Pod, corev1.PodList](corev1.SchemeGroupVersion, nil))
}

func podItem(t *rapid.T, def *kind.Def, ns, name, node, label string, rev int64) *Item {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"l": label}}, Spec: corev1.PodSpec{NodeName: node}}
	value, err := codec.StoredValue(def, p)
	if err != nil {
		t.Fatal(err)
	}
	i, err := newItem(def, ns+"/"+name, store.KV{Value: value, Rev: rev})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestResourceAgainstModel makes random changes and checks that lists, old states, and every watcher see exactly what a
// plain map says, whatever they select and whenever they started.
func TestResourceAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		def := podDef()
		r := newResource(def)
		r.wanted.from = 0
		r.load(nil, 1)
		model := map[string]*Item{}
		history := map[int64]map[string]*Item{1: {}}
		snaps := map[int64]*Snapshot{1: r.Snapshot()}
		var watchers []*modelWatcher
		rev := int64(1)
		pick := func(name string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name) }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch pick("step", "put", "put", "put", "delete", "watch", "poll", "list") {
			case "put":
				rev++
				i := podItem(t, def, pick("ns", "a", "b"), pick("name", "x", "y", "z"), pick("node", "", "n1", "n2"), pick("label", "1", "2"), rev)
				model[i.Key] = i
				r.apply(i.Key, i, rev)
			case "delete":
				key := pick("ns", "a", "b") + "/" + pick("name", "x", "y", "z")
				if model[key] != nil {
					rev++
				}
				delete(model, key)
				r.apply(key, nil, rev)
			case "watch":
				sel := selector(pick("selector", "all", "ns", "name", "node", "label"))
				from := rapid.Int64Range(1, rev).Draw(t, "from")
				w, err := r.Watch(from, sel)
				if err != nil {
					t.Fatalf("watching from %d at %d: %v", from, rev, err)
				}
				watchers = append(watchers, &modelWatcher{w: w, sel: sel, seen: selected(history[from], sel)})
			case "poll":
				for _, w := range watchers {
					w.poll(t)
				}
			case "list":
				sel := selector(pick("selector", "all", "ns", "name", "node", "label"))
				got, _ := r.Snapshot().Select(sel, "", 0)
				same(t, "list", got, selected(model, sel))
				got, at := r.Select(sel)
				same(t, "indexed list", got, selected(model, sel))
				if !slices.IsSortedFunc(got, func(a, b *Item) int { return strings.Compare(a.Key, b.Key) }) || at > rev {
					t.Fatalf("the indexed list at %d is of %d and %v", rev, at, got)
				}
			}
			history[rev], snaps[rev] = maps.Clone(model), r.Snapshot()
		}
		for at, s := range snaps {
			got, _ := s.Select(Selector{}, "", 0)
			same(t, fmt.Sprint("the state at ", at), got, history[at])
		}
		for _, w := range watchers {
			w.poll(t)
			got := slices.Collect(maps.Values(w.seen))
			same(t, "a watcher", got, selected(model, w.sel))
			w.w.Stop()
		}
		if n := len(r.feeds); n != 1 {
			t.Fatalf("%d feeds are left after every watcher stopped", n)
		}
	})
}

// modelWatcher builds what it believes to be there from events alone.
type modelWatcher struct {
	w    *Watcher
	sel  Selector
	seen map[string]*Item
}

func (m *modelWatcher) poll(t *rapid.T) {
	events, _, err := m.w.Poll()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		typ, item, ok := e.For(m.sel)
		if !ok {
			t.Fatal("an event came that was not asked for")
		}
		have := m.seen[item.Key]
		switch {
		case typ == watch.Added && have != nil, typ == watch.Modified && have == nil, typ == watch.Deleted && have == nil:
			t.Fatalf("%s of %s, which was there: %v", typ, item.Key, have != nil)
		case item.Rev != e.Rev:
			t.Fatalf("the event of revision %d shows an object of %d", e.Rev, item.Rev)
		case typ == watch.Deleted:
			delete(m.seen, item.Key)
		default:
			m.seen[item.Key] = item
		}
	}
}

func selector(name string) Selector {
	switch name {
	case "ns":
		return Selector{Namespace: "a"}
	case "name":
		return Selector{Namespace: "a", Fields: fields.OneTermEqualSelector("metadata.name", "x")}
	case "node":
		return Selector{Fields: fields.OneTermEqualSelector("spec.nodeName", "n1")}
	case "label":
		return Selector{Labels: labels.SelectorFromSet(labels.Set{"l": "1"})}
	}
	return Selector{}
}

// selected is the naive answer.
func selected(all map[string]*Item, s Selector) map[string]*Item {
	out := map[string]*Item{}
	for k, i := range all {
		if s.Namespace != "" && !strings.HasPrefix(k, s.Namespace+"/") ||
			s.Fields != nil && !s.Fields.Matches(fields.Set{"metadata.name": i.Name, "spec.nodeName": i.nth(0)}) ||
			s.Labels != nil && !s.Labels.Matches(i.Labels) {
			continue
		}
		out[k] = i
	}
	return out
}

func same(t *rapid.T, what string, got []*Item, want map[string]*Item) {
	if len(got) != len(want) {
		t.Fatalf("%s has %d objects, want %d", what, len(got), len(want))
	}
	for _, i := range got {
		if want[i.Key] == nil || want[i.Key].Rev != i.Rev {
			t.Fatalf("%s has %s at %d, want %v", what, i.Key, i.Rev, want[i.Key])
		}
	}
}

// TestPages walks a list page by page and sees every object once, in order.
func TestPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		def := podDef()
		r := newResource(def)
		n := rapid.IntRange(0, 40).Draw(t, "objects")
		for i := range n {
			item := podItem(t, def, "a", fmt.Sprintf("p%03d", i), "", "1", int64(i+1))
			r.apply(item.Key, item, item.Rev)
		}
		s, limit, from := r.Snapshot(), rapid.IntRange(1, 9).Draw(t, "limit"), ""
		var keys []string
		for {
			items, next := s.Select(Selector{}, from, limit)
			for _, i := range items {
				keys = append(keys, i.Key)
			}
			if next == "" {
				break
			}
			if len(items) != limit {
				t.Fatalf("a page that is not the last has %d objects, want %d", len(items), limit)
			}
			from = items[len(items)-1].Key + "\x00"
		}
		if len(keys) != n || !slices.IsSorted(keys) {
			t.Fatalf("the pages hold %v", keys)
		}
	})
}

// TestGap rereads a resource after a gap: whoever goes on from any of the revisions that were told is told the rest.
func TestGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		def := podDef()
		r := newResource(def)
		item := func(n int, rev int64) *Item { return podItem(t, def, "n", fmt.Sprint("p", n), "", "", rev) }
		const from, pods = 100, 6
		model := map[string]int64{}
		var before, after []*Item
		for n := range pods {
			before = append(before, item(n, int64(n+1)))
			model[before[n].Key] = before[n].Rev
		}
		r.load(before, from)
		rev := int64(from + 1)
		for n := range pods + 2 {
			switch rapid.IntRange(0, 2).Draw(t, "fate") {
			case 0: // removed, or never there
				rev++
			case 1:
				if n < pods {
					after = append(after, before[n])
				}
			case 2:
				after = append(after, item(n, rev))
				rev++
			}
		}
		want := map[string]int64{}
		for _, i := range after {
			want[i.Key] = i.Rev
		}
		r.reload(after, from, rev)
		told := r.all.events
		see := func(model map[string]int64, e *Event) {
			if e.Item == nil {
				delete(model, e.Prev.Key)
			} else {
				model[e.Item.Key] = e.Item.Rev
			}
		}
		for n, e := range told {
			if e.Rev <= from || e.Rev > rev || n > 0 && e.Rev <= told[n-1].Rev {
				t.Fatalf("change %d of %d is told at revision %d, in a gap from %d to %d", n, len(told), e.Rev, from, rev)
			}
			see(model, e)
			w, err := r.Watch(e.Rev, Selector{})
			if err != nil {
				t.Fatal(err)
			}
			rest, _, err := w.Poll()
			w.Stop()
			seen := maps.Clone(model)
			for _, e := range rest {
				see(seen, e)
			}
			if err != nil || !maps.Equal(seen, want) {
				t.Fatalf("who goes on from %d sees %v, not %v (%v)", e.Rev, seen, want, err)
			}
		}
		if !maps.Equal(model, want) {
			t.Fatalf("it came to %v, not %v", model, want)
		}
	})
}
