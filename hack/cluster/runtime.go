package main

import "fmt"

// runtimeConfig is the configuration of the node's containerd: of version 3 for the built 2.x, of version 2 for the 1.x of
// a distribution.
func (n node) runtimeConfig() []byte {
	daemon := fmt.Sprintf(`root = %q
state = %q
[grpc]
  address = %q
[ttrpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, n.path("containerd"), n.path("state"), n.socket(), n.socket()+".ttrpc", n.path("opt"))
	if *runtime == "distro" {
		return fmt.Appendf(nil, `version = 2
%s[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = %q
`, daemon, *pauseImage, n.path("cni"), n.path("runc"))
	}
	// The shim and runc are named in full: a distribution's own may stand earlier in the PATH. The socket of NRI is one
	// for a machine, and there are several nodes on it.
	return fmt.Appendf(nil, `version = 3
%s[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = %q
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = %q
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = %q
      Root = %q
`, daemon, *pauseImage, n.path("cni"), tool("containerd-shim-runc-v2"), tool("runc"), n.path("runc"))
}
