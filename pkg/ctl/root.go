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
	options := cmd.KubectlOptions{Arguments: os.Args, ConfigFlags: flags, IOStreams: streams}
	root := cmd.NewDefaultKubectlCommandWithArgs(options)
	addOurs(root, flags, streams, version)
	if _, _, err := root.Find(os.Args[1:]); err != nil {
		// Nobody's verb yet: kubectl's library looks for a plugin while it builds its tree, which knows nothing of our verbs.
		options.PluginHandler = cmd.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes)
		root = cmd.NewDefaultKubectlCommandWithArgs(options)
		addOurs(root, flags, streams, version)
	}
	return root
}

// addOurs hangs our commands into the tree.
func addOurs(root *cobra.Command, flags *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams, version string) {
	root.Use = "ctl"
	root.Short = "ctl controls a Kubernetes cluster"
	factory := cmdutil.NewFactory(cmdutil.NewMatchVersionFlags(flags))
	replace(root, newVersion(factory, streams, version))
	replace(root, newWhy(factory, streams))
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
