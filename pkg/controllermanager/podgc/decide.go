package podgc

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// quarantine is how long a node must have been missed before its pods are removed.
const quarantine = 40 * time.Second

// removal is a pod that is to go, and why.
type removal struct {
	pod *corev1.Pod
	// lost says that its node is gone, as far as is known: it is worth asking once more.
	lost bool
}

// decide answers the pods to remove: those of nodes that are missed for long, those that end on a node that is out of
// service, those that end without ever having had a node, and finished ones beyond threshold, the evicted and the oldest
// first. missed remembers when each missing node with pods was first missed.
func decide(pods []*corev1.Pod, nodes map[string]*corev1.Node, missed map[string]time.Time, now time.Time, threshold int) []removal {
	var out []removal
	var done []*corev1.Pod
	missing := map[string]bool{}
	for _, p := range pods {
		node := nodes[p.Spec.NodeName]
		switch {
		case p.Spec.NodeName != "" && node == nil:
			missing[p.Spec.NodeName] = true
			since, ok := missed[p.Spec.NodeName]
			if !ok {
				missed[p.Spec.NodeName] = now
			} else if now.Sub(since) >= quarantine {
				out = append(out, removal{p, true})
			}
		case p.DeletionTimestamp != nil && (node == nil || outOfService(node)):
			out = append(out, removal{pod: p})
		case finished(p) && p.DeletionTimestamp == nil:
			done = append(done, p)
		}
	}
	maps.DeleteFunc(missed, func(name string, _ time.Time) bool { return !missing[name] })
	if extra := len(done) - threshold; threshold > 0 && extra > 0 {
		slices.SortStableFunc(done, func(a, b *corev1.Pod) int {
			if evicted(a) != evicted(b) {
				if evicted(a) {
					return -1
				}
				return 1
			}
			return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
		})
		for _, p := range done[:extra] {
			out = append(out, removal{pod: p})
		}
	}
	return out
}

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func evicted(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Evicted"
}

// outOfService tells whether an admin has said that a node does not come back, and it is not well either.
func outOfService(n *corev1.Node) bool {
	well := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	return !well && slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}
