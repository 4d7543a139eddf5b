package runtime

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A key that fails again and again is tried after twice the time each, and at last as often as its controller says.
func TestLastRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		var tries []time.Time
		err := Run(ctx, []*Controller{{
			Name: "fails", Workers: 1, LastRetry: time.Minute,
			Start: func(_ context.Context, enqueue func(Key)) { enqueue(Key{Name: "a"}) },
			Reconcile: func(context.Context, Key) (time.Duration, error) {
				tries = append(tries, time.Now())
				return 0, errors.New("no room")
			},
		}}, func() {})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if len(tries) < 15 {
			t.Fatalf("%d tries in ten minutes", len(tries))
		}
		if gap := tries[1].Sub(tries[0]); gap != firstRetry {
			t.Errorf("tried again after %v; want %v", gap, firstRetry)
		}
		n := len(tries)
		if gap := tries[n-1].Sub(tries[n-2]); gap != time.Minute {
			t.Errorf("tried at last after %v; want a minute", gap)
		}
	})
}
