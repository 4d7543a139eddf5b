package csi

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mounted tells whether something is mounted on a path: it lies on another mount than its folder.
func mounted(path string) bool {
	var own, parent unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &own) != nil ||
		unix.Statx(unix.AT_FDCWD, filepath.Dir(path), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &parent) != nil {
		return false
	}
	return own.Mnt_id != parent.Mnt_id
}

// groupIs tells whether a folder belongs to a group which may do in it what it needs to.
func groupIs(path string, gid int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return false, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return int(st.Gid) == gid && st.Mode&0o070 == 0o070 && st.Mode&unix.S_ISGID != 0, nil
}
