package proxy

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settleAfter is how long after the first write the memory of starting is given back.
const settleAfter = time.Second

// giveBack returns to the kernel what only starting needed: freed heap, and pages of this program's file that were read once. What
// is needed again comes back from the page cache.
func giveBack() {
	debug.FreeOSMemory()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// from-to permissions offset device inode path
		words := strings.Fields(lines.Text())
		if len(words) < 6 || words[5] != self || words[1] != "r-xp" && words[1] != "r--p" {
			continue
		}
		low, high, _ := strings.Cut(words[0], "-")
		from, err1 := strconv.ParseUint(low, 16, 64)
		to, err2 := strconv.ParseUint(high, 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		// A failure leaves the pages where they are.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), unix.MADV_DONTNEED)
	}
}
