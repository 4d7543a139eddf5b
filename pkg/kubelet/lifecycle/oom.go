package lifecycle

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"time"
)

// A runtime may tell that a container was killed for memory after it has told of the exit. It is given settling for that, and is
// asked every settleAgain.
const (
	settling    = 2 * time.Second
	settleAgain = 50 * time.Millisecond
)

const (
	reasonOOMKilled = "OOMKilled"
	codeKilled      = 137
)

var errUnsettled = errors.New("why a container was killed is not settled")

// unsettledLocked tells whether a container was killed just now, not by us, and the runtime may yet say that it was for memory:
// nothing is told or started until then. Where the kernel has killed nobody for memory since the pod came there is no doubt.
func (w *worker) unsettledLocked(o Observed) bool {
	if !w.deadline.IsZero() || w.failure != nil {
		return false
	}
	for _, cs := range o.Containers {
		for _, c := range cs {
			if c.State != Exited || c.ExitCode != codeKilled || c.Reason == reasonOOMKilled {
				continue
			}
			if _, ours := w.killing[c.ID]; ours || w.seen[c.ID].State == Exited {
				continue
			}
			// An end in the future tells that the clock went back; who waited for it might wait for hours.
			if ago := now().Sub(c.Finished); ago >= 0 && ago < settling && w.m.oomKills() != w.oomKills {
				return true
			}
		}
	}
	return false
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
