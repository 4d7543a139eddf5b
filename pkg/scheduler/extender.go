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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
		if (e.FilterVerb != "" || e.PrioritizeVerb != "" || e.PreemptVerb != "") && e.interested(p) {
			out = append(out, e)
		}
	}
	return out
}

// errAsk ends a decision that was made only to learn what to ask extenders about.
var errAsk = errors.New("extenders are to be asked")

// decideWith decides with extenders: once to learn the candidates, then, after they were asked without the lock, again with what they
// said; and so with those who would be evicted. A node that became a candidate in between was not asked about and does not count. The
// lock is held before and after.
func (s *Scheduler) decideWith(ctx context.Context, asked []*extender, w *waiting, snapshot rules.Snapshot) (rules.Plan, error) {
	var candidates []rules.Candidate
	var evictions []rules.Eviction
	snapshot.Adjust = func(c []rules.Candidate) (rules.Adjustment, error) {
		candidates = slices.Clone(c)
		return rules.Adjustment{}, errAsk
	}
	if slices.ContainsFunc(asked, func(e *extender) bool { return e.PreemptVerb != "" }) {
		snapshot.Evict = func(on []rules.Eviction) ([]rules.Eviction, error) {
			evictions = slices.Clone(on)
			return nil, errAsk
		}
	}
	for {
		plan, err := decide(snapshot)
		if !errors.Is(err, errAsk) {
			return plan, err
		}
		raw := w.raw
		if evictions != nil {
			s.mu.Unlock()
			left, err := askPreempt(ctx, asked, raw, evictions)
			s.mu.Lock()
			if err != nil {
				return rules.Plan{}, err
			}
			snapshot.Evict = func([]rules.Eviction) ([]rules.Eviction, error) { return s.standing(left), nil }
			continue
		}
		nodes := make(map[string]*v1.Node, len(candidates))
		for _, c := range candidates {
			if o, ok, _ := s.nodes.GetByKey(c.Node); ok {
				nodes[c.Node] = o.(*v1.Node)
			}
		}
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
	}
}

// standing answers the evictions whose victims all stand on their node still. The lock is held.
func (s *Scheduler) standing(all []rules.Eviction) (out []rules.Eviction) {
	for _, e := range all {
		if !slices.ContainsFunc(e.Victims, func(v *rules.Pod) bool {
			p, node := s.table.Pod(v.Key)
			return p == nil || p.UID != v.UID || node != e.Node
		}) {
			out = append(out, e)
		}
	}
	return out
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

// askPreempt asks the extenders one after another whom they would evict: a node that an extender leaves out is none to evict on, and of the
// victims those it names are left.
func askPreempt(ctx context.Context, asked []*extender, p *v1.Pod, on []rules.Eviction) ([]rules.Eviction, error) {
	for _, e := range asked {
		if e.PreemptVerb == "" || len(on) == 0 {
			continue
		}
		args := &extenderv1.ExtenderPreemptionArgs{Pod: p}
		if e.NodeCacheCapable {
			args.NodeNameToMetaVictims = map[string]*extenderv1.MetaVictims{}
		} else {
			args.NodeNameToVictims = map[string]*extenderv1.Victims{}
		}
		for _, v := range on {
			if e.NodeCacheCapable {
				m := &extenderv1.MetaVictims{NumPDBViolations: int64(v.Violations)}
				for _, pod := range v.Victims {
					m.Pods = append(m.Pods, &extenderv1.MetaPod{UID: string(pod.UID)})
				}
				args.NodeNameToMetaVictims[v.Node] = m
				continue
			}
			m := &extenderv1.Victims{NumPDBViolations: int64(v.Violations)}
			for _, pod := range v.Victims {
				m.Pods = append(m.Pods, victimOf(pod, v.Node))
			}
			args.NodeNameToVictims[v.Node] = m
		}
		var answer extenderv1.ExtenderPreemptionResult
		if err := e.send(ctx, e.PreemptVerb, args, &answer); err != nil {
			if e.Ignorable {
				slog.Warn("an extender that may be ignored failed", "extender", e.URLPrefix, "error", err)
				continue
			}
			return nil, fmt.Errorf("extender %s: %w", e.URLPrefix, err)
		}
		var left []rules.Eviction
		for _, v := range on {
			named := answer.NodeNameToMetaVictims[v.Node]
			if named == nil {
				continue
			}
			kept := rules.Eviction{Node: v.Node, Violations: int(named.NumPDBViolations)}
			for _, pod := range v.Victims {
				if slices.ContainsFunc(named.Pods, func(m *extenderv1.MetaPod) bool { return m != nil && m.UID == string(pod.UID) }) {
					kept.Victims = append(kept.Victims, pod)
				}
			}
			// A pod that was no victim is not evicted because an extender says so.
			if len(kept.Victims) > 0 {
				left = append(left, kept)
			}
		}
		on = left
	}
	return on, nil
}

// victimOf is a standing pod as far as it is known here: whole pods are not kept.
func victimOf(p *rules.Pod, node string) *v1.Pod {
	out := &v1.Pod{Spec: v1.PodSpec{NodeName: node, Priority: &p.Class.Priority, SchedulerName: p.Class.Scheduler}}
	out.Namespace, out.Name, out.UID = p.Class.Namespace, p.Name(), p.UID
	return out
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

// boundBy has an extender bind the pod, and sees that it did: one that says so and does not would leave the pod assumed for ever.
func (s *Scheduler) boundBy(ctx context.Context, e *extender, p *v1.Pod, node string) error {
	if err := e.bind(ctx, p, node); err != nil {
		return fmt.Errorf("extender %s: %w", e.URLPrefix, err)
	}
	now, err := s.core.Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if now.UID == p.UID && now.Spec.NodeName != node {
		return fmt.Errorf("extender %s says that it bound the pod to %s; the pod is on %q", e.URLPrefix, node, now.Spec.NodeName)
	}
	return nil
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
