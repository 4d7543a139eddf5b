package plugins

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authz"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// OwnerReferencesPermissionEnforcement lets only those tie an object to an owner who may delete the object, and only those
// hold an owner back by it who may hold the owner back themselves.
func OwnerReferencesPermissionEnforcement(permissions *authz.Chain, row func(schema.GroupVersionKind) *kind.Def) admission.Plugin {
	return admission.Plugin{Name: "OwnerReferencesPermissionEnforcement", Validate: func(ctx context.Context, r *admission.Request) error {
		obj, ok := r.Object.(metav1.Object)
		if !ok || r.Verb != admission.Create && r.Verb != admission.Update || r.Resource.GroupResource() == pods && r.Sub == "status" {
			return nil
		}
		var had []metav1.OwnerReference
		if old, ok := r.Old.(metav1.Object); ok && r.Old != nil {
			had = old.GetOwnerReferences()
		}
		if equality.Semantic.DeepEqual(had, obj.GetOwnerReferences()) {
			return nil
		}
		// Who makes an object could have made it with any owner; the garbage collector would take it away, not them.
		if r.Verb == admission.Update {
			d, reason, err := permissions.Authorize(ctx, authorizer.AttributesRecord{
				User: r.User, Verb: "delete", Namespace: r.Namespace, APIGroup: r.Resource.Group, APIVersion: r.Resource.Version, Resource: r.Resource.Resource,
				Subresource: r.Sub, Name: r.Name, ResourceRequest: true,
			})
			if d != authorizer.DecisionAllow {
				return fmt.Errorf("cannot set an ownerRef on a resource you can't delete: %v, %w", reason, orNil(err))
			}
		}
		for _, ref := range newBlockers(had, obj.GetOwnerReferences()) {
			d := row(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
			if d == nil {
				return fmt.Errorf("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %v Kind %v", ref.APIVersion, ref.Kind)
			}
			ns := ""
			if d.Namespaced {
				ns = r.Namespace
			}
			verdict, reason, err := permissions.Authorize(ctx, authorizer.AttributesRecord{
				User: r.User, Verb: "update", Namespace: ns, APIGroup: d.Group, APIVersion: d.Storage.GV.Version, Resource: d.Resource, Subresource: "finalizers", Name: ref.Name, ResourceRequest: true,
			})
			if verdict != authorizer.DecisionAllow {
				return fmt.Errorf("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %v, %w", reason, orNil(err))
			}
		}
		return nil
	}}
}

// noError stands in refusals where nothing went wrong besides.
type noError struct{}

func (noError) Error() string { return "<nil>" }

func orNil(err error) error {
	if err == nil {
		return noError{}
	}
	return err
}

// newBlockers are the references that hold their owner back and did not before.
func newBlockers(had, now []metav1.OwnerReference) (out []metav1.OwnerReference) {
	blocked := map[types.UID]bool{}
	for _, o := range had {
		blocked[o.UID] = o.BlockOwnerDeletion != nil && *o.BlockOwnerDeletion
	}
	for _, o := range now {
		if o.BlockOwnerDeletion != nil && *o.BlockOwnerDeletion && !blocked[o.UID] {
			out = append(out, o)
		}
	}
	return out
}
