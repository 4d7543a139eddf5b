package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// How long is waited before etcd is tried again, and how often a lasting trouble is logged.
const (
	firstWait = 50 * time.Millisecond
	lastWait  = time.Second
	logEvery  = 30 * time.Second
)

// Run loads everything and follows every etcd until ctx ends. Losing one is waited out; reads that need no fresh answer go on.
func (c *Cache) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, other := range c.apart {
		wg.Go(func() { _ = other.run(ctx) }) // it ends with ctx
	}
	return c.run(ctx)
}

func (c *Cache) run(ctx context.Context) error {
	wait := firstWait
	var logged time.Time
	for {
		went, err := c.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if went {
			wait = firstWait
		}
		if errors.Is(err, errReopen) {
			continue
		}
		c.mu.Lock()
		c.problem = err
		c.mu.Unlock()
		if went || time.Since(logged) > logEvery {
			logged = time.Now()
			slog.Warn("following etcd was interrupted, trying again", "etcd", c.store.Endpoints(), "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, lastWait)
	}
}

// follow reads what has to be read and then applies what etcd tells, until it cannot go on. went says that it told anything.
func (c *Cache) follow(ctx context.Context) (went bool, err error) {
	c.mu.Lock()
	rev, reread := c.rev, !c.loaded || c.reread
	c.mu.Unlock()
	if reread {
		if rev, err = c.load(ctx); err != nil {
			return false, err
		}
	}
	w, err := c.store.Watch(ctx, rev)
	if err != nil {
		return false, err
	}
	defer w.Close()
	c.line.open(c, w)
	defer c.line.close(c)
	for {
		b, err := w.Next()
		if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, store.ErrRewound) {
			// What happened meanwhile is gone from etcd: the next turn reads everything and tells the differences.
			c.mu.Lock()
			c.reread = true
			c.mu.Unlock()
		}
		if err != nil {
			if c.reopening() {
				err = errReopen
			}
			return went, err
		}
		went = true
		for _, ch := range b.Changes {
			c.change(ch)
		}
		c.reached(b.Rev, b.Answer)
	}
}

// load reads every resource at one revision.
func (c *Cache) load(ctx context.Context) (int64, error) {
	rev, err := c.store.Revision(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading etcd's revision: %w", err)
	}
	c.mu.Lock()
	c.loads++
	from := c.rev
	again, lost := c.loaded, from > rev
	c.mu.Unlock()
	if lost {
		slog.Error("etcd is at an older revision than it was: it was put back to an earlier state, and so is everything read from it", "revision", rev, "was", c.Rev())
	}
	for folder, r := range c.rows.Load().folders {
		if r.isLoading() {
			continue // who added it sees that all was read and begins anew
		}
		items, err := c.read(ctx, folder, r, rev)
		if err != nil {
			return 0, fmt.Errorf("loading %s: %w", r.Def.Resource, err)
		}
		switch {
		case lost:
			r.reset(items, rev)
		case again:
			r.reload(items, from, rev)
		default:
			r.load(items, rev)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reread = false
	if !c.loaded {
		c.loaded = true
		close(c.ready)
	}
	c.moveLocked(rev)
	return rev, nil
}

// reached takes note that everything up to rev has been applied, and of an answer from etcd.
func (c *Cache) reached(rev int64, answer bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problem = nil
	if rev > c.rev {
		c.moveLocked(rev)
	}
	if answer {
		c.line.answeredLocked(c)
	}
}

func (c *Cache) moveLocked(rev int64) {
	c.rev = rev
	c.shown.Store(rev)
	close(c.moved)
	c.moved = make(chan struct{})
}
