package lifecycle

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readEnd is the last n bytes of a regular file, empty when there is none.
func readEnd(path string, n int64) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return ""
	}
	if st.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return ""
		}
	}
	b, _ := io.ReadAll(io.LimitReader(f, n))
	return string(b)
}

// logTail is the text of the last lines of a CRI log, at most n bytes.
func logTail(path string, lines int, n int) string {
	raw := strings.Split(strings.TrimRight(readEnd(path, int64(n)*4), "\n"), "\n")
	raw = raw[max(len(raw)-lines, 0):]
	var b strings.Builder
	for _, l := range raw {
		f := strings.SplitN(l, " ", 4)
		if len(f) < 4 {
			continue
		}
		b.WriteString(f[3])
		if f[2] != "P" {
			b.WriteByte('\n')
		}
	}
	s := b.String()
	return s[max(len(s)-n, 0):]
}

// restartsOnDisk is one more than the newest log of a container, 0 when it has none: the count survives the runtime.
func restartsOnDisk(dir, name string) int {
	most, _ := logsOf(dir, name)
	return most + 1
}

// shedLogs removes a container's logs but the newest, which keeps the count of its restarts, and answers the first error.
func shedLogs(dir, name string) error {
	most, files := logsOf(dir, name)
	for file, n := range files {
		if n == most {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name, file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// logsOf are the logs of a container, each with the number of restarts it began with, and the highest of these; -1 without any.
func logsOf(dir, name string) (most int, files map[string]int) {
	most, files = -1, map[string]int{}
	entries, err := os.ReadDir(filepath.Join(dir, name))
	if err != nil {
		return most, files
	}
	for _, e := range entries {
		num, _, _ := strings.Cut(e.Name(), ".")
		if n, err := strconv.Atoi(num); err == nil {
			files[e.Name()] = n
			most = max(most, n)
		}
	}
	return most, files
}
