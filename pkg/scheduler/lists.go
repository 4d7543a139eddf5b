package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// need is something that must be known of the cluster before any pod gets its node.
type need struct {
	what string
	had  func() bool // whether it is known

	mu  sync.Mutex
	err error // what the last try met
}

func (n *need) met(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
}

func (n *need) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		return n.what + ": no answer yet"
	}
	return fmt.Sprintf("%s: %v", n.what, n.err)
}

// await adds to what is waited for.
func (s *Scheduler) await(n *need) {
	s.needing.Lock()
	defer s.needing.Unlock()
	s.needs = append(s.needs, n)
}

// missing tells what is waited for, and why it is not there.
func (s *Scheduler) missing() string {
	s.needing.Lock()
	defer s.needing.Unlock()
	var out []string
	for _, n := range s.needs {
		if !n.had() {
			out = append(out, n.String())
		}
	}
	return strings.Join(out, "; ")
}

// tellMissing says what is waited for, soon and then every minute, until everything is there.
func (s *Scheduler) tellMissing(ctx context.Context) {
	for patience := 5 * time.Second; ; patience = time.Minute {
		select {
		case <-ctx.Done():
			return
		case <-time.After(patience):
		}
		if s.synced.Load() {
			return
		}
		slog.Warn("no pod gets its node before these are listed; see what this scheduler may and what the apiserver serves", "missing", s.missing())
	}
}

// listed answers how to list and watch a resource, with what that meets told to n.
func listed(client rest.Interface, resource string, selector fields.Selector, n *need) *cache.ListWatch {
	lw := cache.NewListWatchFromClient(client, resource, metav1.NamespaceAll, selector)
	list, follow := lw.ListWithContextFunc, lw.WatchFuncWithContext
	lw.ListWithContextFunc = func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		obj, err := list(ctx, options)
		n.met(err)
		return obj, err
	}
	lw.WatchFuncWithContext = func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		w, err := follow(ctx, options)
		n.met(err)
		return w, err
	}
	return lw
}

// served asks until it is known which resources of a group and version the cluster serves; none, if it keeps that from us.
func (s *Scheduler) served(ctx context.Context, group schema.GroupVersion) map[string]bool {
	var known atomic.Bool
	n := &need{what: group.String(), had: known.Load}
	s.await(n)
	for ctx.Err() == nil {
		raw, err := s.resource.RESTClient().Get().AbsPath("/apis", group.Group, group.Version).SetHeader("Accept", "application/json").DoRaw(ctx)
		list := metav1.APIResourceList{}
		if err == nil {
			err = json.Unmarshal(raw, &list)
		}
		if n.met(err); err == nil || apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			if apierrors.IsForbidden(err) {
				slog.Warn("the cluster keeps from us whether it serves a group; pods are scheduled as if it did not", "group", group, "error", err)
			}
			known.Store(true)
			out := map[string]bool{}
			for _, r := range list.APIResources {
				out[r.Name] = true
			}
			return out
		}
		slog.Warn("ask what the cluster serves", "group", group, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}
