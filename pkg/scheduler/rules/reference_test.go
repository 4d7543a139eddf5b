package rules

import (
	"fmt"
	"math"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	corev1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// model is the cluster as plain objects, and every rule said again in the most direct way: every node, every pod, every time.
type model struct {
	nodes      map[string]*v1.Node
	pods       map[string]*v1.Pod // with a node
	nominated  map[string]*v1.Pod // status.nominatedNodeName
	namespaces map[string]labels.Set
	service    map[string]string // selects pods in any namespace of the model
	budgets    map[string]*policyv1.PodDisruptionBudget
	disks      *disks
}

func (m *model) names() []string {
	var out []string
	for name := range m.nodes {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (m *model) on(node string) (out []*v1.Pod) {
	for _, p := range m.pods {
		if p.Spec.NodeName == node {
			out = append(out, p)
		}
	}
	return out
}

func (m *model) with(pods ...*v1.Pod) *model {
	c := *m
	c.pods = map[string]*v1.Pod{}
	for k, p := range m.pods {
		c.pods[k] = p
	}
	for _, p := range pods {
		c.pods[p.Name] = p
	}
	return &c
}

func (m *model) without(pods ...*v1.Pod) *model {
	c := m.with()
	for _, p := range pods {
		delete(c.pods, p.Name)
	}
	return c
}

func request(p *v1.Pod, name v1.ResourceName) int64 {
	sum := int64(0)
	for i := range p.Spec.Containers {
		q := p.Spec.Containers[i].Resources.Requests[name]
		if name == v1.ResourceCPU {
			sum += q.MilliValue()
		} else {
			sum += q.Value()
		}
	}
	return sum
}

func scoredRequest(p *v1.Pod, name v1.ResourceName) int64 {
	if n := request(p, name); n > 0 {
		return n
	}
	return map[v1.ResourceName]int64{v1.ResourceCPU: 100, v1.ResourceMemory: 200 << 20}[name] * int64(len(p.Spec.Containers))
}

func has(n *v1.Node, name v1.ResourceName) int64 {
	q := n.Status.Allocatable[name]
	if name == v1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func (m *model) means(p *v1.Pod, x *v1.PodAffinityTerm, other *v1.Pod) bool {
	in := slices.Contains(x.Namespaces, other.Namespace) || len(x.Namespaces) == 0 && x.NamespaceSelector == nil && p.Namespace == other.Namespace
	if x.NamespaceSelector != nil && selector(x.NamespaceSelector).Matches(m.namespaces[other.Namespace]) {
		in = true
	}
	return in && selector(x.LabelSelector).Matches(labels.Set(other.Labels))
}

func affinities(p *v1.Pod) (together, apart []v1.PodAffinityTerm, like, dislike []v1.WeightedPodAffinityTerm) {
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			together, like = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
		if a.PodAntiAffinity != nil {
			apart, dislike = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
	}
	return
}

func nodeMatches(p *v1.Pod, n *v1.Node) bool {
	ok, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(n)
	return ok && err == nil
}

func untolerated(p *v1.Pod, n *v1.Node, effects ...v1.TaintEffect) (count int) {
	for i := range n.Spec.Taints {
		taint := &n.Spec.Taints[i]
		if slices.Contains(effects, taint.Effect) && !corev1.TolerationsTolerateTaint(klog.Logger{}, p.Spec.Tolerations, taint, false) {
			count++
		}
	}
	return count
}

// verdict asks every filter about one node. Nominated pods of no lower priority are added for a second opinion.
func (m *model) verdict(p *v1.Pod, n *v1.Node) ([]string, bool) {
	reasons, final := m.filter(p, n)
	if len(reasons) > 0 {
		return reasons, final
	}
	var there []*v1.Pod
	for _, q := range m.nominated {
		if q.Status.NominatedNodeName == n.Name && q.Name != p.Name && *q.Spec.Priority >= *p.Spec.Priority {
			q = q.DeepCopy()
			q.Spec.NodeName = n.Name
			there = append(there, q)
		}
	}
	if len(there) == 0 {
		return nil, false
	}
	return m.with(there...).filter(p, n)
}

func (m *model) filter(p *v1.Pod, n *v1.Node) (reasons []string, final bool) {
	if n.Spec.Unschedulable {
		return []string{"node(s) were unschedulable"}, true
	}
	if untolerated(p, n, v1.TaintEffectNoSchedule, v1.TaintEffectNoExecute) > 0 {
		return []string{"node(s) had untolerated taint(s)"}, true
	}
	if !nodeMatches(p, n) {
		return []string{"node(s) didn't match Pod's node affinity/selector"}, true
	}
	here := m.on(n.Name)
	for _, q := range here {
		for _, a := range portsOf(p) {
			for _, b := range portsOf(q) {
				if a.conflicts(b) {
					return []string{"node(s) didn't have free ports for the requested pod ports"}, false
				}
			}
		}
	}
	if int64(len(here))+1 > n.Status.Allocatable.Pods().Value() {
		reasons = append(reasons, "Too many pods")
	}
	for _, name := range []v1.ResourceName{"cpu", "memory", "x.io/gpu"} {
		used := int64(0)
		for _, q := range here {
			used += request(q, name)
		}
		if want := request(p, name); want > 0 && want > has(n, name)-used {
			reasons = append(reasons, "Insufficient "+string(name))
			final = final || want > has(n, name)
		}
	}
	if len(reasons) > 0 {
		return reasons, final
	}
	if reasons, final := m.storageVerdict(p, n); len(reasons) > 0 {
		return reasons, final
	}
	if reason, final := m.uneven(p, n); reason != "" {
		return []string{reason}, final
	}
	return m.apart(p, n)
}

func (m *model) uneven(p *v1.Pod, n *v1.Node) (string, bool) {
	var hard []v1.TopologySpreadConstraint
	for _, x := range p.Spec.TopologySpreadConstraints {
		if x.WhenUnsatisfiable == v1.DoNotSchedule {
			hard = append(hard, x)
		}
	}
	for _, x := range hard {
		if _, ok := n.Labels[x.TopologyKey]; !ok {
			return "node(s) didn't match pod topology spread constraints (missing required label)", true
		}
		counts := map[string]int64{}
		for _, other := range m.nodes {
			if slices.ContainsFunc(hard, func(y v1.TopologySpreadConstraint) bool { _, ok := other.Labels[y.TopologyKey]; return !ok }) || !m.counts(p, other, &x) {
				continue
			}
			counts[other.Labels[x.TopologyKey]] += m.matching(p, &x, other.Name)
		}
		least := int64(math.MaxInt32)
		for _, c := range counts {
			least = min(least, c)
		}
		if x.MinDomains != nil && len(counts) < int(*x.MinDomains) {
			least = 0
		}
		self := int64(0)
		if selector(x.LabelSelector).Matches(labels.Set(p.Labels)) {
			self = 1
		}
		if len(counts) > 0 || x.MinDomains != nil {
			if counts[n.Labels[x.TopologyKey]]+self-least > int64(x.MaxSkew) {
				return "node(s) didn't match pod topology spread constraints", false
			}
		}
	}
	return "", false
}

func (m *model) counts(p *v1.Pod, n *v1.Node, x *v1.TopologySpreadConstraint) bool {
	if (x.NodeAffinityPolicy == nil || *x.NodeAffinityPolicy == v1.NodeInclusionPolicyHonor) && !nodeMatches(p, n) {
		return false
	}
	return x.NodeTaintsPolicy == nil || *x.NodeTaintsPolicy != v1.NodeInclusionPolicyHonor || untolerated(p, n, v1.TaintEffectNoSchedule, v1.TaintEffectNoExecute) == 0
}

func (m *model) matching(p *v1.Pod, x *v1.TopologySpreadConstraint, node string) (count int64) {
	for _, q := range m.on(node) {
		if q.Namespace == p.Namespace && q.DeletionTimestamp == nil && selector(x.LabelSelector).Matches(labels.Set(q.Labels)) {
			count++
		}
	}
	return count
}

// near answers whether a pod stands in the same domain as n.
func (m *model) near(n *v1.Node, q *v1.Pod, key string) bool {
	other := m.nodes[q.Spec.NodeName]
	if other == nil {
		return false
	}
	a, ok := n.Labels[key]
	b, too := other.Labels[key]
	return ok && too && a == b
}

func (m *model) apart(p *v1.Pod, n *v1.Node) ([]string, bool) {
	together, apart, _, _ := affinities(p)
	all := func(q *v1.Pod) bool {
		return !slices.ContainsFunc(together, func(x v1.PodAffinityTerm) bool { return !m.means(p, &x, q) })
	}
	met, anywhere := true, false
	for _, x := range together {
		if _, ok := n.Labels[x.TopologyKey]; !ok {
			return []string{"node(s) didn't match pod affinity rules"}, true
		}
		found := false
		for _, q := range m.pods {
			if !all(q) {
				continue
			}
			found = found || m.near(n, q, x.TopologyKey)
			if other := m.nodes[q.Spec.NodeName]; other != nil {
				_, ok := other.Labels[x.TopologyKey]
				anywhere = anywhere || ok
			}
		}
		met = met && found
	}
	if !met && (anywhere || !all(p)) {
		return []string{"node(s) didn't match pod affinity rules"}, true
	}
	for _, x := range apart {
		for _, q := range m.pods {
			if m.means(p, &x, q) && m.near(n, q, x.TopologyKey) {
				return []string{"node(s) didn't match pod anti-affinity rules"}, false
			}
		}
	}
	for _, q := range m.pods {
		_, apart, _, _ := affinities(q)
		for _, x := range apart {
			if m.means(q, &x, p) && m.near(n, q, x.TopologyKey) {
				return []string{"node(s) didn't satisfy existing pods anti-affinity rules"}, false
			}
		}
	}
	return nil, false
}

// scores answers the sum of all scores for the nodes that fit.
func (m *model) scores(p *v1.Pod, fit []*v1.Node) map[string]int64 {
	total := map[string]int64{}
	add := func(weight int64, f func(n *v1.Node) int64, shape func([]int64)) {
		values := make([]int64, len(fit))
		for i, n := range fit {
			values[i] = f(n)
		}
		if shape != nil {
			shape(values)
		}
		for i, n := range fit {
			total[n.Name] += weight * values[i]
		}
	}
	add(3, func(n *v1.Node) int64 { return int64(untolerated(p, n, v1.TaintEffectPreferNoSchedule)) }, func(v []int64) { proportional(v, true) })
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		add(2, func(n *v1.Node) (sum int64) {
			for _, x := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
				if ok, _ := corev1.MatchNodeSelectorTerms(n, &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{x.Preference}}); ok {
					sum += int64(x.Weight)
				}
			}
			return sum
		}, func(v []int64) { proportional(v, false) })
	}
	both := []v1.ResourceName{"cpu", "memory"}
	add(1, func(n *v1.Node) (sum int64) {
		for _, name := range both {
			used := scoredRequest(p, name)
			for _, q := range m.on(n.Name) {
				used += scoredRequest(q, name)
			}
			if used <= has(n, name) {
				sum += (has(n, name) - used) * 100 / has(n, name)
			}
		}
		return sum / 2
	}, nil)
	if request(p, "cpu")+request(p, "memory") > 0 {
		add(1, func(n *v1.Node) int64 {
			apart := func(with int64) float64 {
				var share [2]float64
				for i, name := range both {
					used := with * request(p, name)
					for _, q := range m.on(n.Name) {
						used += request(q, name)
					}
					share[i] = min(float64(used)/float64(has(n, name)), 1)
				}
				return 1 - math.Abs(share[0]-share[1])/2
			}
			return int64(50 + (apart(1)-apart(0))*50)
		}, nil)
	}
	add(1, func(n *v1.Node) int64 { return m.locality(p, n) }, nil)
	add(2, func(n *v1.Node) int64 { return m.like(p, n) }, func(v []int64) {
		least, most := slices.Min(v), slices.Max(v)
		for i := range v {
			if most == least {
				v[i] = 0
			} else {
				v[i] = int64(100 * float64(v[i]-least) / float64(most-least))
			}
		}
	})
	for name, n := range m.spreading(p, fit) {
		total[name] += 2 * n
	}
	return total
}

func (m *model) like(p *v1.Pod, n *v1.Node) (sum int64) {
	_, _, like, dislike := affinities(p)
	for _, q := range m.pods {
		for _, x := range like {
			if m.means(p, &x.PodAffinityTerm, q) && m.near(n, q, x.PodAffinityTerm.TopologyKey) {
				sum += int64(x.Weight)
			}
		}
		for _, x := range dislike {
			if m.means(p, &x.PodAffinityTerm, q) && m.near(n, q, x.PodAffinityTerm.TopologyKey) {
				sum -= int64(x.Weight)
			}
		}
		together, _, like, dislike := affinities(q)
		for _, x := range together {
			if m.means(q, &x, p) && m.near(n, q, x.TopologyKey) {
				sum++
			}
		}
		for _, x := range like {
			if m.means(q, &x.PodAffinityTerm, p) && m.near(n, q, x.PodAffinityTerm.TopologyKey) {
				sum += int64(x.Weight)
			}
		}
		for _, x := range dislike {
			if m.means(q, &x.PodAffinityTerm, p) && m.near(n, q, x.PodAffinityTerm.TopologyKey) {
				sum -= int64(x.Weight)
			}
		}
	}
	return sum
}

func (m *model) spreading(p *v1.Pod, fit []*v1.Node) map[string]int64 {
	var soft []v1.TopologySpreadConstraint
	for _, x := range p.Spec.TopologySpreadConstraints {
		if x.WhenUnsatisfiable == v1.ScheduleAnyway {
			soft = append(soft, x)
		}
	}
	own := len(p.Spec.TopologySpreadConstraints) > 0
	if !own && len(m.service) > 0 && labels.SelectorFromSet(m.service).Matches(labels.Set(p.Labels)) {
		soft = slices.Clone(systemSpread)
		for i := range soft {
			soft[i].LabelSelector = labelSelector(m.service)
		}
	}
	if len(soft) == 0 {
		return nil
	}
	complete := func(n *v1.Node) bool {
		return !own || !slices.ContainsFunc(soft, func(x v1.TopologySpreadConstraint) bool { _, ok := n.Labels[x.TopologyKey]; return !ok })
	}
	var scored []*v1.Node
	for _, n := range fit {
		if complete(n) {
			scored = append(scored, n)
		}
	}
	raw, most, least := map[string]int64{}, int64(0), int64(math.MaxInt64)
	for _, n := range scored {
		sum := 0.0
		for _, x := range soft {
			value, ok := n.Labels[x.TopologyKey]
			if !ok {
				continue
			}
			count, size := int64(0), len(scored)
			if x.TopologyKey == v1.LabelHostname {
				count = m.matching(p, &x, n.Name)
			} else {
				for _, other := range m.nodes {
					if v, ok := other.Labels[x.TopologyKey]; ok && v == value && complete(other) && m.counts(p, other, &x) {
						count += m.matching(p, &x, other.Name)
					}
				}
				domains := map[string]bool{}
				for _, other := range scored {
					if v, ok := other.Labels[x.TopologyKey]; ok {
						domains[v] = true
					}
				}
				size = len(domains)
			}
			sum += float64(count)*math.Log(float64(size+2)) + float64(x.MaxSkew-1)
		}
		raw[n.Name] = int64(math.Round(sum))
		most, least = max(most, raw[n.Name]), min(least, raw[n.Name])
	}
	out := map[string]int64{}
	for _, n := range scored {
		if out[n.Name] = 100; most > 0 {
			out[n.Name] = 100 * (most + least - raw[n.Name]) / most
		}
	}
	return out
}

// decide answers the nodes with the highest score, or the words why there is none and the nodes eviction might help on.
func (m *model) decide(p *v1.Pod) (best []string, words string, helpful []*v1.Node) {
	counts := map[string]int{}
	var fit []*v1.Node
	for _, name := range m.names() {
		reasons, final := m.verdict(p, m.nodes[name])
		if len(reasons) == 0 {
			fit = append(fit, m.nodes[name])
			continue
		}
		for _, r := range reasons {
			counts[r]++
		}
		if !final {
			helpful = append(helpful, m.nodes[name])
		}
	}
	if len(fit) == 0 {
		return nil, inWords(len(m.nodes), counts), helpful
	}
	scores, most := m.scores(p, fit), int64(math.MinInt64)
	for _, n := range scores {
		most = max(most, n)
	}
	for _, n := range fit {
		if scores[n.Name] == most {
			best = append(best, n.Name)
		}
	}
	return best, "", nil
}

func inWords(nodes int, counts map[string]int) string {
	var lines []string
	for r, n := range counts {
		lines = append(lines, fmt.Sprintf("%d %s", n, r))
	}
	slices.Sort(lines)
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(lines, ", "))
}

// victims answers who must go from a node, nil when nobody's going helps, and how many of them a budget guards.
func (m *model) victims(p *v1.Pod, n *v1.Node) (victims []*v1.Pod, broken int) {
	var lower []*v1.Pod
	for _, q := range m.on(n.Name) {
		if *q.Spec.Priority < *p.Spec.Priority {
			lower = append(lower, q)
		}
	}
	slices.SortFunc(lower, func(a, b *v1.Pod) int { return moreImportant(NewPod(a), NewPod(b)) })
	now := m.without(lower...)
	if reasons, _ := now.verdict(p, n); len(lower) == 0 || len(reasons) > 0 {
		return nil, 0
	}
	guarded, free := m.guards(lower)
	for i, q := range append(guarded, free...) {
		if reasons, _ := now.with(q).verdict(p, n); len(reasons) == 0 {
			now = now.with(q)
		} else {
			victims = append(victims, q)
			if i < len(guarded) {
				broken++
			}
		}
	}
	slices.SortFunc(victims, func(a, b *v1.Pod) int { return moreImportant(NewPod(a), NewPod(b)) })
	return victims, broken
}
