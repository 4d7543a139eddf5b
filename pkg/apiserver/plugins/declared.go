package plugins

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// release is the version whose nodes need not declare what all of them can do.
var release = version.MajorMinor(1, 37)

// NodeDeclaredFeatureValidator refuses a change of a pod that its node, by what it declares, cannot carry out.
var NodeDeclaredFeatureValidator = admission.Plugin{Name: "NodeDeclaredFeatureValidator", Validate: func(ctx context.Context, r *admission.Request) error {
	if r.Verb != admission.Update || r.Resource.GroupResource() != pods || r.Sub != "" && r.Sub != "resize" {
		return nil
	}
	p, _ := r.Object.(*corev1.Pod)
	old, _ := r.Old.(*corev1.Pod)
	if p == nil || old == nil || p.Spec.NodeName == "" || equality.Semantic.DeepEqual(p.Spec, old.Spec) || len(p.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return nil // nothing to do, or not allowed at all
	}
	// The library takes the same amount, written or kept in another way, for another.
	spec := p.Spec
	spec.InitContainers = slices.Clone(spec.InitContainers)
	for i, was := range old.Spec.InitContainers {
		if c := &spec.InitContainers[i]; equality.Semantic.DeepEqual(c.Resources, was.Resources) {
			c.Resources = was.Resources
		}
	}
	framework := nodedeclaredfeatures.DefaultFramework
	needs, err := framework.InferForPodUpdate(&nodedeclaredfeatures.PodInfo{Spec: &old.Spec, Status: &old.Status}, &nodedeclaredfeatures.PodInfo{Spec: &spec, Status: &p.Status}, release)
	if err != nil || needs.IsEmpty() {
		return err
	}
	obj, err := r.Env.Get(ctx, nodes, "", p.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("node %q not found", p.Spec.NodeName)
	}
	if err != nil {
		return err
	}
	n, ok := obj.(*corev1.Node)
	if !ok {
		return fmt.Errorf("node %q is a %T", p.Spec.NodeName, obj)
	}
	m, err := framework.MatchNode(needs, n)
	if err != nil || m.IsMatch {
		return err
	}
	return fmt.Errorf("pod update requires features %s which are not available on node %q", strings.Join(m.UnsatisfiedRequirements, ", "), n.Name)
}}
