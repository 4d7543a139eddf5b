package ctl

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// New returns the command tree for the arguments of this process. version is ctl's own.
func New(version string) *cobra.Command {
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithWarningPrinter(streams)
	flags.WithWrapConfigFn(func(c *rest.Config) *rest.Config {
		c.QPS = -1 // the apiserver queues; a client-side limit only adds waiting
		return c
	})
	root := cmd.NewDefaultKubectlCommandWithArgs(cmd.KubectlOptions{
		PluginHandler: cmd.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     os.Args,
		ConfigFlags:   flags,
		IOStreams:     streams,
	})
	root.Use = "ctl"
	root.Short = "ctl controls a Kubernetes cluster"
	replace(root, newVersion(cmdutil.NewFactory(cmdutil.NewMatchVersionFlags(flags)), streams, version))
	return root
}

// replace puts our command in the place of kubectl's command of the same name.
func replace(root, ours *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() == ours.Name() {
			root.RemoveCommand(c)
		}
	}
	root.AddCommand(ours)
}
