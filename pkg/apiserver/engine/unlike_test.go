package engine

import (
	"fmt"
	"reflect"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// anyPod is a pod of few values, so that two of them are alike in many ways.
func anyPod(t *rapid.T) *corev1.Pod {
	word := func(name string) string { return rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, name) }
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: "p", Namespace: "n", UID: "u", Labels: rapid.MapOf(rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"1", "2"})).Draw(t, "labels"),
		Annotations: map[string]string{"note": word("note")},
	}}
	p.Spec.NodeName, p.Spec.RestartPolicy = word("node"), corev1.RestartPolicyAlways
	for n := range rapid.IntRange(0, 2).Draw(t, "containers") {
		c := corev1.Container{Name: fmt.Sprint("c", n), Image: word("image")}
		for _, e := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"A", "B"}), func(s string) string { return s }).Draw(t, "env") {
			c.Env = append(c.Env, corev1.EnvVar{Name: e, Value: word("value")})
		}
		if rapid.Bool().Draw(t, "limits") {
			c.Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse(rapid.SampledFrom([]string{"1", "1000m", "2"}).Draw(t, "cpu"))}
		}
		p.Spec.Containers = append(p.Spec.Containers, c)
	}
	if rapid.Bool().Draw(t, "tolerations") {
		p.Spec.Tolerations = []corev1.Toleration{{Key: word("key")}}
	}
	p.Status.Phase, p.Status.PodIP = corev1.PodPhase(word("phase")), word("ip")
	for _, k := range []corev1.PodConditionType{corev1.PodReady, corev1.PodScheduled} {
		if rapid.Bool().Draw(t, "condition") {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: k, Status: corev1.ConditionStatus(word("status"))})
		}
	}
	return p
}

// TestManagersOfWhatIsUnlike records changes with the whole objects and with what is unlike in them: the managers are the same.
func TestManagersOfWhatIsUnlike(t *testing.T) {
	def := kind.Row(kind.Def{Kind: "Pod", Resource: "pods", Namespaced: true}, kind.In[corev1.Pod, corev1.PodList](corev1.SchemeGroupVersion, nil))
	c := &call{served: newServed(def, &def.Storage, nil), info: &request.Info{}}
	m, err := c.fieldManager()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		var now kind.Object
		for n := range rapid.IntRange(1, 4).Draw(t, "writes") {
			next := anyPod(t)
			who := rapid.SampledFrom([]string{"ann", "bob", "eve"}).Draw(t, "who")
			if now == nil {
				now = def.Storage.New()
			} else {
				next.SetManagedFields(now.GetManagedFields())
			}
			stamp(c, next)
			stamp(c, now)
			was, is := unlike(now, next)
			if n == 0 {
				was, is = now.DeepCopyObject().(kind.Object), next.DeepCopyObject().(kind.Object)
			}
			fast := m.fields.UpdateNoErrors(was, is, who).(kind.Object).GetManagedFields()
			slow := m.fields.UpdateNoErrors(now.DeepCopyObject(), next.DeepCopyObject(), who).(kind.Object).GetManagedFields()
			for i := range fast {
				fast[i].Time = nil
			}
			for i := range slow {
				slow[i].Time = nil
			}
			if !reflect.DeepEqual(fast, slow) {
				t.Fatalf("write %d: the managers are\n%v\nand should be\n%v", n, fast, slow)
			}
			next.SetManagedFields(slow)
			now = next
		}
	})
}

// TestUnlikeLeavesTheObjectsAlone keeps what differs and what names the object, and changes neither.
func TestUnlikeLeavesTheObjectsAlone(t *testing.T) {
	a := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", UID: "u", Labels: map[string]string{"a": "b"}}}
	a.Spec.Replicas, a.Spec.Template.Spec.NodeName = new(int32(1)), "n"
	b := a.DeepCopy()
	b.Spec.Replicas = new(int32(2))
	wantA, wantB := a.DeepCopy(), b.DeepCopy()
	x, y := unlike(a, b)
	if !reflect.DeepEqual(a, wantA) || !reflect.DeepEqual(b, wantB) {
		t.Fatal("the objects were changed")
	}
	dx, dy := x.(*appsv1.Deployment), y.(*appsv1.Deployment)
	if *dx.Spec.Replicas != 1 || *dy.Spec.Replicas != 2 || dx.Name != "d" || dy.UID != "u" || dx.Labels != nil || dy.Spec.Template.Spec.NodeName != "" {
		t.Errorf("what is unlike is %+v and %+v", dx, dy)
	}
}
