package bootstrap

import (
	"context"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// defaultsEvery is how often namespaces and flow control are looked after.
const defaultsEvery = time.Minute

// mandatory are the schemas and levels without which requests would fall through: nobody may change what they say.
var mandatory = []string{flowcontrolv1.FlowSchemaNameExempt, flowcontrolv1.FlowSchemaNameCatchAll}

// keepDefaults brings back the namespaces that were deleted, and the default schemas and levels that were deleted or changed, until ctx ends.
func (b *Bootstrap) keepDefaults(ctx context.Context, defaults []kind.Object) {
	t := time.NewTicker(defaultsEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := b.lasting(ctx, defaults); err != nil && ctx.Err() == nil {
			slog.Warn("the default namespaces, flow schemas and priority levels could not be looked after", "err", err)
		}
	}
}

// lasting makes the default namespaces, schemas and levels what they should be.
func (b *Bootstrap) lasting(ctx context.Context, defaults []kind.Object) error {
	for _, o := range defaults {
		switch o.(type) {
		case *corev1.Namespace, *flowcontrolv1.FlowSchema, *flowcontrolv1.PriorityLevelConfiguration:
			if err := b.ensure(ctx, o.DeepCopyObject().(kind.Object)); err != nil {
				return err
			}
		}
	}
	return nil
}

// follows tells whether an object is to be kept as the server has it: a mandatory one, one whose annotation says so, or
// one that says nothing and nobody changed yet.
func follows(o kind.Object) bool {
	if slices.Contains(mandatory, o.GetName()) {
		return true
	}
	said, ok := o.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey]
	return said == "true" || !ok && o.GetGeneration() == 1
}

// keepSchema gives a schema the spec it should have, and tells whether that was anything new.
func keepSchema(have, want *flowcontrolv1.FlowSchema) bool {
	if !follows(have) || equality.Semantic.DeepEqual(have.Spec, want.Spec) && have.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] == "true" {
		return false
	}
	have.Spec = want.Spec
	metav1.SetMetaDataAnnotation(&have.ObjectMeta, flowcontrolv1.AutoUpdateAnnotationKey, "true")
	return true
}

// keepLevel is keepSchema for levels. How much the exempt one lends is its administrator's.
func keepLevel(have, want *flowcontrolv1.PriorityLevelConfiguration) bool {
	spec := want.Spec.DeepCopy()
	if spec.Type == flowcontrolv1.PriorityLevelEnablementExempt && have.Spec.Exempt != nil {
		spec.Exempt = have.Spec.Exempt
	}
	if !follows(have) || equality.Semantic.DeepEqual(have.Spec, *spec) && have.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] == "true" {
		return false
	}
	have.Spec = *spec
	metav1.SetMetaDataAnnotation(&have.ObjectMeta, flowcontrolv1.AutoUpdateAnnotationKey, "true")
	return true
}
