// Command ctl is the command-line client of a Kubernetes cluster.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/sextant-k8s/sextant/pkg/ctl"
)

// version is stamped by the linker.
var version = "v0.1.0-dev"

func main() {
	if err := cli.RunNoErrOutput(ctl.New("v1.37.2-sextant-" + version)); err != nil {
		cmdutil.CheckErr(err)
		os.Exit(1)
	}
}
