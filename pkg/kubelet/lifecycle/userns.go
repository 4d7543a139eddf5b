package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mapping is one range as it is written down in the pod's folder, as upstream's kubelet does.
type mapping struct {
	HostID      uint32 `json:"hostId"`
	ContainerID uint32 `json:"containerId"`
	Length      uint32 `json:"length"`
}

type usernsRecord struct {
	UIDMappings []mapping `json:"uidMappings"`
	GIDMappings []mapping `json:"gidMappings"`
}

// userns is the pod's own range of users; nil when it shares the node's. The range lies in the pod's folder and is free
// again when that goes.
func (w *worker) userns(pod *v1.Pod) (*runtimeapi.UserNamespace, error) {
	if pod.Spec.HostUsers == nil || *pod.Spec.HostUsers {
		return nil, nil
	}
	dir := w.m.cfg.Volumes.PodDir(w.uid)
	w.m.users.Lock()
	defer w.m.users.Unlock()
	if r, err := readUserns(dir); err == nil {
		return r.options(), nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	length := w.m.cfg.UserRange
	taken := map[uint32]bool{}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*", "userns"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		r, err := readUserns(filepath.Dir(f))
		if err != nil {
			return nil, err
		}
		// A range of another length may lie across several of ours.
		for _, x := range r.UIDMappings {
			for at := x.HostID / length; at <= (x.HostID+x.Length-1)/length; at++ {
				taken[at*length] = true
			}
		}
	}
	host := length // the first range is the node's own
	for taken[host] {
		if host > 1<<32-1-2*length {
			return nil, errors.New("no range of users is free")
		}
		host += length
	}
	one := []mapping{{HostID: host, Length: length}}
	r := usernsRecord{one, one}
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.MkdirAll(dir, 0o750), os.WriteFile(filepath.Join(dir, "userns"), raw, 0o600)); err != nil {
		return nil, err
	}
	return r.options(), nil
}

// ownUsers tells why the runtime's handler cannot give the pod users of its own; nil when it can or need not. A runtime which knows
// nothing of them (containerd before 2 says nothing) would run the pod with the node's and not complain.
func (m *Manager) ownUsers(ctx context.Context, pod *v1.Pod, handler string) error {
	if pod.Spec.HostUsers == nil || *pod.Spec.HostUsers {
		return nil
	}
	r, err := m.cfg.CRI.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, h := range r.RuntimeHandlers {
		if h.Name == handler && h.GetFeatures().GetUserNamespaces() {
			return nil
		}
	}
	if handler != "" {
		return fmt.Errorf("can't set `spec.hostUsers: false`, RuntimeClass handler %q does not support user namespaces", handler)
	}
	return errors.New("can't set `spec.hostUsers: false`, runtime does not support user namespaces")
}

func readUserns(dir string) (usernsRecord, error) {
	var r usernsRecord
	raw, err := os.ReadFile(filepath.Join(dir, "userns"))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err == nil && (len(r.UIDMappings) == 0 || len(r.GIDMappings) == 0) {
		err = fmt.Errorf("%s/userns names no range", dir)
	}
	return r, err
}

func (r usernsRecord) options() *runtimeapi.UserNamespace {
	out := &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}
	for _, m := range r.UIDMappings {
		out.Uids = append(out.Uids, &runtimeapi.IDMapping{HostId: m.HostID, ContainerId: m.ContainerID, Length: m.Length})
	}
	for _, m := range r.GIDMappings {
		out.Gids = append(out.Gids, &runtimeapi.IDMapping{HostId: m.HostID, ContainerId: m.ContainerID, Length: m.Length})
	}
	return out
}
