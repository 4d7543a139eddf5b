package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"
)

// SubPath makes sub below a volume, bind-mounts it to a folder of ours and answers that. Every step is taken with
// openat2 beneath the volume's root and through no link, so a container which swaps a folder for a link while we walk
// gains nothing; the mount is made from the opened descriptor, not from its name.
func (m *Manager) SubPath(pod *v1.Pod, container string, index int, name, sub string) (string, error) {
	if filepath.IsAbs(sub) || strings.Contains("/"+sub+"/", "/../") {
		return "", fmt.Errorf("subPath %q must stay within the volume", sub)
	}
	root, err := m.HostPath(pod, name)
	if err != nil {
		return "", err
	}
	fd, err := beneath(root, sub, links(pod, name))
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	target := filepath.Join(m.PodDir(string(pod.UID)), "volume-subpaths", name, container, strconv.Itoa(index))
	if at, err := m.mounter.IsMountPoint(target); err == nil && at {
		var have unix.Stat_t
		if err := unix.Stat(target, &have); err == nil && have.Dev == st.Dev && have.Ino == st.Ino {
			return target, nil
		}
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return "", err
		}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.MkdirAll(target, 0o750)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o750); err == nil {
		var f *os.File
		if f, err = os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o640); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("mounting the subPath: %w", err)
	}
	return target, nil
}

// links tells whether a volume is written by us alone, and so made of our own links (..data).
func links(pod *v1.Pod, name string) bool {
	for _, v := range pod.Spec.Volumes {
		if v.Name == name {
			return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
		}
	}
	return false
}

// beneath opens sub below root, making missing folders. The caller closes the descriptor.
func beneath(root, sub string, ownLinks bool) (int, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: root, Err: err}
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	if ownLinks {
		how.Resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS
		defer unix.Close(fd)
		n, err := unix.Openat2(fd, sub, &how)
		if err != nil {
			return -1, fmt.Errorf("opening %q in the volume: %w", sub, err)
		}
		return n, nil
	}
	// Folders we make are as the volume's own: whoever may write there may write here.
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	for _, part := range strings.Split(filepath.Clean(sub), "/") {
		next, err := unix.Openat2(fd, part, &how)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(fd, part, 0o750); err == nil || errors.Is(err, unix.EEXIST) {
				if next, err = unix.Openat2(fd, part, &how); err == nil {
					self := fmt.Sprintf("/proc/self/fd/%d", next)
					_ = os.Chown(self, -1, int(st.Gid))
					_ = os.Chmod(self, os.FileMode(st.Mode&0o777)|0o750)
				}
			}
		}
		_ = unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("opening %q in the volume: %w", part, err)
		}
		fd = next
	}
	return fd, nil
}
