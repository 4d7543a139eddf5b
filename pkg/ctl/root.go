package ctl

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
	if found, _, err := root.Find(os.Args[1:]); err != nil || cmd.IsSubcommandPluginAllowed(found.Name()) {
		// Nobody's verb yet, or it may be a plugin's below create: kubectl's library looks for one while it builds its tree, which knows nothing of our verbs.
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
	rename(root)
}

// ourName leaves kubectl's name only in addresses, and in names of plugins and annotations.
var ourName = strings.NewReplacer("kubectl ", "ctl ", "kubectl\n", "ctl\n", "_completion.d/kubectl", "_completion.d/ctl", "/_kubectl", "/_ctl", "/kubectl.fish", "/ctl.fish")

// rename puts our name where the help texts of kubectl's library tell what to type.
func rename(c *cobra.Command) {
	own := func(text *string) { *text = ourName.Replace(*text) }
	own(&c.Long)
	own(&c.Example)
	for _, flags := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
		flags.VisitAll(func(f *pflag.Flag) { own(&f.Usage) })
	}
	for _, sub := range c.Commands() {
		rename(sub)
	}
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
