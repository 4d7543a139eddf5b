package runtime

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Key names what a controller reconciles.
type Key struct{ Namespace, Name string }

// String is the key as logs show it.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// KeyOf is the key of an object.
func KeyOf(obj metav1.Object) Key { return Key{obj.GetNamespace(), obj.GetName()} }

// Watch is one source of keys.
type Watch struct {
	What     string // the resource, as the graph names it: "replicasets"
	Informer cache.SharedIndexInformer
	// Keys answers whom an object concerns. old is nil but for updates; for a deletion obj is the last state known.
	Keys func(old, obj metav1.Object) []Key
	// Optional is a resource that an older apiserver may lack: nobody waits for it.
	Optional bool
	// NotNew leaves out objects that appeared: they concern nobody.
	NotNew bool
	// Born and Gone, if set, are called before Keys for an object that appeared or disappeared.
	Born, Gone func(obj metav1.Object)
}

// Controller is one controller.
type Controller struct {
	Name    string // upstream's: "deployment-controller"
	For     string // one line: what it is for
	Account string // upstream's service account in kube-system whose role it acts by; "" is the daemon's own
	Queue   string // upstream's name of its queue in metrics, "" = Name
	Off     bool   // it runs only if it is named: "*" does not mean it
	Watches []Watch
	Writes  []string // resources it changes
	Workers int      // 0 = 5
	// LastRetry is the longest delay of a key that fails again and again; 0 = 1000 s.
	LastRetry time.Duration
	// Every, if set, enqueues All at this interval besides events.
	Every time.Duration
	// Start, if set, runs beside the workers until ctx ends, for sources that come and go. It must return when ctx ends.
	Start func(ctx context.Context, enqueue func(Key))
	// Reconcile makes what a key names as it should be. again > 0 asks to be called again after that time.
	Reconcile func(ctx context.Context, key Key) (again time.Duration, err error)
}

// Self maps an object to its own key.
func Self(_, obj metav1.Object) []Key { return []Key{KeyOf(obj)} }

// Owner maps an object to its controlling owner of a kind, before and after a change.
func Owner(kind string) func(old, obj metav1.Object) []Key {
	return func(old, obj metav1.Object) []Key {
		var keys []Key
		for _, o := range []metav1.Object{obj, old} {
			if o == nil {
				continue
			}
			if ref := metav1.GetControllerOf(o); ref != nil && ref.Kind == kind {
				k := Key{o.GetNamespace(), ref.Name}
				if len(keys) == 0 || keys[0] != k {
					keys = append(keys, k)
				}
			}
		}
		return keys
	}
}

// Everything is the key of controllers that look at all there is at once.
var Everything = []Key{{Name: "all"}}

// All maps every event to the one key Everything.
func All(_, _ metav1.Object) []Key { return Everything }

// Graph prints who reads and writes what.
func Graph(w io.Writer, list []*Controller) {
	for _, c := range list {
		var reads []string
		for _, x := range c.Watches {
			reads = append(reads, x.What)
		}
		if len(reads) == 0 {
			reads = []string{"everything that discovery knows"}
		}
		fmt.Fprintf(w, "%s: %s\n    as     %s\n    reads  %s\n    writes %s\n", c.Name, c.For, cmp.Or(c.Account, "the daemon"), strings.Join(reads, ", "), strings.Join(c.Writes, ", "))
	}
}
