package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// maxLine bounds one log line in memory, bytes; the runtime splits at 16 KiB.
const maxLine = 256 << 10

// logOptions are the query of a log request.
type logOptions struct {
	follow, timestamps, previous bool
	tail, limit                  int64
	since                        time.Time
	stream                       string
}

func parseLogOptions(r *http.Request, now time.Time) (logOptions, error) {
	q := r.URL.Query()
	o := logOptions{tail: -1, limit: -1}
	for name, dst := range map[string]*bool{"follow": &o.follow, "timestamps": &o.timestamps, "previous": &o.previous} {
		if v := q.Get(name); v != "" {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return o, fmt.Errorf("%s: %w", name, err)
			}
			*dst = b
		}
	}
	for name, dst := range map[string]*int64{"tailLines": &o.tail, "limitBytes": &o.limit} {
		if v := q.Get(name); v != "" && v != "all" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < 0 {
				return o, fmt.Errorf("%s must be a whole number, not negative", name)
			}
			*dst = n
		}
	}
	if v := q.Get("sinceSeconds"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 1 {
			return o, errors.New("sinceSeconds must be greater than 0")
		}
		o.since = now.Add(-time.Duration(n) * time.Second)
	}
	if v := q.Get("sinceTime"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return o, fmt.Errorf("sinceTime: %w", err)
		}
		o.since = t
	}
	if v := q.Get("stream"); v != "" && v != "All" {
		o.stream = strings.ToLower(v)
	}
	return o, nil
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	o, err := parseLogOptions(r, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod := s.cfg.Pods.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	if pod == nil {
		http.Error(w, fmt.Sprintf("pod %q does not exist", r.PathValue("pod")), http.StatusNotFound)
		return
	}
	name := r.PathValue("container")
	known := false
	for _, c := range pod.Spec.InitContainers {
		known = known || c.Name == name
	}
	for _, c := range pod.Spec.Containers {
		known = known || c.Name == name
	}
	for _, c := range pod.Spec.EphemeralContainers {
		known = known || c.Name == name
	}
	if !known {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, pod.Name), http.StatusNotFound)
		return
	}
	c, ok := s.cfg.Pods.Container(string(pod.UID), name, o.previous)
	if !ok {
		why := fmt.Sprintf("container %q in pod %q is waiting to start: %s", name, pod.Name, waitsFor(pod, name))
		if o.previous {
			why = fmt.Sprintf("previous terminated container %q in pod %q not found", name, pod.Name)
		}
		http.Error(w, why, http.StatusBadRequest)
		return
	}
	if rel, err := filepath.Rel(s.cfg.Kubelet.PodLogsDir, c.LogPath); err != nil || strings.HasPrefix(rel, "..") {
		http.Error(w, "the log lies outside the log folder", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	alive := func() bool {
		now, ok := s.cfg.Pods.Container(string(pod.UID), name, false)
		return ok && now.ID == c.ID && now.Finished.IsZero()
	}
	out := &flusher{w: w}
	if err := copyLog(r.Context(), s.cfg.Kubelet.PodLogsDir, c.LogPath, o, out, alive); err != nil && !out.used {
		http.Error(w, fmt.Sprintf("failed to open log file %q: %v", c.LogPath, err), http.StatusInternalServerError)
	}
}

// waitsFor says why a container has not started.
func waitsFor(pod *v1.Pod, name string) string {
	for _, cs := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if cs.Name != name || cs.State.Waiting == nil {
			continue
		}
		switch reason := cs.State.Waiting.Reason; reason {
		case "ErrImagePull":
			return "image can't be pulled"
		case "ImagePullBackOff":
			return "trying and failing to pull image"
		default:
			return reason
		}
	}
	return "ContainerCreating"
}

// flusher sends what is written at once.
type flusher struct {
	w    http.ResponseWriter
	used bool
}

func (f *flusher) Write(b []byte) (int, error) {
	f.used = true
	return f.w.Write(b)
}

func (f *flusher) flush() { _ = http.NewResponseController(f.w).Flush() }

// openLog opens a file below the log folder, through no link: what a container put there cannot show another file.
func openLog(root, path string) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat2(dir, rel, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// copyLog writes a CRI log to out as the options ask, following it while its container lives.
func copyLog(ctx context.Context, root, path string, o logOptions, out *flusher, alive func() bool) error {
	f, err := openLog(root, path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	if o.tail >= 0 {
		at, err := tailOffset(f, o.tail)
		if err != nil {
			return err
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return err
		}
	}
	left := o.limit
	r := bufio.NewReaderSize(f, 64<<10)
	var part []byte
	newline := true
	for {
		chunk, err := r.ReadBytes('\n')
		if part = append(part, chunk...); len(part) > maxLine {
			part = part[:maxLine]
		}
		if err == io.EOF {
			out.flush()
			if !o.follow {
				return nil
			}
			more := alive()
			if !grown(f) {
				if !more {
					return nil
				}
				if rotated(f, path) {
					if next, err := openLog(root, path); err == nil {
						f.Close()
						f = next
						r.Reset(f)
						continue
					}
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(100 * time.Millisecond):
				}
			}
			continue
		}
		if err != nil {
			return err
		}
		line, full, ok := logLine(part, o, newline)
		part = part[:0]
		if !ok {
			continue
		}
		newline = full
		if left >= 0 && int64(len(line)) > left {
			line = line[:left]
		}
		if _, err := out.Write(line); err != nil {
			return err
		}
		if left >= 0 {
			if left -= int64(len(line)); left <= 0 {
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// grown tells whether there is more behind the read position.
func grown(f *os.File) bool {
	st, err := f.Stat()
	if err != nil {
		return false
	}
	at, err := f.Seek(0, io.SeekCurrent)
	return err == nil && st.Size() > at
}

func rotated(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && !os.SameFile(a, b)
}

// logLine turns "time stream P|F text" into what is shown. full: the line ended here.
func logLine(raw []byte, o logOptions, first bool) (line []byte, full, ok bool) {
	f := bytes.SplitN(raw, []byte(" "), 4)
	if len(f) < 4 {
		return nil, true, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(f[0]))
	if err != nil || !o.since.IsZero() && at.Before(o.since) || o.stream != "" && string(f[1]) != o.stream {
		return nil, true, false
	}
	full = !bytes.HasPrefix(f[2], []byte("P"))
	text := f[3]
	if !full {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	if o.timestamps && first {
		return append([]byte(at.Format("2006-01-02T15:04:05.000000000Z07:00")+" "), text...), full, true
	}
	return text, full, true
}

// tailOffset is where the last n lines begin, read backwards in blocks.
func tailOffset(f *os.File, n int64) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return size, err
	}
	buf := make([]byte, 8<<10)
	seen := int64(0)
	for end := size; end > 0; {
		begin := max(end-int64(len(buf)), 0)
		b := buf[:end-begin]
		if _, err := f.ReadAt(b, begin); err != nil && err != io.EOF {
			return 0, err
		}
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] == '\n' && begin+int64(i) != size-1 {
				if seen++; seen == n {
					return begin + int64(i) + 1, nil
				}
			}
		}
		end = begin
	}
	return 0, nil
}
