package shutdown

import (
	"path/filepath"
	"time"

	"github.com/sextant-k8s/sextant/pkg/kubelet/statefile"
)

// stateFile lies in the kubelet's folder, under upstream's name: what the last shutdown took is told after it too.
const stateFile = "graceful_node_shutdown_state"

// record is when the node's last shutdown began and ended, zero for not yet.
type record struct {
	Began time.Time `json:"startTime"`
	Ended time.Time `json:"endTime"`
}

// recall tells of the shutdown before this start. A record that cannot be read is as good as none.
func (m *Manager) recall() {
	var r record
	if m.cfg.Root == "" {
		return
	}
	if ok, err := statefile.Read(filepath.Join(m.cfg.Root, stateFile), &r); err != nil {
		m.cfg.Log.Warn("reading when the last shutdown was", "err", err)
	} else if ok {
		m.cfg.Metrics.Shutdown(r.Began, r.Ended)
	}
}

func (m *Manager) note(r record) {
	m.cfg.Metrics.Shutdown(r.Began, r.Ended)
	if m.cfg.Root == "" {
		return
	}
	if err := statefile.Write(filepath.Join(m.cfg.Root, stateFile), r); err != nil {
		m.cfg.Log.Warn("writing down when the shutdown was", "err", err)
	}
}
