package lifecycle

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	reasonOOMKilled = "OOMKilled"
	codeKilled      = 137
	// oomBefore is how long before a container's end the kernel may have been seen to kill for memory, if that was its end.
	oomBefore = 2 * time.Second
	oomPeriod = time.Second
)

// ooms notes when the kernel was last seen to have killed somebody for memory.
type ooms struct {
	// kills is how many it has killed.
	kills func() int64
	since time.Time // when it was first looked at

	mu    sync.Mutex
	count int64
	grew  time.Time
}

func newOOMs() *ooms { return &ooms{kills: oomKills, since: now(), count: oomKills()} }

// last looks again; zero is never.
func (o *ooms) last() time.Time {
	n := o.kills()
	o.mu.Lock()
	defer o.mu.Unlock()
	if n > o.count {
		o.grew = now()
	}
	o.count = n
	return o.grew
}

// watch looks every second until ctx ends.
func (o *ooms) watch(ctx context.Context) {
	t := time.NewTicker(oomPeriod)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			o.last()
		}
	}
}

// starvedLocked tells whether a container that was killed, not by us, was so for memory, though its runtime does not say it: containerd
// 1.6 tells of it after the exit, or never of a container that runs out of memory at once. On version 1 of cgroups what the kernel counts
// by container has gone by then; so one that ends when it kills for memory anywhere is taken for killed so. Of ends before the kubelet
// came the runtime's word holds.
func (w *worker) starvedLocked(c Container) bool {
	if c.ExitCode != codeKilled || c.Reason == reasonOOMKilled || !w.deadline.IsZero() || w.failure != nil {
		return false
	}
	if _, ours := w.killing[c.ID]; ours {
		return false
	}
	return c.Finished.After(w.m.ooms.since) && w.m.ooms.last().After(c.Finished.Add(-oomBefore))
}

// oomKills is how many processes the kernel has killed for memory since the machine came up; 0 where it does not count them. It
// counts before it kills, in a cgroup of either version or outside.
func oomKills() int64 {
	raw, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(raw, []byte("\noom_kill "))
	n, _, _ := bytes.Cut(rest, []byte("\n"))
	count, _ := strconv.ParseInt(string(n), 10, 64) // none is 0
	return count
}
