package localpath

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// A node that the cache does not show yet is not gone: a claim keeps it, and a directory on it is removed.
func TestUnseenNode(t *testing.T) {
	for _, there := range []bool{true, false} {
		client := fake.NewClientset()
		if there {
			client = fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelHostname: "n1"}}})
		}
		c := &controller{Deps: runtime.Deps{Client: client}, nodes: informers.NewSharedInformerFactory(client, 0).Core().V1().Nodes().Lister()} // it never starts
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{claimNote: Provisioner, selectedNote: "n1"}}}
		if n, err := c.chosen(t.Context(), claim); err != nil || (n != nil) != there {
			t.Errorf("the node is there: %t; for a claim it is %v, %v", there, n, err)
		}
		v := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}},
		}}}}}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeReleased}}
		if n, err := c.holder(t.Context(), v); err != nil || (n != nil) != there {
			t.Errorf("the node is there: %t; for a volume it is %v, %v", there, n, err)
		}
	}
}
