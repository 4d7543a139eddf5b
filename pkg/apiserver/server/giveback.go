package server

import (
	"context"
	"runtime/debug"
	"time"
)

// settled is how long after the start the server has seen its first clients.
const settled = 5 * time.Second

// giveBack lets go, once the server has settled, of the garbage that only starting made: reading schemas above all.
func giveBack(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(settled):
		debug.FreeOSMemory()
	}
}
