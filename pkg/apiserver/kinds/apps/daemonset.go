package apps

import (
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// DaemonSet is the row of daemonsets.
func DaemonSet() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "DaemonSet", Resource: "daemonsets", ShortNames: []string{"ds"}, Categories: []string{"all"},
		Namespaced: true, Generation: true,
		Prepare: kind.On(countTemplate),
		Check:   kind.Valid(validate.DaemonSet, validate.DaemonSetUpdate),
		Columns: kind.Columns("Name Desired:integer Current:integer Ready:integer Up-to-date:integer Available:integer Node_Selector Age Containers* Images* Selector*"),
		Row: kind.Of(func(d *appsv1.DaemonSet) []any {
			names, images := containers(d.Spec.Template)
			s := d.Status
			return []any{
				d.Name, int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady), int64(s.UpdatedNumberScheduled),
				int64(s.NumberAvailable), labels.FormatLabels(d.Spec.Template.Spec.NodeSelector), kind.Age(d.CreationTimestamp),
				names, images, metav1.FormatLabelSelector(d.Spec.Selector),
			}
		}),
		Subs: []kind.Sub{kind.Status},
	}, kind.In[appsv1.DaemonSet, appsv1.DaemonSetList](appsv1.SchemeGroupVersion, defaults.DaemonSet))
}

// countTemplate counts the changes of the template from 1, where v1 still shows it.
func countTemplate(_ *kind.Op, d, old *appsv1.DaemonSet) {
	var n int64
	if old != nil {
		// What cannot be read was never written by the server: counting starts again.
		n, _ = strconv.ParseInt(old.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	}
	if n == 0 || !equality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
		n++
	}
	d.Annotations = maps.Clone(d.Annotations)
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(n, 10)
}
