package store

import (
	"context"
	"log/slog"
	"unsafe"
)

// Cipher seals values on their way to etcd and opens them on their way back. key is below the prefix, path the whole key.
type Cipher interface {
	Seal(ctx context.Context, key, path string, plain []byte) ([]byte, error)
	// Open answers a value; stale tells that it should be written again, wait that an error may pass by itself.
	Open(ctx context.Context, key, path string, stored []byte) (plain []byte, stale, wait bool, err error)
	// Sealed tells whether values of the key are, or may be, encrypted.
	Sealed(key string) bool
}

// Use sets who seals and opens, before the first call.
func (s *Store) Use(c Cipher) { s.cipher = c }

// seal answers a value as it is sent to etcd. It may share plain's memory: a value never changes once it is to be written.
func (s *Store) seal(ctx context.Context, key string, plain []byte) (string, error) {
	b := plain
	if s.cipher != nil {
		var err error
		if b, err = s.cipher.Seal(ctx, key, s.prefix+key, plain); err != nil {
			return "", err
		}
	}
	return unsafe.String(unsafe.SliceData(b), len(b)), nil
}

// open opens one value.
func (s *Store) open(ctx context.Context, key string, stored []byte) (plain []byte, stale bool, err error) {
	if s.cipher == nil {
		return stored, false, nil
	}
	plain, stale, _, err = s.cipher.Open(ctx, key, s.prefix+key, stored)
	return plain, stale, err
}

// openOne opens one of many values. One that nobody can open stays as it is, so that it costs none but itself; one that
// may be opened later is an error.
func (s *Store) openOne(ctx context.Context, key string, stored []byte) ([]byte, error) {
	if s.cipher == nil {
		return stored, nil
	}
	plain, _, wait, err := s.cipher.Open(ctx, key, s.prefix+key, stored)
	if err == nil || wait {
		return plain, err
	}
	slog.Error("a stored object cannot be decrypted", "key", key, "err", err)
	return stored, nil
}

// Stale tells whether a key's value should be written again although nothing in it changes: it is sealed with a key or in
// a way that is no longer the first.
func (s *Store) Stale(ctx context.Context, key string) bool {
	if s.cipher == nil || !s.cipher.Sealed(key) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := s.client.Get(ctx, s.prefix+key)
	if err != nil || len(r.Kvs) == 0 {
		return false
	}
	_, stale, err := s.open(ctx, key, r.Kvs[0].Value)
	return err == nil && stale
}
