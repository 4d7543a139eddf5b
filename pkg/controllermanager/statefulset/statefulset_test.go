package statefulset

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// A claim that is to go with its pod is given to it although the cache does not show it yet: when it does, the pod is gone.
func TestLeavingClaims(t *testing.T) {
	var claims []*corev1.PersistentVolumeClaim
	for _, name := range []string{"data-db-0", "data-db-1"} {
		claims = append(claims, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}})
	}
	client := fake.NewClientset(claims[0], claims[1])
	c := &controller{Deps: runtime.Deps{Client: client}, claims: informers.NewSharedInformerFactory(client, 0).Core().V1().PersistentVolumeClaims().Lister()} // it never starts
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: new(int32(1)), VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
		PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType},
	}}
	var pods []*corev1.Pod
	for _, name := range []string{"db-0", "db-1", "db-2"} {
		pods = append(pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: "u"}})
	}
	got, err := c.claimsOf(t.Context(), set, pods)
	if err != nil || len(got) != 1 || got[0].Name != "data-db-1" {
		t.Fatalf("%v %v", got, err)
	}
	if p := decide(Snapshot{Set: set, Pods: pods, Claims: got}); len(p.Own) != 1 || p.Own[0].OwnerReferences[0].Name != "db-1" {
		t.Errorf("planned: %s", p)
	}
	set.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	if got, err = c.claimsOf(t.Context(), set, pods); err != nil || len(got) != 0 {
		t.Errorf("claims that stay are asked for: %v %v", got, err)
	}
}
