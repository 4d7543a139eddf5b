package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	watchers = 300
	changes  = 100
	// streams is how many watches share a connection: servers allow a hundred or more.
	streams = 60
)

// fanOut has many watchers follow all pods and changes some. The same changes without watchers are taken off, so that the
// row tells of delivery alone. The floor writes frames of the same bytes to as many streams, and flushes each.
func fanOut(b *bench, p *plane, floor *daemon, bare *client) error {
	change := func(turn string) func() error {
		return times(changes, func(i int) error {
			return p.patch(podPath(i), fmt.Sprintf(`{"metadata":{"labels":{"turn":"%s%d"}}}`, turn, i))
		})
	}
	alone, err := meter(1, p.api, nil, change("a"))
	if err != nil {
		return err
	}
	done := b.profile("watch", p.api)
	ours, err := watched(p.client, p.api, func(ctx context.Context, c *client) (io.ReadCloser, error) {
		return c.follow(ctx, "/api/v1/pods?")
	}, change("b"))
	done()
	if err != nil {
		return err
	}
	ours.CPU -= alone.CPU / (watchers * changes)
	pod, err := p.do("GET", podPath(0), jsonType, nil)
	if err != nil {
		return err
	}
	frame := fmt.Appendf(nil, `{"type":"MODIFIED","object":%s}`+"\n", pod[:len(pod)-1]) // the pod ends its line itself
	if _, err := bare.do("PUT", "/bodies/frame", jsonType, frame); err != nil {
		return err
	}
	least, err := watched(bare, floor, func(ctx context.Context, c *client) (io.ReadCloser, error) {
		resp, err := c.open(ctx, "GET", "/watch", "", nil)
		if err != nil {
			return nil, err
		}
		return resp.Body, nil
	}, times(changes, func(int) error {
		_, err := bare.do("POST", "/push/frame", "", nil)
		return err
	}))
	if err != nil {
		return err
	}
	b.add(row{Work: fmt.Sprintf("watch event to each of %d", watchers), Ours: ours, Floor: least, By: byCPU, Goal: "7us cpu", Upstream: "34us cpu"})
	return nil
}

// watched opens all watches, makes the changes, waits until all events came, and answers what one delivery took.
func watched(c *client, server *daemon, open func(context.Context, *client) (io.ReadCloser, error), change func() error) (cost, error) {
	ctx, cancel := context.WithCancel(context.Background())
	var all counter
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	on := c
	for i := range watchers {
		if i%streams == 0 {
			on = c.again()
		}
		body, err := open(ctx, on)
		if err != nil {
			return cost{}, err
		}
		wg.Go(func() {
			defer body.Close() //nolint:errcheck // only read
			all.read(body)
		})
	}
	time.Sleep(200 * time.Millisecond)
	return meter(watchers*changes, server, nil, func() error {
		if err := change(); err != nil {
			return err
		}
		return all.until(watchers*changes, 30*time.Second)
	})
}
