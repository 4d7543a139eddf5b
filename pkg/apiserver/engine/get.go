package engine

import (
	"context"
	"fmt"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
)

// get answers one object: resourceVersion unset means as of now, 0 anything, else not older than that.
func (e *Engine) get(c *call) error {
	t, err := c.target()
	if err != nil {
		return err
	}
	if err := c.caughtUp(c.values().Get("resourceVersion")); err != nil {
		return err
	}
	i := c.res.Get(c.def.ItemKey(c.info.Namespace, c.info.Name))
	if i == nil {
		return apierrors.NewNotFound(c.gr(), c.info.Name)
	}
	return c.sendItem(200, t, i)
}

// caughtUp waits until the cache is as fresh as a resourceVersion asks.
func (c *call) caughtUp(rv string) error {
	switch rv {
	case "":
		since := time.Now()
		_, err := c.home().Fresh(c.ctx)
		c.waited(since, err)
		return err
	case "0":
		return loaded(c.ctx, c.home())
	}
	n, err := parseRV(rv)
	if err != nil {
		return err
	}
	return notOlderThan(c.ctx, c.home(), n)
}

func parseRV(rv string) (int64, error) {
	n, err := strconv.ParseUint(rv, 10, 63)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: resourceVersion: Invalid value: %q: %v", rv, err))
	}
	return int64(n), nil
}

// loaded waits for the cache's first load.
func loaded(ctx context.Context, home *cache.Cache) error {
	select {
	case <-home.Ready():
		return nil
	case <-ctx.Done():
		return apierrors.NewServiceUnavailable("the server has not read etcd yet")
	}
}

// tooFar is how long a revision that is not here yet is waited for.
const tooFar = 3 * time.Second

// notOlderThan waits until the cache is at rev, which may be in the future.
func notOlderThan(ctx context.Context, home *cache.Cache, rev int64) error {
	if err := loaded(ctx, home); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, tooFar)
	defer cancel()
	if err := home.WaitFor(wait, rev); err == nil {
		return nil
	}
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", rev, home.Rev()), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}
