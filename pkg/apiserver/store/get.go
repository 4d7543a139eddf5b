package store

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Get reads one key as of now; a missing key is ErrMissing.
func (s *Store) Get(ctx context.Context, key string) (_ KV, err error) {
	begun := time.Now()
	defer func() { s.count("get", key, begun, err) }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := s.client.Get(ctx, s.prefix+key)
	if err != nil {
		return KV{}, err
	}
	if len(r.Kvs) == 0 {
		return KV{}, ErrMissing
	}
	value, _, err := s.open(ctx, key, r.Kvs[0].Value)
	return KV{Key: key, Value: value, Rev: r.Kvs[0].ModRevision}, err
}

// Page is a part of a list, in key order.
type Page struct {
	KVs  []KV
	Rev  int64 // of the read
	More bool
	Left int64 // keys after this page
}

// List reads up to limit (0 = all) keys that start with folder, from key from on ("" = the first), as they were at
// revision rev (0 = now). A revision that etcd has compacted is rpctypes.ErrCompacted.
func (s *Store) List(ctx context.Context, folder, from string, rev, limit int64) (_ Page, err error) {
	begun := time.Now()
	defer func() { s.count("list", folder, begun, err) }()
	start, end := s.prefix+folder, clientv3.GetPrefixRangeEnd(s.prefix+folder)
	if from != "" {
		start = s.prefix + from
	}
	r, err := s.client.Get(ctx, start, clientv3.WithRange(end), clientv3.WithRev(rev), clientv3.WithLimit(limit))
	if err != nil {
		return Page{}, err
	}
	p := Page{KVs: make([]KV, len(r.Kvs)), Rev: r.Header.Revision, More: r.More, Left: r.Count - int64(len(r.Kvs))}
	if rev > 0 {
		p.Rev = rev
	}
	for i, kv := range r.Kvs {
		key := string(kv.Key[len(s.prefix):])
		value, err := s.openOne(ctx, key, kv.Value)
		if err != nil {
			return Page{}, err
		}
		p.KVs[i] = KV{Key: key, Value: value, Rev: kv.ModRevision}
	}
	return p, nil
}
