package store

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// compactKey is where all apiservers of an etcd agree on who compacts; its version is the logical time.
const compactKey = "compact_rev_key"

// Compact forgets history older than one interval, once per interval and among all apiservers on the same etcd, until
// ctx ends. It is level: a missed turn is made up by the next.
func (s *Store) Compact(ctx context.Context, interval time.Duration) error {
	if interval <= 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	var turn, rev int64
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(interval):
		}
		var err error
		if turn, rev, err = s.compactOnce(ctx, turn, rev); err != nil && ctx.Err() == nil {
			slog.Warn("etcd compaction failed, trying again next interval", "err", err)
		}
	}
}

// compactOnce takes the next turn if no other server has, and compacts to what was current one turn ago.
func (s *Store) compactOnce(ctx context.Context, turn, rev int64) (nextTurn, nextRev int64, err error) {
	r, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.Version(compactKey), "=", turn)).
		Then(clientv3.OpPut(compactKey, strconv.FormatInt(rev, 10))).
		Else(clientv3.OpGet(compactKey)).
		Commit()
	if err != nil {
		return turn, rev, err
	}
	if !r.Succeeded {
		kvs := r.Responses[0].GetResponseRange().Kvs
		if len(kvs) == 0 {
			return 0, r.Header.Revision, nil
		}
		if to, err := strconv.ParseInt(string(kvs[0].Value), 10, 64); err == nil {
			s.forget(to)
		}
		return kvs[0].Version, r.Header.Revision, nil
	}
	if rev > 0 {
		if _, err := s.client.Compact(ctx, rev); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
			return turn + 1, r.Header.Revision, err
		}
		s.forget(rev)
	}
	return turn + 1, r.Header.Revision, nil
}

func (s *Store) forget(rev int64) {
	for at := s.forgotten.Load(); at < rev && !s.forgotten.CompareAndSwap(at, rev); at = s.forgotten.Load() {
	}
}

// Forgotten tells whether a revision is older than what the compactions of this etcd's servers left.
func (s *Store) Forgotten(rev int64) bool { return rev < s.forgotten.Load() }
