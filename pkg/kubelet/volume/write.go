package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"
)

const (
	dataLink = "..data"
	nextLink = "..data_tmp"
)

// write makes a volume of files on tmpfs, all of them changing at once: a new folder, then one rename of the link to it.
func (m *Manager) write(pod *v1.Pod, plugin, name string, want files, err error) error {
	if err != nil {
		return err
	}
	dir := m.dir(pod, plugin, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if plugin != "configmap" {
		// Secrets and tokens never reach a disk.
		if at, err := m.mounter.IsMountPoint(dir); err != nil {
			return err
		} else if !at {
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0777"); err != nil {
				return fmt.Errorf("mounting tmpfs: %w", err)
			}
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		return err
	}
	for p := range want {
		if p == "" || strings.HasPrefix(p, "/") || strings.HasPrefix(p, "..") || strings.Contains("/"+p+"/", "/../") {
			return fmt.Errorf("invalid path: %q", p)
		}
	}
	return publish(dir, want, fsGroup(pod), owner(pod))
}

func publish(dir string, want files, group *int64, user int64) error {
	old, _ := os.Readlink(filepath.Join(dir, dataLink))
	if old != "" && same(filepath.Join(dir, old), want) {
		return nil
	}
	next, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	fail := func(err error) error {
		_ = os.RemoveAll(next)
		return err
	}
	if err := os.Chmod(next, 0o755); err != nil {
		return fail(err)
	}
	for p, f := range want {
		path := filepath.Join(next, p)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fail(err)
		}
		if err := os.WriteFile(path, f.data, 0o600); err != nil {
			return fail(err)
		}
		perm := os.FileMode(f.mode) & 0o777
		if group != nil {
			perm |= (perm & 0o400) >> 3
			if err := os.Chown(path, -1, int(*group)); err != nil {
				return fail(err)
			}
		} else if user >= 0 && perm&0o044 == 0 {
			if err := os.Chown(path, int(user), -1); err != nil {
				return fail(err)
			}
		}
		if err := os.Chmod(path, perm); err != nil {
			return fail(err)
		}
	}
	tmp := filepath.Join(dir, nextLink)
	_ = os.Remove(tmp)
	if err := os.Symlink(filepath.Base(next), tmp); err != nil {
		return fail(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return fail(err)
	}
	top := map[string]bool{}
	for p := range want {
		name, _, _ := strings.Cut(p, "/")
		top[name] = true
		link := filepath.Join(dir, name)
		if _, err := os.Lstat(link); errors.Is(err, os.ErrNotExist) {
			if err := os.Symlink(filepath.Join(dataLink, name), link); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch n := e.Name(); {
		case n == dataLink, n == filepath.Base(next), top[n]:
		case strings.HasPrefix(n, "..") || e.Type()&os.ModeSymlink != 0:
			if err := os.RemoveAll(filepath.Join(dir, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// same tells whether a folder holds exactly the wanted files.
func same(dir string, want files) bool {
	n, equal := 0, true
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		f, ok := want[rel]
		if !ok {
			equal = false
			return nil
		}
		n++
		data, err := os.ReadFile(path)
		equal = equal && err == nil && bytes.Equal(data, f.data)
		return err
	})
	return err == nil && equal && n == len(want)
}
