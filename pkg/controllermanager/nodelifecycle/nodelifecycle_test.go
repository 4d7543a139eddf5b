package nodelifecycle

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// Pods are looked at for eviction only where a node has pods leave, or had: whichever of both is seen last brings them.
func TestTainted(t *testing.T) {
	d := runtime.Deps{Client: fake.NewClientset()}
	d.Informers = informers.NewSharedInformerFactory(d.Client, 0) // it never starts
	nodes := d.Informers.Core().V1().Nodes()
	c := &controller{Deps: d, nodes: nodes.Lister(), pods: podsByNode(d)}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n"}}
	if err := c.pods.Add(pod); err != nil {
		t.Fatal(err)
	}
	node := func(effects ...corev1.TaintEffect) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
		for _, e := range effects {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "k", Effect: e})
		}
		return n
	}
	plain, kept, expelled := node(), node(corev1.TaintEffectNoSchedule), node(corev1.TaintEffectNoExecute)
	if len(c.onTainted(nil, pod)) != 0 {
		t.Error("a pod on a node that is not there")
	}
	for _, n := range []*corev1.Node{plain, kept, expelled} {
		if err := nodes.Informer().GetIndexer().Update(n); err != nil {
			t.Fatal(err)
		}
		if got, want := len(c.onTainted(nil, pod)) == 1, n == expelled; got != want {
			t.Errorf("a pod on a node with %v is looked at: %t", n.Spec.Taints, got)
		}
		if got, want := len(c.podsOf(nil, n)) == 1, n == expelled; got != want {
			t.Errorf("pods of a new node with %v are looked at: %t", n.Spec.Taints, got)
		}
	}
	for _, x := range []struct {
		old, now *corev1.Node
		want     bool
	}{{plain, expelled, true}, {expelled, plain, true}, {plain, kept, false}, {expelled, expelled, false}} {
		if got := len(c.podsOf(x.old, x.now)) == 1; got != x.want {
			t.Errorf("from %v to %v pods are looked at: %t", x.old.Spec.Taints, x.now.Spec.Taints, got)
		}
	}
}
