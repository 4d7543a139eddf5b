package runtime

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// Written remembers what a controller wrote of its own objects and its cache has not shown yet: a decision on an older
// state would be one on what is no longer so.
type Written struct {
	mu    sync.Mutex
	byKey map[Key]string // resource versions
}

// Wrote says that an object was written and came back as this.
func (w *Written) Wrote(obj metav1.Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey == nil {
		w.byKey = map[Key]string{}
	}
	w.byKey[KeyOf(obj)] = obj.GetResourceVersion()
}

// Behind tells whether a cached object is older than what was written.
func (w *Written) Behind(cached metav1.Object) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, ok := w.byKey[KeyOf(cached)]
	if !ok {
		return false
	}
	if c, err := resourceversion.CompareResourceVersion(cached.GetResourceVersion(), was); err == nil && c < 0 {
		return true
	}
	delete(w.byKey, KeyOf(cached))
	return false
}

// Forget drops what is remembered of an object that is gone.
func (w *Written) Forget(key Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byKey, key)
}
