package realtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// engine is what runs the node's containers: the built containerd 2 with runc, or the distribution's containerd 1.6 with its crun.
type engine struct {
	// crun runs the containers instead of runc; its path, empty for runc.
	crun            string
	containerd, ctr string
	// tools is the folder of the built shim and runc.
	tools string
}

// programs are those that are there: where nothing was built, as in the guest that `make guest` gives no other, the distribution's.
func (m *machine) programs() (engine, error) {
	tools, err := program("_out/tools/bin")
	if errors.Is(err, os.ErrNotExist) {
		distro := engine{crun: "/usr/bin/crun", containerd: "/usr/bin/containerd", ctr: "/usr/bin/ctr"}
		for _, path := range []string{distro.crun, distro.containerd, distro.ctr} {
			if _, e := os.Stat(path); e != nil {
				return engine{}, err
			}
		}
		// crun reads a container's new sizes there; a guest has no udev which makes it.
		if e := os.Symlink("/proc/self/fd/0", "/dev/stdin"); e != nil && !errors.Is(e, os.ErrExist) {
			return engine{}, e
		}
		return distro, nil
	}
	if err != nil {
		return engine{}, err
	}
	r := engine{tools: tools, containerd: filepath.Join(tools, "containerd"), ctr: filepath.Join(tools, "ctr")}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc", "ctr"} {
		path, err := program("_out/tools/bin", name)
		if err != nil {
			return engine{}, err
		}
		// A build may replace the programs while tests run; the runtime keeps those it began with.
		if os.Link(path, m.path("run/"+name)) == nil {
			r.tools = m.path("run")
		}
	}
	return r, nil
}

// config is containerd's: of version 2 for 1.6, of version 3 for 2.
func (r engine) config(m *machine) string {
	socket := m.path("run/containerd.sock")
	daemon := fmt.Sprintf(`root = %q
state = %q
[grpc]
  address = %q
[ttrpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, m.path("containerd"), m.path("run/state"), socket, socket+".ttrpc", m.path("opt"))
	if r.crun != "" {
		return fmt.Sprintf(`version = 2
%s[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.sextant.local/pause:3.10"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "crun"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
      BinaryName = %q
      Root = %q
`, daemon, m.path("cni"), r.crun, m.path("crun"))
	}
	return fmt.Sprintf(`version = 3
%s[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "registry.sextant.local/pause:3.10"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  cdi_spec_dirs = [%q]
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = %q
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = %q
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = %q
`, daemon, m.path("cdi"), m.path("cni"), filepath.Join(r.tools, "containerd-shim-runc-v2"), filepath.Join(r.tools, "runc"))
}
