package wire

import (
	"sync"
	"time"
)

const (
	idleMost  = 32          // goroutines without a stream that are kept
	idleSweep = time.Second // how often those that were not needed meanwhile are sent away
)

// crew are the goroutines that run handlers. One that is done waits for another stream: its stack has grown to what a
// handler needs, which a new one would have to do step by step, copying all of it each time.
type crew struct {
	mu     sync.Mutex
	idle   []chan *stream // who came last is taken first
	unused int            // of idle, that none was taken of since the last sweep
	places int            // connections
	sweeps *time.Timer    // runs while there are idle ones
}

// run runs a stream's handler.
func (w *crew) run(st *stream) {
	w.mu.Lock()
	if n := len(w.idle); n > 0 {
		next := w.idle[n-1]
		w.idle = w.idle[:n-1]
		w.unused = min(w.unused, n-1)
		w.mu.Unlock()
		next <- st
		return
	}
	w.mu.Unlock()
	go w.work(st)
}

// work runs handlers for as long as somebody may want it.
func (w *crew) work(st *stream) {
	next := make(chan *stream, 1)
	for st != nil {
		st.run()
		st = nil
		if !w.rest(next) {
			return
		}
		st = <-next
	}
}

// rest offers a goroutine to the next stream; false if it is not needed.
func (w *crew) rest(next chan *stream) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.places == 0 || len(w.idle) >= idleMost {
		return false
	}
	if w.idle = append(w.idle, next); len(w.idle) == 1 {
		w.unused = 0
		w.sweepLocked()
	}
	return true
}

func (w *crew) sweepLocked() {
	if w.sweeps == nil {
		w.sweeps = time.AfterFunc(idleSweep, w.sweep)
	} else {
		w.sweeps.Reset(idleSweep)
	}
}

// sweep sends away those that were not needed since the last time.
func (w *crew) sweep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, next := range w.idle[:min(w.unused, len(w.idle))] {
		close(next)
	}
	w.idle = append(w.idle[:0:0], w.idle[min(w.unused, len(w.idle)):]...)
	if w.unused = len(w.idle); w.unused > 0 {
		w.sweepLocked()
	}
}

// come notes a connection, whose streams are to come.
func (w *crew) come() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.places++
}

// leave notes the end of a connection. After the last one, nobody waits.
func (w *crew) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.places--; w.places > 0 {
		return
	}
	for _, next := range w.idle {
		close(next)
	}
	w.idle = nil
	if w.sweeps != nil {
		w.sweeps.Stop()
	}
}
