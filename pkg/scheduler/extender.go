package scheduler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// extender is a server that has a say about nodes, asked over HTTP.
type extender struct {
	configv1.Extender
	client *http.Client
}

// mostAnswer bounds an extender's answer, in bytes.
const mostAnswer = 64 << 20

func newExtenders(from []configv1.Extender) ([]*extender, error) {
	var out []*extender
	binders := 0
	for i := range from {
		e := &extender{Extender: from[i]}
		if e.URLPrefix == "" {
			return nil, fmt.Errorf("extenders[%d]: urlPrefix is missing", i)
		}
		if e.PrioritizeVerb != "" && e.Weight <= 0 {
			return nil, fmt.Errorf("extenders[%d]: a prioritizeVerb needs a weight above 0", i)
		}
		if e.BindVerb != "" {
			if binders++; binders > 1 {
				return nil, errors.New("only one extender can implement bind")
			}
		}
		rc := &rest.Config{Timeout: e.HTTPTimeout.Duration}
		if rc.Timeout <= 0 {
			rc.Timeout = 5 * time.Second
		}
		if t := e.TLSConfig; t != nil {
			rc.TLSClientConfig = rest.TLSClientConfig{Insecure: t.Insecure, ServerName: t.ServerName, CertFile: t.CertFile, KeyFile: t.KeyFile,
				CAFile: t.CAFile, CertData: t.CertData, KeyData: t.KeyData, CAData: t.CAData}
		}
		if e.EnableHTTPS && len(rc.CAFile)+len(rc.CAData) == 0 {
			rc.Insecure = true // as upstream does
		}
		transport, err := rest.HTTPClientFor(rc)
		if err != nil {
			return nil, fmt.Errorf("extenders[%d]: %w", i, err)
		}
		e.client = transport
		out = append(out, e)
	}
	return out, nil
}

// interested says whether the extender wants to be asked about a pod: about all, or those that use a resource it manages.
func (e *extender) interested(p *v1.Pod) bool {
	if len(e.ManagedResources) == 0 {
		return true
	}
	uses := func(containers []v1.Container) bool {
		return slices.ContainsFunc(containers, func(c v1.Container) bool {
			return slices.ContainsFunc(e.ManagedResources, func(m configv1.ExtenderManagedResource) bool {
				_, request := c.Resources.Requests[v1.ResourceName(m.Name)]
				_, limit := c.Resources.Limits[v1.ResourceName(m.Name)]
				return request || limit
			})
		})
	}
	return uses(p.Spec.Containers) || uses(p.Spec.InitContainers)
}

func (e *extender) binds() bool { return e.BindVerb != "" }

func (s *Scheduler) interested(p *v1.Pod) (out []*extender) {
	for _, e := range s.extenders {
		if (e.FilterVerb != "" || e.PrioritizeVerb != "") && e.interested(p) {
			out = append(out, e)
		}
	}
	return out
}

// errAsk ends a first decision that was made only to learn the candidates.
var errAsk = errors.New("extenders are to be asked")

// decideWith decides with extenders: once to learn the candidates, then, after they were asked without the lock, again with what they
// said. A node that became a candidate in between was not asked about and does not count. The lock is held before and after.
func (s *Scheduler) decideWith(ctx context.Context, asked []*extender, w *waiting, snapshot rules.Snapshot) (rules.Plan, error) {
	var candidates []rules.Candidate
	snapshot.Adjust = func(c []rules.Candidate) (rules.Adjustment, error) {
		candidates = slices.Clone(c)
		return rules.Adjustment{}, errAsk
	}
	plan, err := decide(snapshot)
	if !errors.Is(err, errAsk) {
		return plan, err
	}
	nodes := make(map[string]*v1.Node, len(candidates))
	for _, c := range candidates {
		if o, ok, _ := s.nodes.GetByKey(c.Node); ok {
			nodes[c.Node] = o.(*v1.Node)
		}
	}
	raw := w.raw
	s.mu.Unlock()
	answer, err := ask(ctx, asked, raw, candidates, nodes)
	s.mu.Lock()
	if err != nil {
		return rules.Plan{}, err
	}
	snapshot.Adjust = func(c []rules.Candidate) (rules.Adjustment, error) {
		for i := range c {
			if nodes[c[i].Node] == nil {
				answer.Refused[c[i].Node] = rules.Verdict{Plugin: asked[0].URLPrefix, Reasons: []string{"node(s) were not known to the extender"}}
			}
		}
		return answer, nil
	}
	return decide(snapshot)
}

// ask asks the extenders one after another about the nodes that are left, then all for scores.
func ask(ctx context.Context, asked []*extender, p *v1.Pod, candidates []rules.Candidate, nodes map[string]*v1.Node) (rules.Adjustment, error) {
	out := rules.Adjustment{Refused: map[string]rules.Verdict{}, Bonus: map[string]int64{}}
	left := make([]string, 0, len(candidates))
	for _, c := range candidates {
		if nodes[c.Node] != nil {
			left = append(left, c.Node)
		}
	}
	for _, e := range asked {
		if e.FilterVerb == "" || len(left) == 0 {
			continue
		}
		var answer extenderv1.ExtenderFilterResult
		err := e.send(ctx, e.FilterVerb, e.about(p, left, nodes), &answer)
		if err == nil && answer.Error != "" {
			err = errors.New(answer.Error)
		}
		if err != nil {
			if e.Ignorable {
				slog.Warn("an extender that may be ignored failed", "extender", e.URLPrefix, "error", err)
				continue
			}
			return out, fmt.Errorf("extender %s: %w", e.URLPrefix, err)
		}
		kept := map[string]bool{}
		switch {
		case e.NodeCacheCapable && answer.NodeNames != nil:
			for _, name := range *answer.NodeNames {
				kept[name] = true
			}
		case answer.Nodes != nil:
			for i := range answer.Nodes.Items {
				kept[answer.Nodes.Items[i].Name] = true
			}
		}
		next := left[:0:0]
		for _, name := range left {
			if kept[name] { // a node it was not asked about is not taken from it
				next = append(next, name)
				continue
			}
			reason, final := answer.FailedAndUnresolvableNodes[name]
			if !final {
				reason = answer.FailedNodes[name]
			}
			if reason == "" {
				reason = "node(s) were refused by extender " + e.URLPrefix
			}
			out.Refused[name] = rules.Verdict{Plugin: e.URLPrefix, Reasons: []string{reason}, Final: final}
		}
		left = next
	}
	for _, e := range asked {
		if e.PrioritizeVerb == "" || len(left) == 0 {
			continue
		}
		var scores extenderv1.HostPriorityList
		if err := e.send(ctx, e.PrioritizeVerb, e.about(p, left, nodes), &scores); err != nil {
			slog.Warn("an extender gave no scores", "extender", e.URLPrefix, "error", err)
			continue
		}
		for _, h := range scores {
			score := min(max(h.Score, extenderv1.MinExtenderPriority), extenderv1.MaxExtenderPriority)
			out.Bonus[h.Host] += score * e.Weight * (100 / extenderv1.MaxExtenderPriority)
		}
	}
	return out, nil
}

func (e *extender) about(p *v1.Pod, names []string, nodes map[string]*v1.Node) *extenderv1.ExtenderArgs {
	if e.NodeCacheCapable {
		return &extenderv1.ExtenderArgs{Pod: p, NodeNames: &names}
	}
	list := &v1.NodeList{}
	for _, name := range names {
		list.Items = append(list.Items, *nodes[name])
	}
	return &extenderv1.ExtenderArgs{Pod: p, Nodes: list}
}

// bind has the extender bind the pod.
func (e *extender) bind(ctx context.Context, p *v1.Pod, node string) error {
	var answer extenderv1.ExtenderBindingResult
	err := e.send(ctx, e.BindVerb, &extenderv1.ExtenderBindingArgs{PodName: p.Name, PodNamespace: p.Namespace, PodUID: p.UID, Node: node}, &answer)
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	return err
}

// send posts args to a verb and reads the answer. It ends with the extender's timeout.
func (e *extender) send(ctx context.Context, verb string, args, answer any) error {
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	url := strings.TrimRight(e.URLPrefix, "/") + "/" + verb
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := e.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("failed %s with extender at URL %s, code %d", verb, url, response.StatusCode)
	}
	return json.NewDecoder(io.LimitReader(response.Body, mostAnswer)).Decode(answer)
}
