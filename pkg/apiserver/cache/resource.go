package cache

import (
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/btree"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Resource is the cache of one stored resource.
type Resource struct {
	Def     *kind.Def
	home    *Cache // never changed once it is found
	indexed int    // place of Def.Indexed in Def.FieldNames, -1 if none

	mu sync.RWMutex
	// tree is changed under mu only; snap is its copy that readers share, nil when the tree moved on.
	tree    *btree.BTreeG[*Item]
	size    int64             // bytes of all objects
	byField *index            // by Def.Indexed; nil if there is none
	byLabel map[string]*index // by the labels that are asked for often
	snap    *Snapshot
	rev     int64 // of the last change
	floor   int64 // every change after it is in history
	count   uint64
	told    uint64 // events
	fills   uint64 // how often it was read whole
	feeds   map[string]*feed
	all     *feed // feeds[allTopic]: history

	pages []*Snapshot // kept for continue tokens, oldest first

	wanted wanted // has a mutex of its own
	hints  hints  // so have they

	// loading is set until a resource that was added later has been read; what changes meanwhile waits in early.
	loading bool
	early   []pending
	// before is the resource that this one is to replace, while readers still find that one: it is followed too.
	before atomic.Pointer[Resource]
}

// pending is a change of a resource that is being read.
type pending struct {
	key  string
	item *Item
	rev  int64
}

// Snapshot is a resource at one revision; it never changes.
type Snapshot struct {
	Rev  int64 // the change it was taken at; it stays true until the next one
	tree *btree.BTreeG[*Item]
	kept time.Time
}

// Home is the cache of the etcd that the resource lies in: it tells how far the resource is, and reads and waits for it.
func (r *Resource) Home() *Cache { return r.home }

func byKey(a, b *Item) bool { return a.Key < b.Key }

func newResource(def *kind.Def) *Resource {
	r := &Resource{
		Def:     def,
		indexed: slices.Index(def.FieldNames, def.Indexed),
		tree:    btree.NewBTreeGOptions(byKey, btree.Options{NoLocks: true, Degree: 32}),
		all:     newFeed(),
		wanted:  wanted{from: indexFrom},
	}
	if r.indexed >= 0 && def.Indexed != "" {
		r.byField = newIndex(func(i *Item) string { return i.nth(r.indexed) })
	}
	r.all.times = []int64{}
	r.feeds = map[string]*feed{allTopic: r.all}
	return r
}

// apply makes one change and tells it. item is nil for a removal.
func (r *Resource) apply(key string, item *Item, rev int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loading {
		r.early = append(r.early, pending{key, item, rev})
		return
	}
	r.applyLocked(key, item, rev)
}

func (r *Resource) applyLocked(key string, item *Item, rev int64) {
	prev := r.setLocked(key, item)
	if prev != nil {
		prev.drop()
	} else if item == nil {
		return
	}
	r.snap, r.rev = nil, rev
	r.count++
	r.tellLocked(&Event{Rev: rev, Item: item, Prev: prev})
}

func (r *Resource) tellLocked(e *Event) {
	r.told++
	now := time.Now().Unix()
	r.all.times = append(r.all.times, now)
	r.all.push(e)
	if n := r.all.trim(now); n > 0 {
		r.floor = r.all.events[n-1].Rev
		r.all.drop(n)
	}
	if len(r.feeds) == 1 {
		return
	}
	e.topics(r.indexed, func(topic string) {
		f := r.feeds[topic]
		if f == nil {
			return
		}
		f.push(e)
		if len(f.events) > topicKeep {
			f.drop(topicKeep / 2)
		}
	})
}

// load fills an empty resource; nothing is told.
func (r *Resource) load(items []*Item, rev int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range items {
		r.setLocked(i.Key, i)
	}
	r.snap, r.rev, r.floor = nil, rev, rev
	r.count++
	r.fills++
}

// reload makes the resource equal to items, read at rev after a gap in the watch that began at from, telling every difference
// as a change. When something was removed is not known any more: each removal gets a revision of the gap for itself, so that
// a watcher which goes on from one misses none of the others.
func (r *Resource) reload(items []*Item, from, rev int64) {
	old := r.Snapshot()
	from = max(from, old.Rev) // a part of a transaction may have been told already
	there, taken := make(map[string]bool, len(items)), map[int64]bool{}
	var changes []pending
	for _, i := range items {
		there[i.Key] = true
		if was := old.Get(i.Key); was == nil || was.Rev != i.Rev {
			changes = append(changes, pending{i.Key, i, i.Rev})
			taken[i.Rev] = true
		}
	}
	at := rev
	old.Ascend("", func(i *Item) bool {
		if !there[i.Key] {
			for taken[at] && at > from+1 {
				at--
			}
			taken[at] = true
			changes = append(changes, pending{i.Key, nil, at})
		}
		return true
	})
	sort.SliceStable(changes, func(i, j int) bool { return changes[i].rev < changes[j].rev })
	for _, c := range changes {
		r.apply(c.key, c.item, c.rev)
	}
}

// reset throws everything away for items, read at rev from an etcd that has lost what was after it. What was told cannot be
// taken back, so every watcher has to start over.
func (r *Resource) reset(items []*Item, rev int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tree.Clear()
	r.byLabel = nil
	if r.byField != nil {
		clear(r.byField.items)
	}
	for _, i := range items {
		r.setLocked(i.Key, i)
	}
	r.snap, r.pages, r.rev, r.floor = nil, nil, rev, rev
	r.count++
	r.fills++
	for _, f := range r.feeds {
		f.drop(len(f.events))
		f.first++
		f.alert()
	}
}

// Changed counts the resource's changes.
func (r *Resource) Changed() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.count
}

// Snapshot answers the resource as it is now; it costs nothing while nothing changes.
func (r *Resource) Snapshot() *Snapshot {
	r.mu.RLock()
	s := r.snap
	r.mu.RUnlock()
	if s != nil {
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.snapshotLocked()
}

func (r *Resource) snapshotLocked() *Snapshot {
	if r.snap == nil {
		r.snap = &Snapshot{Rev: r.rev, tree: r.tree.Copy()}
	}
	return r.snap
}

// Get answers one item, or nil.
func (r *Resource) Get(key string) *Item {
	r.mu.RLock()
	defer r.mu.RUnlock()
	i, _ := r.tree.Get(&Item{Key: key})
	return i
}

// How long, and how many, snapshots are kept for those who page through them.
const (
	pageKeep  = 5 * time.Minute
	pagesKept = 32
)

// Keep keeps a snapshot, true at revision rev, for the pages still to be read.
func (r *Resource) Keep(s *Snapshot, rev int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.pages = slices.DeleteFunc(r.pages, func(p *Snapshot) bool { return p.Rev == rev || now.Sub(p.kept) > pageKeep })
	if len(r.pages) == pagesKept {
		r.pages = r.pages[1:]
	}
	r.pages = append(r.pages, &Snapshot{Rev: rev, tree: s.tree, kept: now})
}

// At answers the resource as it was at revision rev, nil when that is not kept: then etcd may still know.
func (r *Resource) At(rev int64) *Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rev >= r.rev {
		return r.snapshotLocked()
	}
	for _, p := range r.pages {
		if p.Rev == rev {
			return p
		}
	}
	return nil
}

// Len is the number of objects.
func (s *Snapshot) Len() int { return s.tree.Len() }

// Get answers one item, or nil.
func (s *Snapshot) Get(key string) *Item {
	i, _ := s.tree.Get(&Item{Key: key})
	return i
}

// Ascend calls f with every item from key from on, in key order, until it answers false.
func (s *Snapshot) Ascend(from string, f func(*Item) bool) {
	s.tree.Ascend(&Item{Key: from}, f)
}

// Select answers up to limit (0 = all) selected items from key from on; next is the key to go on from, "" at the end.
func (s *Snapshot) Select(sel Selector, from string, limit int) (items []*Item, next string) {
	folder := ""
	if sel.Namespace != "" {
		folder = sel.Namespace + "/"
	}
	if name := sel.name(); name != "" && (folder != "" || s.flat()) {
		if i := s.Get(folder + name); i != nil && i.Key >= from && sel.Matches(i) {
			return []*Item{i}, ""
		}
		return nil, ""
	}
	s.Ascend(max(from, folder), func(i *Item) bool {
		if !strings.HasPrefix(i.Key, folder) {
			return false
		}
		if !sel.Matches(i) {
			return true
		}
		if limit > 0 && len(items) == limit {
			next = i.Key
			return false
		}
		items = append(items, i)
		return true
	})
	return items, next
}

// flat tells that keys are bare names.
func (s *Snapshot) flat() bool {
	i, ok := s.tree.Min()
	return !ok || i.Namespace == ""
}

// Folder answers all items whose key starts with folder, in key order.
func (s *Snapshot) Folder(folder string) []*Item {
	var items []*Item
	s.Ascend(folder, func(i *Item) bool {
		if !strings.HasPrefix(i.Key, folder) {
			return false
		}
		items = append(items, i)
		return true
	})
	return items
}
