package controllermanager

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func fat(i int) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprint("p", i), Namespace: "a", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"n": "v"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
		OwnerReferences: []metav1.OwnerReference{{UID: "u", Name: "rs"}},
	}}
	p.Spec = corev1.PodSpec{
		NodeName: fmt.Sprint("n", i), Tolerations: []corev1.Toleration{{Key: "k"}},
		Containers: []corev1.Container{{
			Name: "c", Image: "i", Env: []corev1.EnvVar{{Name: "E", Value: "v"}}, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}},
			Resources:    corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}},
			VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
		}},
		Volumes: []corev1.Volume{
			{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}},
			{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: fmt.Sprint("c", i)}}},
		},
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "c", ImageID: strings.Clone("id")}}}
	return p
}

// TestSlim: pods of one template share what is theirs in common and keep what is their own; statuses stay whole.
func TestSlim(t *testing.T) {
	s := newSlimmer()
	var pods []*corev1.Pod
	for i := range 2 {
		p := fat(i)
		if _, err := s.slim(p); err != nil {
			t.Fatal(err)
		}
		want := fat(i)
		want.ManagedFields = nil
		want.Spec.Containers[0].Image, want.Spec.Containers[0].Env, want.Spec.Containers[0].VolumeMounts[0].MountPath = "", nil, ""
		want.Spec.Volumes = want.Spec.Volumes[1:]
		if !equality.Semantic.DeepEqual(p, want) {
			t.Errorf("got %+v, not %+v", p, want)
		}
		pods = append(pods, p)
	}
	if &pods[0].Spec.Containers[0] != &pods[1].Spec.Containers[0] || &pods[0].OwnerReferences[0] != &pods[1].OwnerReferences[0] {
		t.Error("two pods of one template hold it twice")
	}
	a, b := &pods[0].Status.ContainerStatuses[0], &pods[1].Status.ContainerStatuses[0]
	if unsafe.StringData(a.ImageID) != unsafe.StringData(b.ImageID) {
		t.Error("two pods of one image name it twice")
	}
	roomy := fat(2)
	roomy.Status.Conditions = make([]corev1.PodCondition, 4, 64)
	if _, err := s.slim(roomy); err != nil || len(roomy.Status.Conditions) != 4 || cap(roomy.Status.Conditions) > 8 {
		t.Errorf("four conditions lie in room for %d, %v", cap(roomy.Status.Conditions), err)
	}
	for i := range 3 * templates {
		p := fat(0)
		p.Labels["pod"] = fmt.Sprint(i)
		if _, err := s.slim(p); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.metas); n > templates {
		t.Errorf("%d pieces are remembered", n)
	}
	for i := range templates + 1 {
		p := fat(0)
		p.Spec.NodeName = fmt.Sprint("n", i)
		if _, err := s.slim(p); err != nil || p.Spec.NodeName != fmt.Sprint("n", i) {
			t.Fatal(p.Spec.NodeName, err)
		}
	}
	if n := len(s.words); n > templates {
		t.Errorf("%d words are remembered", n)
	}
}
