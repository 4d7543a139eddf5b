package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"
)

// envFileMost is how large a file of variables may be: it becomes arguments of a process.
const envFileMost = 1 << 20

// EnvFile reads the variables which a container of the pod left in a file of a volume. A file that is not there is
// os.ErrNotExist. The container may have put anything there: it is opened beneath the volume, through no link, and only
// if it is a file.
func (m *Manager) EnvFile(pod *v1.Pod, name, path string) (map[string]string, error) {
	root, err := m.HostPath(pod, name)
	if err != nil {
		return nil, err
	}
	top, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(top)
	// A pipe without a writer must not hold the kubelet up.
	fd, err := unix.Openat2(top, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, fmt.Errorf("opening %q of volume %q: %w", path, name, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%q of volume %q is not a file", path, name)
	case st.Size() > envFileMost:
		return nil, fmt.Errorf("%q of volume %q has %d bytes, more than the %d a file of variables may have", path, name, st.Size(), envFileMost)
	}
	raw, err := io.ReadAll(io.LimitReader(f, envFileMost))
	if err != nil {
		return nil, err
	}
	vars, err := parseEnv(string(raw))
	if err != nil {
		return nil, fmt.Errorf("%q of volume %q: %w", path, name, err)
	}
	return vars, nil
}

// parseEnv reads NAME='value' line by line, which means what it means to a shell; what else a shell would take is refused.
// Values are literal and may hold line ends. Blank lines, and those that begin with #, count for nothing.
func parseEnv(text string) (map[string]string, error) {
	out := map[string]string{}
	for line := 1; text != ""; line++ {
		head, rest, _ := strings.Cut(text, "\n")
		trimmed := strings.TrimLeft(head, " \t")
		if strings.Trim(trimmed, " \t\r") == "" || trimmed[0] == '#' {
			text = rest
			continue
		}
		name, value, ok := strings.Cut(text, "=")
		name = strings.Trim(name, " \t")
		if !ok || name == "" || strings.ContainsAny(name, "\n' \t\"") {
			return nil, fmt.Errorf("line %d: want NAME='value'", line)
		}
		value, ok = strings.CutPrefix(strings.TrimLeft(value, " \t"), "'")
		if !ok {
			return nil, fmt.Errorf("line %d: the value of %s must stand in single quotes", line, name)
		}
		value, rest, ok = strings.Cut(value, "'")
		if !ok {
			return nil, fmt.Errorf("line %d: the value of %s has no closing quote", line, name)
		}
		after, next, _ := strings.Cut(rest, "\n")
		if strings.Trim(after, " \t\r") != "" {
			return nil, fmt.Errorf("line %d: something follows the value of %s", line, name)
		}
		if strings.ContainsRune(value, 0) {
			return nil, errors.New("a value holds a zero byte")
		}
		out[name] = value
		line += strings.Count(value, "\n")
		text = next
	}
	return out, nil
}
