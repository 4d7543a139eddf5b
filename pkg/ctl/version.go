package ctl

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"sigs.k8s.io/yaml"

	apiversion "k8s.io/apimachinery/pkg/version"
)

// VersionLabel is the Lease label in which an elected daemon writes its own version.
const VersionLabel = "sextant.dev/version"

// atOnce is how many proxies are asked at once: each that is away takes seconds.
const atOnce = 64

// unknown stands where a component could not be asked.
const unknown = "unknown"

// component is one running daemon (or this client) and its version.
type component struct {
	Component string `json:"component"`
	Where     string `json:"where,omitempty"`
	Version   string `json:"version"`
}

// versions is what -o json and yaml print: kubectl's fields, then ours.
type versions struct {
	ClientVersion *apiversion.Info `json:"clientVersion,omitempty"`
	ServerVersion *apiversion.Info `json:"serverVersion,omitempty"`
	Components    []component      `json:"components,omitempty"`
}

func newVersion(f cmdutil.Factory, streams genericiooptions.IOStreams, own string) *cobra.Command {
	var clientOnly bool
	var output string
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this client and of every component of the cluster",
		Long: "Print the version of this client and of every component of the cluster. The apiserver answers for itself, " +
			"scheduler and controller-manager write theirs on their Lease, a kubelet in its Node, and a proxy serves it on its health port.",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("extra arguments: %v", args)
			}
			if output != "" && output != "yaml" && output != "json" {
				return fmt.Errorf("--output must be 'yaml' or 'json', not %q", output)
			}
			v := versions{
				ClientVersion: &apiversion.Info{Major: "1", Minor: "37", GitVersion: own, GoVersion: runtime.Version(), Compiler: runtime.Compiler,
					Platform: runtime.GOOS + "/" + runtime.GOARCH},
				Components: []component{{Component: "ctl", Version: own}},
			}
			if clientOnly {
				return v.print(streams.Out, output)
			}
			config, err := f.ToRESTConfig()
			if err != nil {
				return err
			}
			config.Timeout = 10 * time.Second
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			refused := v.ask(c.Context(), client)
			if err := v.print(streams.Out, output); err != nil {
				return err
			}
			return refused
		},
	}
	c.Flags().BoolVar(&clientOnly, "client", false, "If true, shows client version only (no server required).")
	c.Flags().StringVarP(&output, "output", "o", "", "One of 'yaml' or 'json'.")
	return c
}

// ask fills in what the cluster answers. Only an apiserver that does not answer is an error, as it came, for kubectl's
// library to say in its words; the rest is shown as far as the user may see it.
func (v *versions) ask(ctx context.Context, client kubernetes.Interface) error {
	if ctx == nil {
		ctx = context.Background()
	}
	info, err := client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	v.ServerVersion = info
	v.Components = append(v.Components, component{Component: "apiserver", Version: info.GitVersion})
	for _, lease := range []struct{ component, name string }{
		{"scheduler", "kube-scheduler"}, {"controller-manager", "kube-controller-manager"},
	} {
		l, err := client.CoordinationV1().Leases(metav1.NamespaceSystem).Get(ctx, lease.name, metav1.GetOptions{})
		if err != nil {
			v.Components = append(v.Components, component{Component: lease.component, Version: unknown})
			continue
		}
		v.Components = append(v.Components, component{lease.component, holder(l), leaseVersion(l)})
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil
	}
	sort.Slice(nodes.Items, func(i, j int) bool { return nodes.Items[i].Name < nodes.Items[j].Name })
	for _, n := range nodes.Items {
		v.Components = append(v.Components, component{"kubelet", n.Name, cmp.Or(n.Status.NodeInfo.KubeletVersion, unknown)})
	}
	proxies := make([]component, len(nodes.Items))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range nodes.Items {
		group.Go(func() error {
			n := &nodes.Items[i]
			proxies[i] = component{"proxy", n.Name, proxyVersion(ctx, client, n)}
			return nil
		})
	}
	_ = group.Wait() // none fails
	v.Components = append(v.Components, proxies...)
	return nil
}

func holder(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	host, _, _ := strings.Cut(*l.Spec.HolderIdentity, "_")
	return host
}

func leaseVersion(l *coordinationv1.Lease) string {
	if v := l.Labels[VersionLabel]; v != "" {
		return v
	}
	return unknown
}

// proxyVersion asks a node's proxy through the apiserver: the health port also serves /version.
func proxyVersion(ctx context.Context, client kubernetes.Interface, n *corev1.Node) string {
	raw, err := client.CoreV1().RESTClient().Get().Resource("nodes").Name(n.Name + ":10256").SubResource("proxy").Suffix("version").
		Timeout(3 * time.Second).DoRaw(ctx)
	if err != nil {
		return unknown
	}
	var info apiversion.Info
	if json.Unmarshal(raw, &info) != nil || info.GitVersion == "" {
		return unknown
	}
	return info.GitVersion
}

func (v *versions) print(out io.Writer, format string) error {
	switch format {
	case "json":
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = out.Write(b)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, "COMPONENT\tWHERE\tVERSION")
	for _, c := range v.Components {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", c.Component, c.Where, c.Version)
	}
	return w.Flush()
}
