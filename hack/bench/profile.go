package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// profileTime is how long a CPU profile looks. Work that is done sooner only leaves it with idle time, which does not count.
const profileTime = 5 * time.Second

// more is how often work is done that ends too soon for a profile to say much.
func (b *bench) more(n int) int {
	if b.profiles == "" {
		return n
	}
	return 5 * n
}

// profile takes a CPU profile of the daemons from now on, and a heap profile of each when the returned function is called,
// which waits for both. Files are <dir>/<daemon>-<what>.cpu.pb.gz and .heap.pb.gz. Without -profile it does nothing.
func (b *bench) profile(what string, of ...*daemon) func() {
	if b.profiles == "" {
		return func() {}
	}
	var wg sync.WaitGroup
	take := func(d *daemon, kind, query string) {
		c := newClient(d.debug, "root")
		text, err := c.do("GET", "/debug/pprof/"+query, "", nil)
		if err == nil {
			err = os.WriteFile(filepath.Join(b.profiles, fmt.Sprintf("%s-%s.%s.pb.gz", d.name, what, kind)), text, 0o644)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: no %s profile of %s: %v\n", kind, d.name, err)
		}
	}
	for _, d := range of {
		wg.Go(func() { take(d, "cpu", fmt.Sprintf("profile?seconds=%d", int(profileTime.Seconds()))) })
	}
	time.Sleep(50 * time.Millisecond) // the request is on its way
	return func() {
		for _, d := range of {
			take(d, "heap", "heap")
		}
		wg.Wait()
	}
}
