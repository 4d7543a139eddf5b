package bootstrap

import (
	"slices"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// mandatory are the schemas and levels without which requests would fall through: nobody may change what they say.
var mandatory = []string{flowcontrolv1.FlowSchemaNameExempt, flowcontrolv1.FlowSchemaNameCatchAll}

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
