package server

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// checkpoint writes a running container's memory and files into an archive below --root-dir and answers its path. Only a
// runtime with CRIU can.
func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) {
	c, ok := s.target(w, r)
	if !ok {
		return
	}
	dir := filepath.Join(s.cfg.RootDir, "checkpoints")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	path := filepath.Join(dir, fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", r.PathValue("pod"), r.PathValue("namespace"), r.PathValue("container"),
		time.Now().Format(time.RFC3339)))
	// Seconds; what is not a number is none, which leaves the time to the runtime.
	timeout, _ := strconv.ParseInt(r.URL.Query().Get("timeout"), 10, 64)
	_, err := s.cfg.CRI.CheckpointContainer(r.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: c.ID, Location: path, Timeout: timeout})
	if err != nil {
		http.Error(w, fmt.Sprintf("checkpointing of %s/%s/%s failed (%s)", r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"), cri.Text(err)), http.StatusInternalServerError)
		return
	}
	answer(w, map[string]any{"items": []string{path}})
}
