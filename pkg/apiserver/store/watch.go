package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
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
}

// Watch tells every change below the prefix after revision rev, in order, until ctx ends or etcd cannot continue; it
// calls each on the caller's goroutine and returns why it ended. A revision that etcd has compacted is
// rpctypes.ErrCompacted.
func (s *Store) Watch(ctx context.Context, rev int64, each func(Batch)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for r := range s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1), clientv3.WithProgressNotify(), clientv3.WithFragment()) {
		if err := r.Err(); err != nil {
			return err
		}
		if len(r.Events) == 0 && !r.IsProgressNotify() {
			continue // the watch was created: its header runs ahead of what it has told
		}
		b := Batch{Rev: r.Header.Revision, Changes: make([]Change, 0, len(r.Events))}
		for _, e := range r.Events {
			b.Changes = append(b.Changes, Change{
				KV:      KV{Key: string(e.Kv.Key[len(s.prefix):]), Value: e.Kv.Value, Rev: e.Kv.ModRevision},
				Deleted: e.Type == mvccpb.DELETE,
			})
		}
		if len(b.Changes) > 0 {
			// A response may be a fragment, or lag behind its header: only its own last event is certain.
			b.Rev = b.Changes[len(b.Changes)-1].Rev
		}
		each(b)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New("etcd closed the watch")
}

// AskProgress makes etcd tell the watch how far it is, soon.
func (s *Store) AskProgress(ctx context.Context) error {
	if err := s.client.RequestProgress(clientv3.WithRequireLeader(ctx)); err != nil {
		return fmt.Errorf("asking etcd for progress: %w", err)
	}
	return nil
}
