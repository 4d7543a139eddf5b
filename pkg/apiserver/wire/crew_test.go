package wire

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestCrew runs many handlers at once, again and again: each runs once, few goroutines wait for the next, those not needed go,
// and none waits once there is no connection: the bubble would not end.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &crew{}
		w.come()
		var mu sync.Mutex
		ran := 0
		work := func(n int) {
			for range n {
				ctx, cancel := context.WithCancel(t.Context())
				c := &conn{s: &Server{MaxStreams: 100}, streams: map[uint32]*stream{}, err: errGone, running: 1}
				c.room.L = &c.mu
				st := &stream{c: c, ctx: ctx, cancel: cancel, req: &http.Request{}, h: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					mu.Lock()
					ran++
					mu.Unlock()
				})}
				w.run(st)
			}
			synctest.Wait()
		}
		idle := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.idle)
		}
		for range 5 {
			work(100)
		}
		if got := idle(); ran != 500 || got < 1 || got > idleMost {
			t.Errorf("%d of 500 handlers ran, %d goroutines wait", ran, got)
		}
		time.Sleep(idleSweep + time.Millisecond)
		work(1)
		time.Sleep(idleSweep)
		synctest.Wait()
		if got := idle(); got != 1 {
			t.Errorf("%d goroutines wait where one is needed", got)
		}
		time.Sleep(2 * idleSweep)
		synctest.Wait()
		if got := idle(); got != 0 {
			t.Errorf("%d goroutines wait for nothing", got)
		}
		work(3)
		w.leave()
		synctest.Wait()
		if got := idle(); got != 0 || ran != 504 {
			t.Errorf("%d goroutines wait for connections that are none; %d handlers ran", got, ran)
		}
	})
}
