package apps

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func labelled(v string) map[string]string { return map[string]string{"app": v} }

func template(v string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labelled(v)}}
}

// TestTemplateCount: a daemon set counts its template's changes, whatever a client says.
func TestTemplateCount(t *testing.T) {
	d := &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: template("a")}}
	step := func(want string, change func(d *appsv1.DaemonSet)) {
		t.Helper()
		old := d.DeepCopy()
		change(d)
		countTemplate(nil, d, old)
		if got := d.Annotations[appsv1.DeprecatedTemplateGeneration]; got != want {
			t.Errorf("the template is counted %q, want %q", got, want)
		}
	}
	countTemplate(nil, d, nil)
	step("1", func(d *appsv1.DaemonSet) { d.Annotations = nil })
	step("2", func(d *appsv1.DaemonSet) { d.Spec.Template = template("b") })
	step("2", func(d *appsv1.DaemonSet) { d.Spec.MinReadySeconds = 5 })
}
