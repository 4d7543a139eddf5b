package lifecycle

import (
	"fmt"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
)

// message is a container's last word: from its message file, or its log when that is asked for.
func (w *worker) message(c Container) string {
	path := w.messageFile(c.Name, c.Restarts)
	if m := readEnd(path, 4096); m != "" {
		return m
	}
	if c.MessagePolicy == string(v1.TerminationMessageFallbackToLogsOnError) && c.ExitCode != 0 {
		return logTail(c.LogPath, 80, 2048)
	}
	return ""
}

func (w *worker) messageFile(name string, restarts int) string {
	return filepath.Join(w.m.cfg.Volumes.PodDir(w.uid), "containers", name, fmt.Sprintf("%d", restarts))
}
