package namespace

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var pods = corev1.SchemeGroupVersion.WithResource("pods")

// waves is the order in which resources are deleted: pods first, since what they run under - policies, secrets, accounts -
// stays until the last has ended. A wave begins when the one before it has left nothing.
func waves(resources []schema.GroupVersionResource) [][]schema.GroupVersionResource {
	i := slices.Index(resources, pods)
	if i < 0 {
		return [][]schema.GroupVersionResource{resources}
	}
	return [][]schema.GroupVersionResource{{pods}, slices.Delete(slices.Clone(resources), i, i+1)}
}

// remains is what could not be removed yet.
type remains struct {
	discovery, deletion error
	counts              map[string]int // by resource
	finalizers          map[string]int
}

// Snapshot is what is decided upon, after all was deleted that can be.
type Snapshot struct {
	Namespace *corev1.Namespace
	remains
	Now metav1.Time
}

// Plan is what is to be done.
type Plan struct {
	Finalize   *corev1.Namespace // without our finalizer: it may go
	Conditions []corev1.NamespaceCondition
	Again      bool // it still holds something
}

// String is the plan in words, "" for nothing.
func (p Plan) String() string {
	var b strings.Builder
	if p.Finalize != nil {
		fmt.Fprintf(&b, "finalize, which leaves %v\n", p.Finalize.Spec.Finalizers)
	}
	for _, c := range p.Conditions {
		fmt.Fprintf(&b, "%s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	if p.Again {
		b.WriteString("again\n")
	}
	return b.String()
}

// decide lets a namespace go that holds nothing, and says of any other what holds it.
func decide(s Snapshot) Plan {
	if s.discovery == nil && s.deletion == nil && len(s.counts) == 0 {
		next := s.Namespace.DeepCopy()
		next.Spec.Finalizers = slices.DeleteFunc(next.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
		return Plan{Finalize: next}
	}
	p := Plan{Again: true}
	if next := conditions(s.Namespace.Status.Conditions, &s.remains, s.Now); !slices.Equal(next, s.Namespace.Status.Conditions) {
		p.Conditions = next
	}
	return p
}

// conditions says in words what holds a namespace.
func conditions(have []corev1.NamespaceCondition, r *remains, now metav1.Time) []corev1.NamespaceCondition {
	out := slices.Clone(have)
	set := func(t corev1.NamespaceConditionType, bad bool, badReason, badMessage, goodReason, goodMessage string) {
		next := corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: goodReason, Message: goodMessage, LastTransitionTime: now}
		if bad {
			next.Status, next.Reason, next.Message = corev1.ConditionTrue, badReason, badMessage
		}
		i := slices.IndexFunc(out, func(c corev1.NamespaceCondition) bool { return c.Type == t })
		if i < 0 {
			out = append(out, next)
			return
		}
		if out[i].Status == next.Status {
			next.LastTransitionTime = out[i].LastTransitionTime
		}
		out[i] = next
	}
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, r.discovery != nil, "DiscoveryFailed", "Discovery failed for some groups: "+text(r.discovery), "ResourcesDiscovered", "All resources successfully discovered")
	set(corev1.NamespaceDeletionGVParsingFailure, false, "", "", "ParsedGroupVersions", "All legacy kube types successfully parsed")
	set(corev1.NamespaceDeletionContentFailure, r.deletion != nil, "ContentDeletionFailed", "Failed to delete all resource types, "+text(r.deletion), "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	var left, held []string
	for res, n := range r.counts {
		left = append(left, fmt.Sprintf("%s has %d resource instances", res, n))
	}
	for f, n := range r.finalizers {
		held = append(held, fmt.Sprintf("%s in %d resource instances", f, n))
	}
	slices.Sort(left)
	slices.Sort(held)
	set(corev1.NamespaceContentRemaining, len(left) > 0, "SomeResourcesRemain", "Some resources are remaining: "+strings.Join(left, ", "), "ContentRemoved", "All content successfully removed")
	set(corev1.NamespaceFinalizersRemaining, len(held) > 0, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+strings.Join(held, ", "), "ContentHasNoFinalizers", "All content-preserving finalizers finished")
	return out
}
