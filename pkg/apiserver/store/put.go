package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Create writes a new key and answers its revision, or ErrExists. ttl is in seconds, 0 = for ever.
func (s *Store) Create(ctx context.Context, key string, value []byte, ttl int64) (_ int64, err error) {
	begun := time.Now()
	defer func() { s.count("create", key, begun, err) }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	opts, err := s.lease(ctx, ttl)
	if err != nil {
		return 0, err
	}
	k := s.prefix + key
	sealed, err := s.seal(ctx, key, value)
	if err != nil {
		return 0, err
	}
	r, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(k), "=", 0)).
		Then(clientv3.OpPut(k, sealed, opts...)).
		Commit()
	if err != nil {
		return 0, err
	}
	if !r.Succeeded {
		return 0, ErrExists
	}
	return r.Header.Revision, nil
}

// Update writes a key that stands at revision rev and answers its new revision. If it stands elsewhere the error is
// ErrConflict and current is what is there, or ErrMissing if nothing is.
func (s *Store) Update(ctx context.Context, key string, value []byte, rev, ttl int64) (newRev int64, current KV, err error) {
	begun := time.Now()
	defer func() { s.count("update", key, begun, err) }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	opts, err := s.lease(ctx, ttl)
	if err != nil {
		return 0, KV{}, err
	}
	k := s.prefix + key
	sealed, err := s.seal(ctx, key, value)
	if err != nil {
		return 0, KV{}, err
	}
	r, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(k), "=", rev)).
		Then(clientv3.OpPut(k, sealed, opts...)).
		Else(clientv3.OpGet(k)).
		Commit()
	if err != nil {
		return 0, KV{}, err
	}
	if r.Succeeded {
		return r.Header.Revision, KV{}, nil
	}
	current, err = s.lost(ctx, key, r)
	return 0, current, err
}

// Delete removes a key that stands at revision rev and answers the revision of the removal. The errors are Update's.
func (s *Store) Delete(ctx context.Context, key string, rev int64) (delRev int64, current KV, err error) {
	begun := time.Now()
	defer func() { s.count("delete", key, begun, err) }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	k := s.prefix + key
	r, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(k), "=", rev)).
		Then(clientv3.OpDelete(k)).
		Else(clientv3.OpGet(k)).
		Commit()
	if err != nil {
		return 0, KV{}, err
	}
	if r.Succeeded {
		return r.Header.Revision, KV{}, nil
	}
	current, err = s.lost(ctx, key, r)
	return 0, current, err
}

// Put writes a key whatever stands there. ttl is in seconds, 0 = for ever.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	opts, err := s.lease(ctx, ttl)
	if err != nil {
		return err
	}
	sealed, err := s.seal(ctx, key, value)
	if err != nil {
		return err
	}
	_, err = s.client.Put(ctx, s.prefix+key, sealed, opts...)
	return err
}

// Drop removes a key whatever stands there.
func (s *Store) Drop(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := s.client.Delete(ctx, s.prefix+key)
	return err
}

// lost reads what a failed comparison found instead.
func (s *Store) lost(ctx context.Context, key string, r *clientv3.TxnResponse) (KV, error) {
	kvs := r.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return KV{}, ErrMissing
	}
	value, _, err := s.open(ctx, key, kvs[0].Value)
	if err != nil {
		return KV{}, err
	}
	return KV{Key: key, Value: value, Rev: kvs[0].ModRevision}, ErrConflict
}

// lease grants an etcd lease for a value that is to vanish by itself.
func (s *Store) lease(ctx context.Context, ttl int64) ([]clientv3.OpOption, error) {
	if ttl <= 0 {
		return nil, nil
	}
	l, err := s.client.Grant(ctx, ttl)
	if err != nil {
		return nil, fmt.Errorf("granting a lease of %d s: %w", ttl, err)
	}
	return []clientv3.OpOption{clientv3.WithLease(l.ID)}, nil
}
