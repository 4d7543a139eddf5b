package controllermanager

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// observer sees everything that is born, when it is, however late the controllers see it. It holds pods to what their owners
// ask for, all the time and not only at the end.
type observer struct {
	t *testing.T

	mu    sync.Mutex
	born  map[string]map[string]map[types.UID]bool // by namespace, then kind and name, as states name it
	pods  map[types.UID]map[types.UID]*corev1.Pod  // by owner
	most  map[types.UID]int32                      // pods that an owner ever asked for at once
	faith map[types.UID]bool                       // owners whose pods are made in order
}

// observe watches until the test ends.
func (c *cluster) observe(t *testing.T) *observer {
	t.Helper()
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		t.Fatal(err)
	}
	o := &observer{t: t, born: map[string]map[string]map[types.UID]bool{}, pods: map[types.UID]map[types.UID]*corev1.Pod{}, most: map[types.UID]int32{}, faith: map[types.UID]bool{}}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	for _, gvr := range kept {
		if _, err := factory.ForResource(gvr).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { o.see(obj.(*unstructured.Unstructured), true) },
			UpdateFunc: func(_, obj any) { o.see(obj.(*unstructured.Unstructured), false) },
			DeleteFunc: func(obj any) {
				if u, ok := obj.(*unstructured.Unstructured); ok {
					o.gone(u)
				}
			},
		}); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	factory.Start(stop)
	factory.WaitForCacheSync(stop)
	t.Cleanup(func() {
		close(stop)
		factory.Shutdown()
	})
	return o
}

func (o *observer) see(u *unstructured.Unstructured, isNew bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if isNew {
		name := u.GetName()
		if g := u.GetGenerateName(); g != "" {
			name = g + "*"
		}
		kinds := o.born[u.GetNamespace()]
		if kinds == nil {
			kinds = map[string]map[types.UID]bool{}
			o.born[u.GetNamespace()] = kinds
		}
		what := u.GetKind() + " " + name
		if kinds[what] == nil {
			kinds[what] = map[types.UID]bool{}
		}
		kinds[what][u.GetUID()] = true
	}
	switch u.GetKind() {
	case "ReplicaSet", "ReplicationController", "StatefulSet":
		n, _, _ := unstructured.NestedInt64(u.Object, "spec", "replicas") // it is there: the apiserver sets it
		o.most[u.GetUID()] = max(o.most[u.GetUID()], int32(n))
		policy, _, _ := unstructured.NestedString(u.Object, "spec", "podManagementPolicy")
		o.faith[u.GetUID()] = policy == string(appsv1.OrderedReadyPodManagement)
	case "Job":
		n, _, _ := unstructured.NestedInt64(u.Object, "spec", "parallelism")
		o.most[u.GetUID()] = max(o.most[u.GetUID()], int32(n))
	case "Pod":
		p := &corev1.Pod{}
		if err := apiruntime.DefaultUnstructuredConverter.FromUnstructured(u.Object, p); err != nil {
			o.t.Errorf("reading %s: %v", u.GetName(), err)
			return
		}
		o.pod(p, isNew)
	}
}

func (o *observer) gone(u *unstructured.Unstructured) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, mine := range o.pods {
		delete(mine, u.GetUID())
	}
}

// pod holds what an owner has to what it may have: never more than it asks for, in order, one for each index and node.
func (o *observer) pod(p *corev1.Pod, isNew bool) {
	for _, mine := range o.pods { // it may have been let go
		delete(mine, p.UID)
	}
	ref := metav1.GetControllerOf(p)
	if ref == nil {
		return
	}
	mine := o.pods[ref.UID]
	if mine == nil {
		mine = map[types.UID]*corev1.Pod{}
		o.pods[ref.UID] = mine
	}
	mine[p.UID] = p
	if !isNew {
		return
	}
	live, index, at := int32(0), map[string]string{}, map[string]string{}
	ready := map[string]bool{}
	for _, x := range mine {
		if x.DeletionTimestamp != nil || runtime.Finished(x) {
			continue
		}
		live++
		_, ready[x.Name] = runtime.Ready(x)
		if i := x.Annotations[batchv1.JobCompletionIndexAnnotation]; i != "" {
			if other := index[i]; other != "" {
				o.t.Errorf("%s and %s work on index %s of %s/%s", x.Name, other, i, p.Namespace, ref.Name)
			}
			index[i] = x.Name
		}
		if node := meantFor(x); node != "" {
			if other := at[node]; other != "" {
				o.t.Errorf("%s and %s are of %s/%s on %s", x.Name, other, p.Namespace, ref.Name, node)
			}
			at[node] = x.Name
		}
	}
	if most, known := o.most[ref.UID]; known && live > most {
		o.t.Errorf("%s/%s has %d pods, and never asked for more than %d", p.Namespace, ref.Name, live, most)
	}
	if i := strings.LastIndexByte(p.Name, '-'); o.faith[ref.UID] && i > 0 {
		n := 0
		if _, err := fmt.Sscan(p.Name[i+1:], &n); err == nil && n > 0 && !ready[fmt.Sprint(p.Name[:i+1], n-1)] {
			o.t.Errorf("%s was made before the one before it was ready", p.Name)
		}
	}
}

// meantFor answers the node that a daemon's pod is for.
func meantFor(p *corev1.Pod) string {
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

// births answers how many of each were born in a namespace, ever.
func (o *observer) births(ns string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(o.born[ns])) {
		fmt.Fprintf(&b, "%s%d %s\n", born, len(o.born[ns][what]), what)
	}
	return b.String()
}

// born begins the lines of a state that count births.
const born = "born: "
