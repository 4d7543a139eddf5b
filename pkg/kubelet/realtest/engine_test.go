package realtest

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/sextant-k8s/sextant/hack/containerd"
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
func (r engine) config(m *machine) []byte {
	c := containerd.Config{Dir: m.path(""), State: m.path("run/state"), Socket: m.path("run/containerd.sock"), Pause: "registry.sextant.local/pause:3.10"}
	if r.crun != "" {
		c.Crun, c.Runs = r.crun, m.path("crun")
	} else {
		c.Tools, c.CDI = r.tools, m.path("cdi")
	}
	return c.TOML()
}
