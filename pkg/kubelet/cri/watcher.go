package cri

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

// Relist periods: with events flowing the relist only repairs what a lost event left behind.
const (
	relistWithEvents    = 30 * time.Second
	relistWithoutEvents = time.Second
)

// Pod is one pod as the runtime knows it, by the labels of its sandboxes and containers.
type Pod struct {
	UID, Namespace, Name string
	// Grace is what its containers were to be given to end, in seconds, if any of them says so.
	Grace *int64
}

// Watcher calls Wake with the UID of every pod of which a sandbox or container ended, and, later, of every pod that changed.
type Watcher struct {
	Client *Client
	// Wake must not block.
	Wake func(uid string)
	// Seen is called after each successful relist with every pod in the runtime; it must not block. It answers whether
	// the next relist should come soon.
	Seen    func([]Pod) bool
	Log     *slog.Logger
	Metrics *metrics.Set

	mu      sync.Mutex
	healthy time.Time
	events  bool
}

// Healthy is when the runtime last answered a relist or sent an event.
func (w *Watcher) Healthy() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.healthy
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { w.stream(ctx) })
	w.relist(ctx)
	wg.Wait()
	return nil
}

func (w *Watcher) stream(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.follow(ctx)
		w.setEvents(false)
		if status.Code(err) == codes.Unimplemented {
			w.Log.Info("the runtime has no container events; listing every second instead")
			return
		}
		if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
			w.Log.Debug("container events ended", "err", err)
		}
		sleep(ctx, time.Second)
	}
}

func (w *Watcher) follow(ctx context.Context) error {
	s, err := w.Client.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return err
	}
	// An old runtime answers Unimplemented only at the first Recv, so events count as flowing when one came,
	// or when the stream has stood for a second.
	t := time.AfterFunc(time.Second, func() {
		if s.Context().Err() == nil {
			w.setEvents(true)
		}
	})
	defer t.Stop()
	w.Metrics.Streamed(true)
	for {
		e, err := s.Recv()
		if err != nil {
			t.Stop()
			w.Metrics.Streamed(false)
			return err
		}
		w.Metrics.Event(time.Since(time.Unix(0, e.GetCreatedAt())))
		w.setEvents(true)
		// What is made and started is so by ourselves, who look when it is done: only ends come unasked.
		switch m := e.GetPodSandboxStatus().GetMetadata(); e.GetContainerEventType() {
		case runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT:
			if m != nil {
				w.Wake(m.Uid)
			}
		}
	}
}

func (w *Watcher) setEvents(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = on
	if on {
		w.healthy = time.Now()
	}
}

func (w *Watcher) relist(ctx context.Context) {
	old := map[string]string{}
	var last time.Time
	soon := false
	for ctx.Err() == nil {
		w.mu.Lock()
		every := relistWithoutEvents
		if w.events && !soon {
			every = relistWithEvents
		}
		w.mu.Unlock()
		if time.Since(last) >= every {
			begun, since := time.Now(), time.Duration(0)
			if !last.IsZero() {
				since = begun.Sub(last)
			}
			now, pods, err := w.list(ctx)
			if err == nil {
				last = time.Now()
				w.Metrics.Relisted(last.Sub(begun), since)
				w.mu.Lock()
				w.healthy = last
				w.mu.Unlock()
				for uid, state := range now {
					if old[uid] != state {
						w.Wake(uid)
					}
				}
				for uid := range old {
					if _, ok := now[uid]; !ok {
						w.Wake(uid)
					}
				}
				old = now
				soon = w.Seen(pods)
			} else if ctx.Err() == nil {
				w.Log.Debug("listing containers", "err", err)
			}
		}
		sleep(ctx, time.Second)
	}
}

// list is the state of every pod as one comparable text.
func (w *Watcher) list(ctx context.Context) (map[string]string, []Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	sandboxes, err := w.Client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, nil, err
	}
	containers, err := w.Client.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, nil, err
	}
	out, pods := map[string]string{}, []Pod{}
	graces := map[string]*int64{}
	add := func(labels map[string]string, id, state string) {
		uid := labels[LabelPodUID]
		if uid == "" {
			return
		}
		if _, ok := out[uid]; !ok {
			pods = append(pods, Pod{UID: uid, Namespace: labels[LabelPodNamespace], Name: labels[LabelPodName]})
		}
		out[uid] += id + state
	}
	for _, s := range sandboxes.Items {
		add(s.Labels, s.Id, s.State.String())
	}
	for _, c := range containers.Containers {
		add(c.Labels, c.Id, c.State.String())
		if n, err := strconv.ParseInt(c.Annotations[AnnotationGrace], 10, 64); err == nil {
			graces[c.Labels[LabelPodUID]] = &n
		}
	}
	for i := range pods {
		pods[i].Grace = graces[pods[i].UID]
	}
	return out, pods, nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
