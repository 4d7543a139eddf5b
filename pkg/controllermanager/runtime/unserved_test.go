package runtime

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// TestUnserved: a controller of a resource that the apiserver lacks waits for it, says so once, and works when it is there.
func TestUnserved(t *testing.T) {
	var log bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(was)
	synctest.Test(t, func(t *testing.T) {
		var served atomic.Bool
		var asked atomic.Int32
		claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "gpu", ResourceVersion: "1"}}
		source := &cache.ListWatch{
			ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
				if asked.Add(1); !served.Load() {
					return nil, apierrors.NewNotFound(resourcev1.Resource("resourceclaims"), "")
				}
				return &resourcev1.ResourceClaimList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []resourcev1.ResourceClaim{*claim}}, nil
			},
			WatchFuncWithContext: func(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
				if !served.Load() || o.SendInitialEvents != nil {
					return nil, apierrors.NewNotFound(resourcev1.Resource("resourceclaims"), "")
				}
				return watch.NewFake(), nil
			},
		}
		informer := cache.NewSharedIndexInformer(source, claim, 0, cache.Indexers{})
		done := make(chan Key, 1)
		c := &Controller{
			Name: "resourceclaim-controller", Watches: []Watch{{What: "resourceclaims", Informer: informer, Keys: Self}},
			Reconcile: func(_ context.Context, key Key) (time.Duration, error) { done <- key; return 0, nil },
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Run(ctx, []*Controller{c}, func() { go informer.RunWithContext(ctx) }) }()
		time.Sleep(10 * time.Minute)
		if n := asked.Load(); n < 3 {
			t.Errorf("it was asked for %d times in ten minutes", n)
		}
		served.Store(true)
		select {
		case key := <-done:
			if key.String() != "a/gpu" {
				t.Errorf("reconciled %v", key)
			}
		case <-time.After(2 * time.Minute):
			t.Error("the controller does not begin when its resource is served")
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	const want = "the apiserver does not serve a resource"
	if n := strings.Count(log.String(), want); n != 1 {
		t.Errorf("said %d times, not once:\n%s", n, log.String())
	}
}
