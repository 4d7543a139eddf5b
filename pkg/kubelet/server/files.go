package server

import (
	"net/http"
	"os"
)

// systemLogs are the node's own.
const systemLogs = "/var/log"

// files shows the node's log files. A link that leads out of their folder is not followed: pods may be given a part of it to write, and
// this reads as root.
func (s *Server) files(w http.ResponseWriter, r *http.Request) {
	if on := s.cfg.Kubelet.EnableSystemLogHandler; on != nil && !*on {
		http.Error(w, "logs endpoint is disabled.", http.StatusMethodNotAllowed)
		return
	}
	dir := s.cfg.LogRoot
	if dir == "" {
		dir = systemLogs
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer root.Close() //nolint:errcheck // it was only read
	http.StripPrefix("/logs/", http.FileServerFS(root.FS())).ServeHTTP(w, r)
}
