package controllermanager

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much garbage the heap may take beside what lives, in percent. In a large cluster the caches are most of it, and to mark them costs
// little beside what would stand empty.
const (
	gcSmall = 100
	gcLarge = 30
	// large is from how many bytes that live a heap is so.
	large = 128 << 20
	// looking is how often that is asked.
	looking = 10 * time.Second
)

// saveHeap keeps the heap near what lives until ctx ends: strictly while caches fill, then as its size asks for. GOGC says otherwise.
func saveHeap(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	is := gcLarge
	debug.SetGCPercent(is)
	tick := time.NewTicker(looking)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(live)
		if next := percent(live[0].Value.Uint64()); next != is {
			is = next
			debug.SetGCPercent(is)
		}
	}
}

func percent(live uint64) int {
	if live >= large {
		return gcLarge
	}
	return gcSmall
}
