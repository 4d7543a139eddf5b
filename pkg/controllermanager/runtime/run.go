package runtime

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// The delays of a key that fails: 5 ms doubling to 1000 s, as upstream's, unless a controller says how long at most.
const (
	firstRetry = 5 * time.Millisecond
	lastRetry  = 1000 * time.Second
	workers    = 5
	// quiet is how often a key may fail before it is worth a warning, 155 ms in all. A lost race is the ordinary way of the
	// world, since the newer object is on its way through the cache; so is a namespace whose service account is being made.
	quiet = 5
)

// Run runs controllers until ctx ends, and returns when every worker has. Informers must have been started, or be
// started by the caller after start is called: it is called when every handler has been added.
func Run(ctx context.Context, list []*Controller, start func()) error {
	var wg sync.WaitGroup
	running := make([]*running, 0, len(list))
	for _, c := range list {
		r, err := add(c)
		if err != nil {
			return err
		}
		running = append(running, r)
	}
	start()
	for _, r := range running {
		wg.Go(func() { r.run(ctx) })
	}
	wg.Wait()
	return ctx.Err()
}

// running is a controller with its queue.
type running struct {
	*Controller
	queue  workqueue.TypedRateLimitingInterface[Key]
	synced []cache.InformerSynced
}

func add(c *Controller) (*running, error) {
	r := &running{Controller: c, queue: workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[Key](firstRetry, cmp.Or(c.LastRetry, lastRetry)),
		workqueue.TypedRateLimitingQueueConfig[Key]{Name: cmp.Or(c.Queue, c.Name)},
	)}
	for _, w := range c.Watches {
		if err := heed(c.Name, w); err != nil {
			return nil, err
		}
		reg, err := w.Informer.AddEventHandler(r.handler(w))
		if err != nil {
			return nil, fmt.Errorf("%s: watching %s: %w", c.Name, w.What, err)
		}
		if !w.Optional {
			r.synced = append(r.synced, reg.HasSynced)
		}
	}
	return r, nil
}

// handler turns events into keys.
func (r *running) handler(w Watch) cache.ResourceEventHandler {
	enqueue := func(old, obj metav1.Object) {
		for _, k := range w.Keys(old, obj) {
			r.queue.Add(k)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			o := obj.(metav1.Object)
			if w.Born != nil {
				w.Born(o)
			}
			if !w.NotNew {
				enqueue(nil, o)
			}
		},
		UpdateFunc: func(old, obj any) {
			if o, n := old.(metav1.Object), obj.(metav1.Object); o.GetResourceVersion() != n.GetResourceVersion() {
				enqueue(o, n)
			}
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if o, ok := obj.(metav1.Object); ok && !reflect.ValueOf(o).IsNil() {
				if w.Gone != nil {
					w.Gone(o)
				}
				enqueue(nil, o)
			}
		},
	}
}

func (r *running) run(ctx context.Context) {
	if !cache.WaitForCacheSync(ctx.Done(), r.synced...) {
		return
	}
	slog.Debug("controller started", "controller", r.Name)
	if r.Account != "" {
		ctx = As(ctx, r.Account)
	}
	var wg sync.WaitGroup
	n := r.Workers
	if n == 0 {
		n = workers
	}
	for range n {
		wg.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	if r.Every > 0 {
		wg.Go(func() {
			tick := time.NewTicker(r.Every)
			defer tick.Stop()
			for {
				r.queue.Add(Everything[0])
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	if r.Start != nil {
		wg.Go(func() { r.Start(ctx, r.queue.Add) })
	}
	<-ctx.Done()
	r.queue.ShutDown()
	wg.Wait()
}

// next works on one key.
func (r *running) next(ctx context.Context) bool {
	key, quit := r.queue.Get()
	if quit {
		return false
	}
	defer r.queue.Done(key)
	if ctx.Err() != nil {
		return false
	}
	again, err := r.reconcile(ctx, key)
	observe(r.Name, err)
	switch {
	case err != nil && ctx.Err() == nil:
		level, tries := slog.LevelWarn, r.queue.NumRequeues(key)
		if LostRace(err) || tries < quiet {
			level = slog.LevelDebug
		}
		slog.Log(ctx, level, "reconcile failed, trying again", "controller", r.Name, "key", key.String(), "tries", tries, "err", err)
		r.queue.AddRateLimited(key)
	case again > 0:
		r.queue.Forget(key)
		r.queue.AddAfter(key, again)
	default:
		r.queue.Forget(key)
	}
	return true
}

// reconcile keeps a panic to the key that caused it.
func (r *running) reconcile(ctx context.Context, key Key) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("reconcile panicked", "controller", r.Name, "key", key.String(), "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return r.Reconcile(ctx, key)
}

// LostRace tells whether a write failed because the object had changed, was there or was gone: the news is on its way
// through the cache and the key is tried again, so nobody needs to hear of it.
func LostRace(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}
