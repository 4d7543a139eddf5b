// Package store is the apiserver's way to etcd: the same keys and the same value format as upstream's, one file per verb.
//
// The flow: a verb makes one etcd transaction, guarded by the key's mod revision where it changes something, and answers
// the revision etcd gave it, or an error within patience. Values go in and out as they lie in etcd; their envelope is in
// value.go. Watch is one stream of everything below the prefix, so all resources share one order and one clock. A Store may
// be used by any number of goroutines; it holds no state but the client's connection, and up to
// which revision etcd was seen to forget.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Errors of the verbs. Anything else is etcd's or the network's.
var (
	ErrExists   = errors.New("key exists")
	ErrMissing  = errors.New("key does not exist")
	ErrConflict = errors.New("key was changed by another")
	ErrRewound  = errors.New("etcd is at an older revision than it was")
)

// Config says where etcd is.
type Config struct {
	Endpoints []string
	TLS       *tls.Config // nil = plain
	// Prefix is the root of all keys, "/registry" unless told.
	Prefix string
	// Dial, if set, is how etcd is reached.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Store reads and writes etcd.
type Store struct {
	client *clientv3.Client
	prefix string // with a trailing slash
	cipher Cipher // nil = values lie in etcd as they are
	name   func(key string) (group, resource string, ok bool)
	series sync.Map // *series by seriesKey
	// forgotten is what compactions of this server or another left as the oldest revision; 0 = none was seen.
	forgotten atomic.Int64
}

// KV is one stored value.
type KV struct {
	Key   string // below the prefix: "pods/default/web"
	Value []byte // as stored
	Rev   int64  // mod revision = resourceVersion
}

// New connects; it does not wait for etcd to answer.
func New(c Config) (*Store, error) {
	if c.Prefix == "" {
		c.Prefix = "/registry"
	}
	options := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			// etcd back after an outage is found within a second, not after grpc's two minutes.
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		// Fixed windows: grpc would else send pings to measure the path, a round trip more per small answer.
		grpc.WithStaticStreamWindowSize(4 << 20), grpc.WithStaticConnWindowSize(16 << 20),
	}
	if c.Dial != nil {
		options = append(options, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			if _, host, ok := strings.Cut(address, "://"); ok {
				address = host
			}
			return c.Dial(ctx, "tcp", address)
		}))
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            c.Endpoints,
		TLS:                  c.TLS,
		DialTimeout:          20 * time.Second,
		DialKeepAliveTime:    30 * time.Second,
		DialKeepAliveTimeout: 10 * time.Second,
		MaxCallRecvMsgSize:   1 << 30,
		Logger:               zap.NewNop(),
		DialOptions:          options,
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd at %s: %w", strings.Join(c.Endpoints, ","), err)
	}
	return &Store{client: client, prefix: strings.TrimSuffix(c.Prefix, "/") + "/"}, nil
}

// Close ends the connection and every watch.
func (s *Store) Close() error { return s.client.Close() }

// Endpoints are etcd's addresses.
func (s *Store) Endpoints() []string { return s.client.Endpoints() }

// Path is a key as it stands in etcd, for messages.
func (s *Store) Path(key string) string { return s.prefix + key }

// patience bounds every verb. An etcd that needs longer has lost its leader or its disk; whoever asks is better told than
// left waiting, and a place among the requests being served is better given to another.
const patience = 5 * time.Second

// Ping answers nil when etcd answers a linearizable read.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := s.client.Get(ctx, s.prefix+"health")
	return err
}

// Revision answers the revision of etcd as of a linearizable read: every write that was acknowledged before the call is
// at or below it.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := s.client.Get(ctx, s.prefix+"health", clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return r.Header.Revision, nil
}

// DBSize answers the size of the backend of the first endpoint that tells it, in bytes.
func (s *Store) DBSize(ctx context.Context) (int64, error) {
	var last error
	for _, e := range s.client.Endpoints() {
		st, err := s.client.Status(ctx, e)
		if err == nil {
			return st.DbSize, nil
		}
		last = err
	}
	return 0, last
}
