package runtime

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Patience is how long the cache is given to show what was written: then what it shows counts, and should be looked at again.
const Patience = 5 * time.Minute

// Expectations remember what a controller wrote and its cache has not shown yet, so that it does not write it twice.
type Expectations struct {
	mu    sync.Mutex
	byKey map[Key]*expected
}

type expected struct {
	creates int
	deletes map[types.UID]bool
	since   time.Time
}

// Met tells whether the cache shows everything the controller did for a key.
func (e *Expectations) Met(key Key, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.byKey[key]
	if x == nil {
		return true
	}
	if x.creates <= 0 && len(x.deletes) == 0 || now.Sub(x.since) > Patience {
		delete(e.byKey, key)
		return true
	}
	return false
}

func (e *Expectations) at(key Key) *expected {
	if e.byKey == nil {
		e.byKey = map[Key]*expected{}
	}
	x := e.byKey[key]
	if x == nil {
		x = &expected{deletes: map[types.UID]bool{}}
		e.byKey[key] = x
	}
	return x
}

// Creates says that n objects are about to be created.
func (e *Expectations) Creates(key Key, n int, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.at(key)
	x.creates, x.since = x.creates+n, now
}

// Created says that the cache showed a new object, or that n of those announced will not come.
func (e *Expectations) Created(key Key, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.byKey[key]; x != nil {
		x.creates -= n
	}
}

// Deletes says that an object is about to be deleted.
func (e *Expectations) Deletes(key Key, uid types.UID, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.at(key)
	x.deletes[uid], x.since = true, now
}

// Deleted says that the cache showed the deletion, or that it will not come.
func (e *Expectations) Deleted(key Key, uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.byKey[key]; x != nil {
		delete(x.deletes, uid)
	}
}

// Leaving answers the objects whose deletion was asked for and is not in the cache yet.
func (e *Expectations) Leaving(key Key) map[types.UID]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.byKey[key]; x != nil {
		return maps.Clone(x.deletes)
	}
	return nil
}
