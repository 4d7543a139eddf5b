// Package containerd writes the configuration of a containerd that runs beside others on one machine, for the cluster of
// `make up`, for the bench and for tests. All of it is in the folders it is told; only the sockets of shims, and what CNI plugins have
// answered, are where every containerd keeps them.
package containerd

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Config is what differs between them; paths are absolute.
type Config struct {
	// Dir holds what it keeps, and in its folder cni what it is told of the network; State is for what goes with the processes.
	Dir, State string
	// Socket is where it answers.
	Socket string
	// Pause is the image of sandboxes.
	Pause string
	// Tools is the folder of the built shim and runc, for containerd 2; empty for the 1.6 of a distribution, with its own.
	Tools string
	// Runs is the folder of the low-level runtime's state; empty is its own default.
	Runs string
	// Crun, its path, runs containers in the place of runc; for 1.6.
	Crun string
	// CDI is the folder that tells of devices; empty is the default ones. For containerd 2.
	CDI string
}

// TOML is the file: of version 3 for containerd 2, of version 2 for 1.6. This user may not lower scores of the OOM killer, and mounts
// of network namespaces are each one's own.
func (c Config) TOML() []byte {
	var b strings.Builder
	add := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	in := func(name string) string { return filepath.Join(c.Dir, name) }
	version, plugin := 2, "io.containerd.grpc.v1.cri"
	if c.Tools != "" {
		version, plugin = 3, "io.containerd.cri.v1.runtime"
	}
	section := func(depth int, below string) { add("%s[plugins.%q%s]", strings.Repeat("  ", depth), plugin, below) }
	add("version = %d\nroot = %q\nstate = %q", version, in("containerd"), c.State)
	add("[grpc]\n  address = %q\n[ttrpc]\n  address = %q", c.Socket, c.Socket+".ttrpc")
	add("[plugins.%q]\n  path = %q", "io.containerd.internal.v1.opt", in("opt"))
	if version == 3 {
		// The socket of NRI is one for a machine.
		add("[plugins.%q]\n  disable = true", "io.containerd.nri.v1.nri")
		add("[plugins.%q.pinned_images]\n  sandbox = %q", "io.containerd.cri.v1.images", c.Pause)
	}
	section(0, "")
	if version == 2 {
		add("  sandbox_image = %q", c.Pause)
	}
	add("  restrict_oom_score_adj = true\n  netns_mounts_under_state_dir = true")
	if c.CDI != "" {
		add("  cdi_spec_dirs = [%q]", c.CDI)
	}
	section(1, ".cni")
	if version == 2 {
		add("    bin_dir = %q", "/usr/lib/cni")
	} else {
		add("    bin_dirs = [%q]", "/usr/lib/cni")
	}
	add("    conf_dir = %q", in("cni"))
	name, program := "runc", ""
	if version == 3 {
		program = filepath.Join(c.Tools, "runc")
	}
	if c.Crun != "" {
		name, program = "crun", c.Crun
		section(1, ".containerd")
		add("    default_runtime_name = %q", name)
	}
	section(1, ".containerd.runtimes."+name)
	add("    runtime_type = %q", "io.containerd.runc.v2")
	if version == 3 {
		// Named in full, as runc is: a distribution's own may stand earlier in the PATH.
		add("    runtime_path = %q", filepath.Join(c.Tools, "containerd-shim-runc-v2"))
	}
	section(2, ".containerd.runtimes."+name+".options")
	if program != "" {
		add("      BinaryName = %q", program)
	}
	if c.Runs != "" {
		add("      Root = %q", c.Runs)
	}
	return []byte(b.String())
}
