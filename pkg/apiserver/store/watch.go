package store

import (
	"context"
	"fmt"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// Change is one key written or removed.
type Change struct {
	KV      // for a removal, Value is empty and Rev that of the removal
	Deleted bool
}

// Batch is what one watch response brought: changes in order, and the revision everything up to which has now been
// told (also without changes: progress).
type Batch struct {
	Changes []Change
	Rev     int64
	// Answer is set when the batch answers Ask.
	Answer bool
}

// Watch is one stream of every change below the prefix. One goroutine calls Next; Ask and Close may be called by any.
//
// It speaks etcd's stream itself rather than through the client's watcher: one stream has one reader here, so nothing
// has to be handed from goroutine to goroutine, and Ask knows which answer is its own.
type Watch struct {
	s      *Store
	stream etcdserverpb.Watch_WatchClient
	cancel context.CancelFunc
	after  int64 // what is not newer was told before

	mu    sync.Mutex // of sending
	asked int
}

// Watch starts to follow every change after revision rev. Next ends with an error when etcd cannot continue.
func (s *Store) Watch(ctx context.Context, rev int64) (*Watch, error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	stream, err := etcdserverpb.NewWatchClient(s.client.ActiveConnection()).Watch(ctx, grpc.MaxCallRecvMsgSize(1<<30))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("opening a watch: %w", err)
	}
	w := &Watch{s: s, stream: stream, cancel: cancel, after: rev}
	// etcd tells no progress to a watch that starts in the future, so this one starts at what is known already.
	err = stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{CreateRequest: &etcdserverpb.WatchCreateRequest{
		Key: []byte(s.prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(s.prefix)), StartRevision: rev, ProgressNotify: true, Fragment: true,
	}}})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("opening a watch: %w", err)
	}
	return w, nil
}

// Close ends the stream; Next then fails.
func (w *Watch) Close() { w.cancel() }

// Next waits for what comes next. A start that etcd has compacted is rpctypes.ErrCompacted; one that etcd has not reached,
// because it lost what it had, is ErrRewound.
func (w *Watch) Next() (Batch, error) {
	for {
		r, err := w.stream.Recv()
		switch {
		case err != nil:
			return Batch{}, fmt.Errorf("following etcd: %w", err)
		case r.CompactRevision != 0:
			return Batch{}, rpctypes.ErrCompacted
		case r.Canceled:
			return Batch{}, fmt.Errorf("etcd ended the watch: %s", r.CancelReason)
		case r.Created && r.Header.Revision < w.after:
			return Batch{}, ErrRewound
		case r.Created:
			continue // its header runs ahead of what it has told
		case len(r.Events) == 0:
			return Batch{Rev: r.Header.Revision, Answer: r.WatchId == clientv3.InvalidWatchID}, nil
		}
		b, err := w.batch(r)
		if err != nil {
			return Batch{}, err
		}
		if len(b.Changes) > 0 {
			return b, nil
		}
	}
}

func (w *Watch) batch(r *etcdserverpb.WatchResponse) (Batch, error) {
	b := Batch{Changes: make([]Change, 0, len(r.Events))}
	for _, e := range r.Events {
		if e.Kv.ModRevision <= w.after {
			continue
		}
		c := Change{
			KV:      KV{Key: string(e.Kv.Key[len(w.s.prefix):]), Value: e.Kv.Value, Rev: e.Kv.ModRevision},
			Deleted: e.Type == mvccpb.Event_DELETE,
		}
		if !c.Deleted {
			var err error
			if c.Value, err = w.s.openOne(w.stream.Context(), c.Key, c.Value); err != nil {
				return Batch{}, err
			}
		}
		b.Changes = append(b.Changes, c)
		b.Rev = e.Kv.ModRevision
	}
	if r.Fragment {
		b.Rev-- // the rest of a transaction may be in the next part
	}
	return b, nil
}

// progress is the one question there is.
var progress = &etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_ProgressRequest{ProgressRequest: &etcdserverpb.WatchProgressRequest{}}}

// Ask makes etcd tell how far the watch is and answers how many times it has been asked: the batch that is the so-manieth
// Answer was made after this question came in. etcd leaves a question out while it is busy catching the watch up, so the
// answer may also never come.
func (w *Watch) Ask() (nth int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.stream.Send(progress); err != nil {
		return 0, fmt.Errorf("asking etcd for progress: %w", err)
	}
	w.asked++
	return w.asked, nil
}

// Alone tells whether etcd is one member. An answer to Ask then holds for every write that was acknowledged before the
// question: no other member can have acknowledged one.
func (s *Store) Alone(ctx context.Context) bool {
	r, err := s.client.MemberList(ctx)
	return err == nil && len(r.Members) == 1
}

// Ordered tells whether etcd's answers to Ask are known to keep their place among the events; those of old versions could
// overtake.
func (s *Store) Ordered(ctx context.Context) bool {
	for _, e := range s.client.Endpoints() {
		if st, err := s.client.Status(ctx, e); err == nil {
			return ordered(st.Version)
		}
	}
	return false
}

func ordered(version string) bool {
	var major, minor, patch int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return false
	}
	switch {
	case major != 3:
		return major > 3
	case minor == 4:
		return patch >= 31
	case minor == 5:
		return patch >= 13
	}
	return minor > 5
}
