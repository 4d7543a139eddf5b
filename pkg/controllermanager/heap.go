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
	// calm is the part of a large heap that may be made anew between two looks while nothing goes on, and spare the part that may
	// then stand beside it.
	calm, spare = 20, 5
)

// heap is what is in it, in bytes.
type heap struct {
	live      uint64 // what the last collection left
	objects   uint64 // with the garbage since
	free      uint64 // what is empty and not given back
	allocated uint64 // ever
}

func look() heap {
	m := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(m)
	return heap{m[0].Value.Uint64(), m[1].Value.Uint64(), m[2].Value.Uint64(), m[3].Value.Uint64()}
}

// saveHeap keeps the heap near what lives until ctx ends: strictly while caches fill, then as its size asks for; what a burst left
// is given back when it is over. GOGC says otherwise.
func saveHeap(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	is := gcLarge
	debug.SetGCPercent(is)
	tick := time.NewTicker(looking)
	defer tick.Stop()
	last := look()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := look()
		if next := now.percent(); next != is {
			is = next
			debug.SetGCPercent(is)
		}
		if now.wasteful(last) {
			debug.FreeOSMemory()
		}
		last = now
	}
}

func (h heap) percent() int {
	if h.live >= large {
		return gcLarge
	}
	return gcSmall
}

// wasteful tells whether nothing went on since the last look and much stands empty that could be given back. At this pace it takes minutes
// to be so again.
func (h heap) wasteful(last heap) bool {
	return h.live >= large && h.allocated-last.allocated < h.live/calm && h.objects+h.free > h.live+h.live/spare
}
