package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// The identity of a kubelet.
const (
	nodesGroup     = "system:nodes"
	nodeUserPrefix = "system:node:"
)

var (
	podRequestsGR = schema.GroupResource{Group: "certificates.k8s.io", Resource: "podcertificaterequests"}

	podsGR = schema.GroupResource{Resource: "pods"}
	pvcsGR = schema.GroupResource{Resource: "persistentvolumeclaims"}
)

// NodeName answers which node a user is the kubelet of.
func NodeName(u user.Info) (string, bool) {
	if u == nil || !slices.Contains(u.GetGroups(), nodesGroup) {
		return "", false
	}
	return strings.CutPrefix(u.GetName(), nodeUserPrefix)
}

// Node allows a kubelet what its own node and the pods on it need, and nothing of others'.
type Node struct{ env kind.Env }

// Authorize decides for kubelets; others it has no opinion on.
func (n *Node) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	node, ok := NodeName(a.GetUser())
	if !ok {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if !a.IsResourceRequest() {
		return authorizer.DecisionNoOpinion, "", nil
	}
	no := func(format string, args ...any) (authorizer.Decision, string, error) {
		return authorizer.DecisionNoOpinion, fmt.Sprintf(format, args...), nil
	}
	yes := authorizer.DecisionAllow
	reads := slices.Contains([]string{"get", "list", "watch"}, a.GetVerb())
	switch gr := (schema.GroupResource{Group: a.GetAPIGroup(), Resource: a.GetResource()}).String(); gr {
	case "secrets", "configmaps":
		if !reads || a.GetSubresource() != "" {
			return no("can only read resources of this type")
		}
		return n.related(ctx, node, a, yes)
	case "persistentvolumeclaims":
		if a.GetSubresource() == "status" && slices.Contains([]string{"get", "update", "patch"}, a.GetVerb()) || a.GetVerb() == "get" {
			return n.related(ctx, node, a, yes)
		}
		return no("can only get individual resources of this type")
	case "persistentvolumes", "resourceclaims.resource.k8s.io", "volumeattachments.storage.k8s.io":
		if a.GetVerb() != "get" {
			return no("can only get individual resources of this type")
		}
		return n.related(ctx, node, a, yes)
	case "serviceaccounts":
		if a.GetSubresource() == "token" && a.GetVerb() == "create" || a.GetSubresource() == "" && a.GetVerb() == "get" {
			return n.related(ctx, node, a, yes)
		}
		return no("can only get or create tokens for service accounts of its pods")
	case "leases.coordination.k8s.io":
		if a.GetNamespace() != corev1.NamespaceNodeLease {
			return no("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		if a.GetVerb() != "create" && a.GetName() != node {
			return no("can only access node lease with the same name as the requesting node")
		}
		return yes, "", nil
	case "csinodes.storage.k8s.io":
		if a.GetVerb() != "create" && a.GetName() != node {
			return no("can only access CSINode with the same name as the requesting node")
		}
		return yes, "", nil
	case "pods":
		if reads && a.GetSubresource() == "" {
			return n.ownPods(ctx, node, a)
		}
	case "podcertificaterequests.certificates.k8s.io":
		if reads && a.GetSubresource() == "" {
			return n.ownRequests(ctx, node, a)
		}
	case "nodes":
		if reads && a.GetName() != "" && a.GetName() != node {
			return no("node %q cannot read %q, only its own Node object", node, a.GetName())
		}
	}
	if slices.ContainsFunc(nodeRules, func(r rule) bool { return r.allows(a) }) {
		return yes, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// ownPods lets a kubelet read pods that are bound to its node.
func (n *Node) ownPods(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetVerb() == "get" {
		obj, err := n.env.Get(ctx, podsGR, a.GetNamespace(), a.GetName())
		if err != nil || obj.(*corev1.Pod).Spec.NodeName == node {
			return authorizer.DecisionAllow, "", nil // a pod that is not there is answered as such
		}
		return authorizer.DecisionNoOpinion, fmt.Sprintf("no relationship found between node '%s' and this object", node), nil
	}
	if selects(a, node) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "can only list/watch pods with spec.nodeName field selector", nil
}

// ownRequests lets a kubelet read the certificate requests that it made.
func (n *Node) ownRequests(ctx context.Context, node string, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetVerb() == "get" {
		obj, err := n.env.Get(ctx, podRequestsGR, a.GetNamespace(), a.GetName())
		if err != nil || string(obj.(*certificatesv1.PodCertificateRequest).Spec.NodeName) == node {
			return authorizer.DecisionAllow, "", nil // one that is not there is answered as such
		}
		return authorizer.DecisionNoOpinion, fmt.Sprintf("no relationship found between node '%s' and this object", node), nil
	}
	if selects(a, node) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "can only list/watch podcertificaterequests with spec.nodeName field selector", nil
}

// selects tells whether only objects of that node are asked for.
func selects(a authorizer.Attributes, node string) bool {
	reqs, err := a.GetFieldSelector()
	return err == nil && slices.ContainsFunc(reqs, func(r fields.Requirement) bool { return r.Field == "spec.nodeName" && r.Value == node })
}

// related allows a request for an object that a pod of the node refers to.
func (n *Node) related(ctx context.Context, node string, a authorizer.Attributes, yes authorizer.Decision) (authorizer.Decision, string, error) {
	name := a.GetName()
	if name == "" {
		return authorizer.DecisionNoOpinion, "No Object name found", nil
	}
	objs, err := n.env.ListIndexed(ctx, podsGR, node)
	if err != nil {
		return authorizer.DecisionNoOpinion, "", err
	}
	for _, o := range objs {
		if n.uses(ctx, o.(*corev1.Pod), a) {
			return yes, "", nil
		}
	}
	if a.GetResource() == "volumeattachments" || a.GetResource() == "secrets" {
		if n.attached(ctx, node, a) {
			return yes, "", nil
		}
	}
	return authorizer.DecisionNoOpinion, fmt.Sprintf("no relationship found between node '%s' and this object", node), nil
}
