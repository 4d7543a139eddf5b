package engine_test

import (
	"context"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// quiet is an etcd in which a few keys lie that nobody changes, at one revision, but for what a test has it tell. It answers reads;
// what would write is refused. Unlike a real one it starts at once and does nothing of its own, so that what a fuzzer sees
// run is what its input made run.
type quiet struct {
	etcdserverpb.UnimplementedKVServer
	etcdserverpb.UnimplementedWatchServer
	keys map[string][]byte
	told <-chan *mvccpb.KeyValue // writes; nil = none
}

// It is at a revision, and what was before another is gone.
const (
	quietRevision  = 1000
	quietCompacted = 100
)

var quietHeader = &etcdserverpb.ResponseHeader{ClusterId: 1, MemberId: 1, Revision: quietRevision}

func (q *quiet) Range(_ context.Context, r *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	switch {
	case r.Revision > quietRevision:
		return nil, rpctypes.ErrGRPCFutureRev
	case r.Revision > 0 && r.Revision < quietCompacted:
		return nil, rpctypes.ErrGRPCCompacted
	}
	out := &etcdserverpb.RangeResponse{Header: quietHeader}
	for _, k := range slices.Sorted(maps.Keys(q.keys)) {
		if k == string(r.Key) || len(r.RangeEnd) > 0 && k > string(r.Key) && k < string(r.RangeEnd) {
			out.Kvs = append(out.Kvs, &mvccpb.KeyValue{Key: []byte(k), Value: q.keys[k], ModRevision: 5, CreateRevision: 5, Version: 1})
		}
	}
	out.Count = int64(len(out.Kvs))
	return out, nil
}

// errQuiet is what it answers to a write.
var errQuiet = status.Error(codes.FailedPrecondition, "this etcd is for reading")

func (q *quiet) Txn(context.Context, *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	return nil, errQuiet
}

func (q *quiet) Watch(w etcdserverpb.Watch_WatchServer) error {
	asked := make(chan bool)
	go func() {
		for {
			r, err := w.Recv()
			if err != nil {
				return // who followed has gone
			}
			select {
			case asked <- r.GetCreateRequest() != nil:
			case <-w.Context().Done():
				return
			}
		}
	}()
	for {
		said := &etcdserverpb.WatchResponse{Header: quietHeader, WatchId: -1}
		select {
		case <-w.Context().Done():
			return nil
		case created := <-asked:
			if created {
				said.WatchId, said.Created = 0, true
			}
		case kv := <-q.told:
			said = &etcdserverpb.WatchResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: 1, MemberId: 1, Revision: kv.ModRevision}, Events: []*mvccpb.Event{{Kv: kv}}}
		}
		if err := w.Send(said); err != nil {
			return err
		}
	}
}

// over makes a cache of rows over a quiet etcd, filled.
func over(f testing.TB, rows []*kind.Def, q *quiet) *cache.Cache {
	f.Helper()
	at := filepath.Join(f.TempDir(), "e")
	l, err := net.Listen("unix", at)
	if err != nil {
		f.Fatal(err)
	}
	g := grpc.NewServer()
	etcdserverpb.RegisterKVServer(g, q)
	etcdserverpb.RegisterWatchServer(g, q)
	go g.Serve(l) //nolint:errcheck // until it is stopped
	f.Cleanup(g.Stop)
	s, err := store.New(store.Config{Endpoints: []string{"unix://" + at}})
	if err != nil {
		f.Fatal(err)
	}
	c := cache.New(s, rows, nil)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }() // it ends with ctx
	f.Cleanup(func() { stop(); <-ended; _ = s.Close() })
	select {
	case <-c.Ready():
	case <-time.After(30 * time.Second):
		f.Fatal("the cache is not filled")
	}
	return c
}
