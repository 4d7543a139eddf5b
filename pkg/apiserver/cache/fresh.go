package cache

import (
	"context"
	"fmt"
	"time"
)

// patience is how long a lagging watch is given before etcd is asked to report its progress.
const patience = 3 * time.Millisecond

// Fresh returns when the cache holds everything that was acknowledged before the call, with the revision that is true
// of. Callers that come while a question is on its way share the next one.
func (c *Cache) Fresh(ctx context.Context) (int64, error) {
	q := c.ask()
	select {
	case <-q.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if q.err != nil {
		return 0, fmt.Errorf("asking etcd for its revision: %w", q.err)
	}
	return q.rev, c.WaitFor(ctx, q.rev)
}

// ask joins the question that has not been sent yet, or starts one.
func (c *Cache) ask() *question {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking == nil {
		c.asking = &question{done: make(chan struct{})}
		if !c.sending {
			c.sending = true
			go c.send()
		}
	}
	return c.asking
}

// send asks etcd one question after another while there are any. A question on its way takes no more joiners: their
// writes might be newer than its answer.
func (c *Cache) send() {
	for {
		c.mu.Lock()
		q := c.asking
		c.asking = nil
		c.sending = q != nil
		c.mu.Unlock()
		if q == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		q.rev, q.err = c.store.Revision(ctx)
		cancel()
		close(q.done)
	}
}

// WaitFor returns when everything up to rev is in the cache.
func (c *Cache) WaitFor(ctx context.Context, rev int64) error {
	hurry := time.NewTimer(patience)
	defer hurry.Stop()
	for {
		c.mu.Lock()
		reached, moved := c.rev >= rev, c.moved
		c.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-moved:
		case <-hurry.C:
			if err := c.store.AskProgress(ctx); err != nil {
				return err
			}
			hurry.Reset(100 * time.Millisecond)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
