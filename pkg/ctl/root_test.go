package ctl

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// Whoever follows a help text types our name.
func TestHelpTellsOurName(t *testing.T) {
	address := regexp.MustCompile(`https?://\S+`)
	seen := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		seen++
		texts := []string{c.Long, c.Example}
		for _, flags := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			flags.VisitAll(func(f *pflag.Flag) { texts = append(texts, f.Usage) })
		}
		for _, text := range texts {
			if strings.Contains(address.ReplaceAllString(text, ""), "kubectl ") {
				t.Errorf("%s: %s", c.CommandPath(), text)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(New("v0"))
	if seen < 100 {
		t.Errorf("only %d commands", seen)
	}
}

// Without a server, the client still tells its own version, and the error is one that kubectl's library has words for.
func TestVersionWithoutServer(t *testing.T) {
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: "https://127.0.0.1:1"}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
	config.CurrentContext = "c"
	factory := cmdutil.NewFactory(genericclioptions.NewTestConfigFlags().WithClientConfig(clientcmd.NewDefaultClientConfig(*config, &clientcmd.ConfigOverrides{})))
	out := &bytes.Buffer{}
	c := newVersion(factory, genericiooptions.IOStreams{Out: out, ErrOut: out}, "v0")
	c.SilenceUsage, c.SilenceErrors = true, true
	c.SetArgs([]string{})
	err := c.Execute()
	if message, known := cmdutil.StandardErrorMessage(err); !known || !strings.Contains(message, "did you specify the right host or port?") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(out.String(), "ctl                 v0\n") {
		t.Errorf("said\n%s", out)
	}
}
