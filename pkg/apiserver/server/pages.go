package server

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settled is how long after the start the server has seen its first clients.
const settled = 5 * time.Second

// giveBack lets go, once the server has settled, of what only starting it took: the garbage of reading schemas, and the
// pages of its own program that were touched once. What is needed again comes back from the page cache.
func giveBack(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(settled):
	}
	debug.FreeOSMemory()
	if err := dropProgram(); err != nil {
		slog.Debug("the program's pages stay in memory", "err", err)
	}
}

// dropProgram gives back the read-only mappings of the executable; one of which the process has made anything its own is
// left alone.
func dropProgram() error {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	var from, to uintptr
	var perms string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if key, value, ok := strings.Cut(line, ":"); ok && !strings.Contains(key, " ") {
			if key == "Anonymous" && strings.TrimSpace(value) == "0 kB" && (perms == "r-xp" || perms == "r--p") {
				if _, _, no := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); no != 0 {
					return no
				}
			}
			continue
		}
		perms = ""
		if strings.HasSuffix(line, " "+self) {
			if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); err != nil {
				return err
			}
		}
	}
	return nil
}
