package lifecycle

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	v1 "k8s.io/api/core/v1"
)

// nameMost is the longest name of a file.
const nameMost = 255

// LinkDir is where programs that carry logs away look for those of all containers: beside the pods' log folders.
func LinkDir(logDir string) string { return filepath.Join(filepath.Dir(logDir), "containers") }

// linkName says whose log it is: <pod>_<namespace>_<container>-<id>.log.
func linkName(pod *v1.Pod, container, id string) string {
	name := pod.Name + "_" + pod.Namespace + "_" + container + "-" + id
	const suffix = ".log"
	return name[:min(len(name), nameMost-len(suffix))] + suffix
}

// link makes a container's log known there. The link is relative: it holds wherever the folder of both is mounted.
func (w *worker) link(pod *v1.Pod, container, id string, restarts int) {
	dir, logs := LinkDir(w.m.cfg.LogDir), LogDir(filepath.Base(w.m.cfg.LogDir), pod)
	target := filepath.Join("..", logs, container, strconv.Itoa(restarts)+".log")
	path := filepath.Join(dir, linkName(pod, container, id))
	err := os.Symlink(target, path)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o755); err == nil {
			err = os.Symlink(target, path)
		}
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		w.log.Warn("linking a container's log", "container", container, "err", err)
	}
}

// unlink takes a container's link away again; what it leaves when that fails, SweepLinks takes.
func (w *worker) unlink(pod *v1.Pod, container, id string) {
	_ = os.Remove(filepath.Join(LinkDir(w.m.cfg.LogDir), linkName(pod, container, id)))
}

// SweepLinks removes the links to logs which are no more.
func SweepLinks(logDir string) error {
	dir := LinkDir(logDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if _, err := os.Stat(path); e.Type()&os.ModeSymlink != 0 && errors.Is(err, os.ErrNotExist) {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}
