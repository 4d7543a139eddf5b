package main

import (
	"path/filepath"

	"github.com/sextant-k8s/sextant/hack/containerd"
)

// runtimeConfig is the configuration of the node's containerd.
func (n node) runtimeConfig() []byte {
	c := containerd.Config{Dir: n.path(""), State: n.path("state"), Socket: n.socket(), Pause: *pauseImage, Runs: n.path("runc")}
	if *runtime != "distro" {
		c.Tools = filepath.Dir(tool("runc"))
	}
	return c.TOML()
}
