package resourceclaim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PodSnapshot is what a decision about a pod's claims is made on.
type PodSnapshot struct {
	Pod       *corev1.Pod
	Templates map[string]*resourcev1.ResourceClaimTemplate
	Claims    map[string]*resourcev1.ResourceClaim // those that the pod names, by name
	Owned     []*resourcev1.ResourceClaim          // those that were made for it
}

// PodPlan is what a pod's claims lack.
type PodPlan struct {
	Create   []*resourcev1.ResourceClaim
	Statuses []corev1.PodResourceClaimStatus // nil = as they are
	Reserve  []*resourcev1.ResourceClaim     // with the pod among their users
	Faults   []error
}

// String shows the plan as logs and tests do.
func (p PodPlan) String() string {
	var b strings.Builder
	for _, c := range p.Create {
		fmt.Fprintf(&b, "create %s for %s, labels %v\n", c.GenerateName, c.Annotations[resourcev1.PodResourceClaimAnnotation], c.Labels)
	}
	for _, s := range p.Statuses {
		fmt.Fprintf(&b, "pod has %s as %s\n", s.Name, *s.ResourceClaimName)
	}
	for _, c := range p.Reserve {
		fmt.Fprintf(&b, "reserve %s\n", c.Name)
	}
	for _, err := range p.Faults {
		fmt.Fprintf(&b, "tell Warning FailedResourceClaimCreation: %v\n", err)
	}
	return b.String()
}

// done tells whether a pod will not run any more, or ever.
func done(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil && p.Spec.NodeName == ""
}

// decidePod makes a pod the claims that its templates describe, tells it their names, and keeps for a pod that somebody
// put on a node without asking the scheduler what is allocated.
func decidePod(s PodSnapshot) PodPlan {
	var p PodPlan
	if s.Pod.DeletionTimestamp != nil || done(s.Pod) {
		return p
	}
	names := map[string]string{}
	for _, st := range s.Pod.Status.ResourceClaimStatuses {
		if st.ResourceClaimName != nil {
			names[st.Name] = *st.ResourceClaimName
		}
	}
	changed := false
	for _, pc := range s.Pod.Spec.ResourceClaims {
		if pc.ResourceClaimName != nil {
			p.reserve(s.Pod, s.Claims[*pc.ResourceClaimName])
			continue
		}
		if pc.ResourceClaimTemplateName == nil {
			continue
		}
		if c := s.Claims[names[pc.Name]]; c != nil && !metav1.IsControlledBy(c, s.Pod) {
			p.fault(pc.Name, fmt.Errorf("ResourceClaim %s/%s was not created for Pod %s/%s (Pod is not owner)", c.Namespace, c.Name, s.Pod.Namespace, s.Pod.Name))
			continue
		}
		mine := madeFor(s.Owned, pc.Name, names[pc.Name])
		if mine == nil {
			p.create(s, pc)
			continue
		}
		if names[pc.Name] != mine.Name {
			names[pc.Name], changed = mine.Name, true
		}
		p.reserve(s.Pod, mine)
	}
	if changed {
		for _, n := range slices.Sorted(maps.Keys(names)) {
			p.Statuses = append(p.Statuses, corev1.PodResourceClaimStatus{Name: n, ResourceClaimName: new(names[n])})
		}
	}
	return p
}

func (p *PodPlan) fault(claim string, err error) {
	p.Faults = append(p.Faults, fmt.Errorf("PodResourceClaim %s: %w", claim, err))
}

// madeFor answers the claim that was made for a pod's entry: the one that it names, else the oldest.
func madeFor(owned []*resourcev1.ResourceClaim, entry, named string) (out *resourcev1.ResourceClaim) {
	for _, c := range owned {
		if c.DeletionTimestamp != nil || c.Annotations[resourcev1.PodResourceClaimAnnotation] != entry {
			continue
		}
		if c.Name == named {
			return c
		}
		if out == nil || c.CreationTimestamp.Before(&out.CreationTimestamp) || c.CreationTimestamp.Equal(&out.CreationTimestamp) && c.Name < out.Name {
			out = c
		}
	}
	return out
}

func (p *PodPlan) create(s PodSnapshot, pc corev1.PodResourceClaim) {
	t := s.Templates[*pc.ResourceClaimTemplateName]
	if t == nil {
		p.fault(pc.Name, fmt.Errorf("resource claim template %q: resourceclaimtemplate.resource.k8s.io %q not found", *pc.ResourceClaimTemplateName, *pc.ResourceClaimTemplateName))
		return
	}
	notes := maps.Clone(t.Spec.Annotations)
	if notes == nil {
		notes = map[string]string{}
	}
	notes[resourcev1.PodResourceClaimAnnotation] = pc.Name
	p.Create = append(p.Create, &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Pod.Namespace, GenerateName: s.Pod.Name + "-" + pc.Name + "-", Labels: t.Spec.Labels, Annotations: notes,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: s.Pod.Name, UID: s.Pod.UID, Controller: new(true), BlockOwnerDeletion: new(true)}},
		},
		Spec: t.Spec.Spec,
	})
}

// reserve puts a pod that has a node among the users of an allocated claim.
func (p *PodPlan) reserve(pod *corev1.Pod, c *resourcev1.ResourceClaim) {
	if pod.Spec.NodeName == "" || c == nil || c.Status.Allocation == nil || c.DeletionTimestamp != nil {
		return
	}
	if slices.ContainsFunc(c.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == pod.UID }) {
		return
	}
	c = c.DeepCopy()
	c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
	p.Reserve = append(p.Reserve, c)
}

// ClaimSnapshot is what a decision about a claim is made on.
type ClaimSnapshot struct {
	Claim *resourcev1.ResourceClaim
	// Left tells of a user of the claim that it is gone or done.
	Left func(r resourcev1.ResourceClaimConsumerReference) bool
	// Orphan is set if the claim was made for a pod that is gone or done.
	Orphan bool
}

// ClaimPlan is what is to be written, in this order.
type ClaimPlan struct {
	Status *resourcev1.ResourceClaimStatus
	Free   bool // take the finalizer off
	Delete bool
}

// String shows the plan as logs and tests do.
func (p ClaimPlan) String() string {
	var b strings.Builder
	if p.Status != nil {
		b.WriteString("claim is for")
		for _, r := range p.Status.ReservedFor {
			fmt.Fprintf(&b, " %s", r.Name)
		}
		fmt.Fprintf(&b, ", allocated: %v\n", p.Status.Allocation != nil)
	}
	if p.Free {
		b.WriteString("let go\n")
	}
	if p.Delete {
		b.WriteString("delete\n")
	}
	return b.String()
}

// decideClaim takes users that left off a claim; with the last one its devices are free again, and what was made for a pod
// that left goes.
func decideClaim(s ClaimSnapshot) ClaimPlan {
	var p ClaimPlan
	c := s.Claim
	var users []resourcev1.ResourceClaimConsumerReference
	for _, r := range c.Status.ReservedFor {
		if r.APIGroup != "" || r.Resource != "pods" || !s.Left(r) {
			users = append(users, r)
		}
	}
	ours := slices.Contains(c.Finalizers, resourcev1.Finalizer)
	fewer := len(users) < len(c.Status.ReservedFor)
	frees := len(users) == 0 && ours && (fewer || c.DeletionTimestamp != nil)
	if fewer || frees && c.Status.Allocation != nil {
		p.Status = c.Status.DeepCopy()
		p.Status.ReservedFor = users
		if frees {
			p.Status.Allocation = nil
		}
	}
	p.Free = frees
	p.Delete = len(users) == 0 && s.Orphan && c.DeletionTimestamp == nil
	return p
}
