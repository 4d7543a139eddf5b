package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// PodTemplate is the row of podtemplates.
func PodTemplate() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "PodTemplate", Resource: "podtemplates",
		Namespaced:    true,
		Check:         kind.Valid(validate.PodTemplate, validate.PodTemplateUpdate),
		Generation:    true,
		ReturnDeleted: true,
		Columns:       kind.Columns("Name Containers Images Pod_Labels"),
		Row:           kind.Of(podTemplateRow),
	}, kind.In[corev1.PodTemplate, corev1.PodTemplateList](corev1.SchemeGroupVersion, defaults.PodTemplate))
}

func podTemplateRow(t *corev1.PodTemplate) []any {
	names, images := Containers(t.Template.Spec.Containers)
	return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
}
