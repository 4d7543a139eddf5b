package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
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

// TestMain lets this test's program be ctl, as plugins take the place of the process.
func TestMain(m *testing.M) {
	if os.Getenv("CTL_OF_TEST") != "" {
		if New("v0").Execute() != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A plugin serves a verb that nobody has, and a kind that create does not know; our verbs and kubectl's are nobody else's.
func TestPlugins(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"kubectl-foo", "kubectl-create-thing", "kubectl-why", "kubectl-create-configmap"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho plugin "+name+" $*\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"foo", "a"}, "plugin kubectl-foo a\n"},
		{[]string{"create", "thing", "a"}, "plugin kubectl-create-thing a\n"},
		{[]string{"why", "--help"}, "Say why a pod has no node"},
		{[]string{"create", "configmap", "--help"}, "Create a config map"},
	} {
		run := exec.Command(os.Args[0], c.args...)
		run.Env = []string{"CTL_OF_TEST=1", "PATH=" + dir + ":/bin:/usr/bin", "HOME=" + dir}
		if out, err := run.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), c.want) {
			t.Errorf("%v: %v, %s", c.args, err, out)
		}
	}
}

// Nodes that do not answer are waited for together.
func TestVersionsOfManyNodes(t *testing.T) {
	const nodes = 20
	var asked sync.WaitGroup
	asked.Add(nodes)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/api/v1/nodes":
			list := corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}}
			for i := range nodes {
				list.Items = append(list.Items, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%02d", i)}})
			}
			_ = json.NewEncoder(w).Encode(list)
		case strings.HasSuffix(r.URL.Path, ":10256/proxy/version"):
			asked.Done()
			asked.Wait() // one after the other, each would be given up
			_, _ = w.Write([]byte(`{"gitVersion": "v1"}`))
		case r.URL.Path == "/version":
			_, _ = w.Write([]byte(`{"gitVersion": "v2"}`))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	v := versions{}
	if err := v.ask(t.Context(), kubernetes.NewForConfigOrDie(&rest.Config{Host: server.URL, QPS: -1})); err != nil {
		t.Fatal(err)
	}
	if last := v.Components[len(v.Components)-1]; len(v.Components) != 3+2*nodes || last != (component{"proxy", "n19", "v1"}) {
		t.Errorf("have %v", v.Components)
	}
}
