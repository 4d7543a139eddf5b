package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// floorSection is the name under which this program starts itself as a bare server.
const floorSection = "floor-server"

// serveFloor is net/http with TLS and HTTP/2, and nothing else: it gives back the bytes it was given, and writes frames to
// those who watch. It prints its address and serves until it is killed.
func serveFloor() error {
	var mu sync.Mutex // guards the three below
	bodies := map[string][]byte{}
	types := map[string]string{}
	watchers := map[http.ResponseWriter]struct{}{}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /bodies/{name}", func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // the driver compares what it gets back
		mu.Lock()
		bodies[r.PathValue("name")], types[r.PathValue("name")] = body, r.Header.Get("Accept")
		mu.Unlock()
	})
	mux.HandleFunc("GET /bodies/{name}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		body, kind := bodies[r.PathValue("name")], types[r.PathValue("name")]
		mu.Unlock()
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(body) // the driver compares what it gets
	})
	mux.HandleFunc("GET /watch", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		watchers[w] = struct{}{}
		_ = http.NewResponseController(w).Flush() // the driver counts what it gets
		mu.Unlock()
		<-r.Context().Done()
		mu.Lock()
		delete(watchers, w)
		mu.Unlock()
	})
	mux.HandleFunc("POST /push/{name}", func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		for w := range watchers {
			_, _ = w.Write(bodies[r.PathValue("name")])
			_ = http.NewResponseController(w).Flush() // the driver counts what it gets
		}
	})
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.StartTLS()
	fmt.Println(s.URL)
	select {}
}

// startFloor starts the bare server and answers a client of it.
func startFloor(b *bench) (*daemon, *client, error) {
	d, err := b.start("floor", "", "/proc/self/exe", "-only", floorSection)
	if err != nil {
		return nil, nil, err
	}
	url := ""
	err = await("the bare server", 5*time.Second, func() error {
		text, err := os.ReadFile(d.log)
		if url = strings.TrimSpace(string(text)); err == nil && !bytes.HasSuffix(text, []byte("\n")) {
			err = fmt.Errorf("it said %q", url)
		}
		return err
	})
	return d, newClient(url, ""), err
}

// bareRead measures the bare server giving back the body n times.
func bareRead(floor *daemon, c *client, body []byte, n int) (cost, error) {
	if _, err := c.do("PUT", "/bodies/read", protobuf, body); err != nil {
		return cost{}, err
	}
	return meter(n, floor, nil, times(n, func(int) error {
		got, err := c.do("GET", "/bodies/read", "", nil)
		if err == nil && len(got) != len(body) {
			err = fmt.Errorf("the bare server gave %d bytes of %d", len(got), len(body))
		}
		return err
	}))
}

// bareWrites are what an apiserver must at least ask of etcd.
type bareWrites struct{ create, update, remove cost }

// bareEtcd measures creating, changing and deleting n keys of that value, each one transaction that compares first.
func bareEtcd(p *plane, value []byte, n int) (bareWrites, error) {
	var w bareWrites
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{etcdURL}, DialTimeout: 5 * time.Second})
	if err != nil {
		return w, fmt.Errorf("reaching etcd: %w", err)
	}
	defer c.Close() //nolint:errcheck // nothing is in flight
	ctx := context.Background()
	revisions := make([]int64, n)
	key := func(i int) string { return fmt.Sprintf("/bare/pods/bench/p%05d", i) }
	txn := func(i int, op clientv3.Op) error {
		r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key(i)), "=", revisions[i])).Then(op).Commit()
		if err != nil {
			return err
		}
		if !r.Succeeded {
			return fmt.Errorf("%s is not at %d", key(i), revisions[i])
		}
		revisions[i] = r.Header.Revision
		return nil
	}
	put := func(i int) error { return txn(i, clientv3.OpPut(key(i), string(value))) }
	for _, step := range []struct {
		to *cost
		f  func(i int) error
	}{{&w.create, put}, {&w.update, put}, {&w.remove, func(i int) error { return txn(i, clientv3.OpDelete(key(i))) }}} {
		if *step.to, err = meter(n, driver, []*daemon{p.etcd}, times(n, step.f)); err != nil {
			return w, err
		}
	}
	return w, nil
}
