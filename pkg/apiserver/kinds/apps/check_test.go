package apps

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func labelled(v string) map[string]string { return map[string]string{"app": v} }

func selecting(v string) *metav1.LabelSelector { return &metav1.LabelSelector{MatchLabels: labelled(v)} }

func template(v string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labelled(v)}}
}

// TestDeploymentSelector: what upstream refuses of selectors, in its words and order.
func TestDeploymentSelector(t *testing.T) {
	for _, c := range []struct {
		name     string
		selector *metav1.LabelSelector
		template string
		update   bool
		want     []string
	}{
		{name: "its own", selector: selecting("a"), template: "a"},
		{name: "none", template: "a", want: []string{"spec.selector: Required value", "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`"}},
		{name: "every pod", selector: &metav1.LabelSelector{}, template: "a", want: []string{"spec.selector: Invalid value: {}: empty selector is invalid for deployment"}},
		{name: "others", selector: selecting("b"), template: "a", want: []string{"spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`"}},
		{name: "changed", selector: selecting("b"), template: "b", update: true, want: []string{`spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable`}},
		{name: "kept", selector: selecting("a"), template: "a", update: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", ResourceVersion: "1"},
				Spec:       appsv1.DeploymentSpec{Selector: c.selector, Template: template(c.template)},
			}
			var old *appsv1.Deployment
			if c.update {
				old = d.DeepCopy()
				old.Spec.Selector, old.Spec.Template = selecting("a"), template("a")
			}
			errs := checkDeployment(nil, d, old)
			if len(errs) != len(c.want) {
				t.Fatalf("got %v, want %v", errs, c.want)
			}
			for i, e := range errs {
				if e.Error() != c.want[i] {
					t.Errorf("got %v, want %v", e, c.want[i])
				}
			}
		})
	}
}

// TestStatefulSetUpdate: a stateful set's own fields stay, what rolls may change.
func TestStatefulSetUpdate(t *testing.T) {
	old := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", ResourceVersion: "1"},
		Spec:       appsv1.StatefulSetSpec{Selector: selecting("a"), Template: template("a"), ServiceName: "s"},
	}
	s := old.DeepCopy()
	s.Spec.Replicas, s.Spec.MinReadySeconds, s.Spec.Template.Spec.HostNetwork = new(int32(3)), 5, true
	if errs := checkStatefulSet(nil, s, old); len(errs) > 0 {
		t.Error(errs)
	}
	s.Spec.ServiceName = "other"
	if errs := checkStatefulSet(nil, s, old); len(errs) != 1 || errs[0].Field != "spec" || errs[0].Detail != setSealed {
		t.Error(errs)
	}
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
