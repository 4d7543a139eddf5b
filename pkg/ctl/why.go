package ctl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"sigs.k8s.io/yaml"
)

// Where the leading scheduler writes how it is reached, on its lease.
const (
	addressAnnotation     = "sextant.dev/address"
	fingerprintAnnotation = "sextant.dev/certificate-sha256"
)

// why is what the command was asked.
type why struct {
	streams   genericiooptions.IOStreams
	output    string
	whatIf    bool
	file      string
	address   string
	lease     string
	client    kubernetes.Interface
	config    *rest.Config
	namespace string
	now       func() time.Time
}

func newWhy(f cmdutil.Factory, streams genericiooptions.IOStreams) *cobra.Command {
	w := &why{streams: streams, now: time.Now}
	c := &cobra.Command{
		Use:   "why (pod NAME | --what-if -f FILE)",
		Short: "Say why a pod has no node, and what would give it one",
		Long: "Say why a pod has no node, node by node, and what would give it one. The scheduler is asked on its own port, which its lease tells; " +
			"the caller needs the right to get, or for --what-if to post, the non-resource URL /explain/*.\n\n" +
			"With --what-if, a pod that does not exist is scheduled against the cluster as it is, and nothing is changed. The file may also hold a " +
			"workload with a pod template.",
		Example: "  # Why does web-0 not start?\n  ctl why pod web-0\n\n  # Where would this pod go?\n  ctl why --what-if -f pod.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if w.config, err = f.ToRESTConfig(); err != nil {
				return err
			}
			if w.namespace, _, err = f.ToRawKubeConfigLoader().Namespace(); err != nil {
				return err
			}
			w.config.Timeout = 30 * time.Second
			if w.client, err = kubernetes.NewForConfig(w.config); err != nil {
				return err
			}
			ctx := c.Context()
			if ctx == nil {
				ctx = context.Background()
			}
			return w.run(ctx, args)
		},
	}
	c.Flags().BoolVar(&w.whatIf, "what-if", false, "Schedule the pod of --filename without making it.")
	c.Flags().StringVarP(&w.file, "filename", "f", "", "File with the pod of --what-if; - is standard input.")
	c.Flags().StringVarP(&w.output, "output", "o", "", "One of 'wide' (a line for each node), 'yaml' or 'json'.")
	c.Flags().StringVar(&w.address, "scheduler", "", "host:port of the scheduler, instead of what its lease says.")
	c.Flags().StringVar(&w.lease, "scheduler-lease", "kube-scheduler", "Lease of the scheduler in kube-system.")
	return c
}

// The scheduler's answer, as far as it is printed.
type explanation struct {
	Pod     string     `json:"pod"`
	State   string     `json:"state"`
	Node    string     `json:"node,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	NextTry *time.Time `json:"nextTry,omitempty"`
	Last    *struct {
		When      time.Time `json:"when"`
		Attempts  int       `json:"attempts"`
		Message   string    `json:"message"`
		Nominated string    `json:"nominated,omitempty"`
	} `json:"last,omitempty"`
	Now *outlook `json:"now,omitempty"`
}

type outlook struct {
	Node      string        `json:"node,omitempty"`
	Message   string        `json:"message,omitempty"`
	Nominated string        `json:"nominated,omitempty"`
	Victims   []string      `json:"victims,omitempty"`
	Nodes     []nodeOutlook `json:"nodes"`
}

type nodeOutlook struct {
	Name     string    `json:"name"`
	Fits     bool      `json:"fits"`
	Score    int64     `json:"score,omitempty"`
	Refusals []refusal `json:"refusals,omitempty"`
}

type refusal struct {
	Plugin    string   `json:"plugin"`
	Reasons   []string `json:"reasons"`
	Advice    string   `json:"advice,omitempty"`
	Evictable bool     `json:"evictable,omitempty"`
}

func (w *why) run(ctx context.Context, args []string) error {
	if w.output != "" && w.output != "wide" && w.output != "yaml" && w.output != "json" {
		return fmt.Errorf("--output must be 'wide', 'yaml' or 'json', not %q", w.output)
	}
	if w.whatIf {
		if w.file == "" || len(args) > 0 {
			return errors.New("--what-if takes a file, and no other argument: ctl why --what-if -f pod.yaml")
		}
		pod, err := w.readPod(ctx)
		if err != nil {
			return err
		}
		body, err := json.Marshal(pod)
		if err != nil {
			return err
		}
		answer, err := w.ask(ctx, http.MethodPost, "/explain/what-if", body)
		if err != nil {
			return err
		}
		return w.print(answer)
	}
	name, err := podName(args)
	if err != nil {
		return err
	}
	pod, err := w.client.CoreV1().Pods(w.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if pod.Spec.NodeName != "" {
		w.printBound(pod)
		return nil
	}
	answer, err := w.ask(ctx, http.MethodGet, fmt.Sprintf("/explain/namespaces/%s/pods/%s", w.namespace, name), nil)
	if err == nil {
		return w.print(answer)
	}
	// Without the scheduler, what it wrote on the pod still says something.
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			_, _ = fmt.Fprintf(w.streams.Out, "Pod %s/%s has no node. %s: %s\n", w.namespace, name, c.Reason, printable(c.Message))
			_, _ = fmt.Fprintf(w.streams.ErrOut, "The scheduler (%s) was not to be asked for more: %s\n", pod.Spec.SchedulerName, printable(err.Error()))
			return nil
		}
	}
	return err
}

// podName reads "pod NAME" and "pod/NAME".
func podName(args []string) (string, error) {
	kinds := []string{"pod", "pods", "po"}
	switch {
	case len(args) == 2 && slices.Contains(kinds, args[0]):
		return args[1], nil
	case len(args) == 1:
		if kind, name, ok := strings.Cut(args[0], "/"); ok && slices.Contains(kinds, kind) && name != "" {
			return name, nil
		}
	}
	return "", errors.New("want a pod: ctl why pod NAME, or ctl why --what-if -f pod.yaml")
}

// readPod reads the file's pod, or the pod of its template, and lets a dry run give it what admission would.
func (w *why) readPod(ctx context.Context) (*corev1.Pod, error) {
	var raw []byte
	var err error
	if w.file == "-" {
		raw, err = io.ReadAll(w.streams.In)
	} else {
		raw, err = os.ReadFile(w.file)
	}
	if err != nil {
		return nil, err
	}
	u := unstructured.Unstructured{}
	if err := yaml.Unmarshal(raw, &u.Object); err != nil {
		return nil, fmt.Errorf("reading %s: %w", w.file, err)
	}
	object := u.Object
	if template, ok, err := unstructured.NestedMap(object, "spec", "template"); err == nil && ok {
		object = template
		_ = unstructured.SetNestedField(object, u.GetName(), "metadata", "name")
	} else if u.GetKind() != "Pod" {
		return nil, fmt.Errorf("%s holds a %q: want a Pod, or a workload with a template of one", w.file, u.GetKind())
	}
	pod := &corev1.Pod{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, pod); err != nil {
		return nil, fmt.Errorf("reading %s: %w", w.file, err)
	}
	pod.GenerateName, pod.Name, pod.ResourceVersion, pod.UID = pod.Name+"-", "", "", ""
	if pod.GenerateName == "-" {
		pod.GenerateName = "what-if-"
	}
	ns := w.namespace
	if u.GetNamespace() != "" {
		ns = u.GetNamespace()
	}
	pod.Namespace = ns
	made, err := w.client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return nil, err
	}
	made.APIVersion, made.Kind = "v1", "Pod"
	return made, nil
}

// ask sends a request to the scheduler that leads, whose certificate must be the one it wrote on its lease.
func (w *why) ask(ctx context.Context, method, path string, body []byte) (*explanation, error) {
	lease, err := w.client.CoordinationV1().Leases(metav1.NamespaceSystem).Get(ctx, w.lease, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("finding the scheduler: %w", err)
	}
	address, pin := lease.Annotations[addressAnnotation], lease.Annotations[fingerprintAnnotation]
	if w.address != "" {
		address = w.address
	}
	if address == "" || pin == "" {
		return nil, fmt.Errorf("lease kube-system/%s does not say where the scheduler's port is: its holder does not explain itself", w.lease)
	}
	client, err := pinned(w.config, pin)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, "https://"+address+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("asking the scheduler: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(response.Body, 256<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the scheduler at %s answers %d: %s", address, response.StatusCode, printable(strings.TrimSpace(string(raw))))
	}
	out := &explanation{}
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, fmt.Errorf("reading the scheduler's answer: %w", err)
	}
	return out, nil
}

// pinned answers a client with the user's credentials that talks to nobody but the holder of the certificate.
func pinned(from *rest.Config, pin string) (*http.Client, error) {
	config := rest.CopyConfig(from)
	config.TLSClientConfig.CAData, config.TLSClientConfig.CAFile, config.TLSClientConfig.ServerName = nil, "", ""
	config.TLSClientConfig.Insecure = true // the fingerprint is what is trusted, not an authority
	about, err := config.TransportConfig()
	if err != nil {
		return nil, err
	}
	conf, err := transport.TLSConfigFor(about)
	if err != nil {
		return nil, err
	}
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		if sum := sha256.Sum256(state.PeerCertificates[0].Raw); hex.EncodeToString(sum[:]) != pin {
			return errors.New("the certificate served is not the one the scheduler wrote on its lease")
		}
		return nil
	}
	trip, err := transport.HTTPWrappersForConfig(about, &http.Transport{TLSClientConfig: conf})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: trip, Timeout: config.Timeout}, nil
}

func (w *why) printBound(pod *corev1.Pod) {
	out := w.streams.Out
	_, _ = fmt.Fprintf(out, "Pod %s/%s has a node: %s. It is %s.\n", pod.Namespace, pod.Name, pod.Spec.NodeName, pod.Status.Phase)
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, c := range list {
			if c.State.Waiting != nil {
				_, _ = fmt.Fprintf(out, "Container %s waits: %s %s\n", c.Name, c.State.Waiting.Reason, printable(c.State.Waiting.Message))
			}
		}
	}
}

func (w *why) print(e *explanation) error {
	switch w.output {
	case "json":
		enc := json.NewEncoder(w.streams.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(e)
	case "yaml":
		raw, err := yaml.Marshal(e)
		if err == nil {
			_, err = w.streams.Out.Write(raw)
		}
		return err
	}
	var b strings.Builder
	e.describe(&b, w.now(), w.output == "wide")
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w.streams.Out, strings.TrimRight(printable(line), " \n")); err != nil {
			return err
		}
	}
	return nil
}

// describe writes the answer for people.
func (e *explanation) describe(out io.Writer, now time.Time, wide bool) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	ago := func(t time.Time) string { return duration.HumanDuration(now.Sub(t)) }
	switch {
	case e.Node != "":
		say("Pod %s has a node: %s.", e.Pod, e.Node)
		return
	case e.Since != nil:
		say("Pod %s has waited %s for a node; it is %s.", e.Pod, ago(*e.Since), e.State)
	default:
		say("Pod %s, if it were created now:", e.Pod)
	}
	if e.Last != nil {
		switch e.Last.Attempts {
		case 0:
			say("%s", e.Last.Message)
		case 1:
			say("Last decision, %s ago: %s", ago(e.Last.When), e.Last.Message)
		default:
			say("Last decision, %s ago, after %d attempts: %s", ago(e.Last.When), e.Last.Attempts, e.Last.Message)
		}
		if e.Last.Nominated != "" {
			say("Room is being made for it on %s.", e.Last.Nominated)
		}
	}
	if e.NextTry != nil && e.NextTry.After(now) {
		say("It is tried again in %s.", duration.HumanDuration(e.NextTry.Sub(now)))
	}
	if e.Now == nil {
		return
	}
	switch {
	case e.Now.Node != "" && e.State == "gated":
		say("Without its gates it would go to %s.", e.Now.Node)
	case e.Now.Node != "":
		say("Now it would go to %s.", e.Now.Node)
	case e.Now.Nominated != "":
		say("Now it would make room on %s by evicting %s.", e.Now.Nominated, strings.Join(e.Now.Victims, ", "))
	case e.Last == nil || e.Last.Message != e.Now.Message:
		say("Now: %s", e.Now.Message)
	}
	say("")
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "NODES\tFIT\tPLUGIN\tREASON\tWHAT WOULD HELP")
	for _, g := range e.Now.groups(wide) {
		g.write(table)
	}
	_ = table.Flush()
}

// group is nodes of which the same is to be said.
type group struct {
	nodes    []string
	fits     bool
	score    int64
	refusals []refusal
}

// groups puts nodes with the same refusals together, those that fit first; with each, every node stands alone.
func (o *outlook) groups(each bool) []*group {
	var out []*group
	byText := map[string]*group{}
	for _, n := range o.Nodes {
		text := fmt.Sprint(n.Fits, n.Refusals)
		g := byText[text]
		if g == nil || each {
			g = &group{fits: n.Fits, refusals: n.Refusals, score: n.Score}
			byText[text] = g
			out = append(out, g)
		}
		g.score = max(g.score, n.Score)
		g.nodes = append(g.nodes, n.Name)
	}
	slices.SortStableFunc(out, func(a, b *group) int {
		switch {
		case a.fits != b.fits && a.fits:
			return -1
		case a.fits != b.fits:
			return 1
		case a.fits:
			return int(b.score - a.score)
		}
		return len(b.nodes) - len(a.nodes)
	})
	return out
}

func (g *group) write(out io.Writer) {
	names := strings.Join(g.nodes[:min(len(g.nodes), 3)], ", ")
	if len(g.nodes) > 3 {
		names = fmt.Sprintf("%d: %s, ...", len(g.nodes), names)
	}
	if g.fits {
		_, _ = fmt.Fprintf(out, "%s\tyes\t\tbest score %d\t\n", names, g.score)
		return
	}
	for i, r := range g.refusals {
		fit := "no"
		if i > 0 {
			names, fit = "", ""
		}
		advice := r.Advice
		if r.Evictable {
			advice += " (evicting pods may help)"
		}
		_, _ = fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", names, fit, r.Plugin, strings.Join(r.Reasons, "; "), strings.TrimSpace(advice))
	}
}

// printable keeps control characters of a server's answer off the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
