package runtime

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// byController is the name of the index of ByController.
const byController = "controller"

// Children finds objects by who controls them.
type Children[T any] struct{ indexer cache.Indexer }

// ByController indexes an informer's objects by the UID of their controller, and those without one by namespace. It must
// be called before the informer is started; several controllers may share one informer's index.
func ByController[T any](informer cache.SharedIndexInformer) Children[T] {
	if _, ok := informer.GetIndexer().GetIndexers()[byController]; !ok {
		// The only error is that the index exists, which was just asked.
		_ = informer.AddIndexers(cache.Indexers{byController: func(obj any) ([]string, error) {
			o, ok := obj.(metav1.Object)
			if !ok {
				return nil, nil
			}
			if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
				return []string{string(ref.UID)}, nil
			}
			return []string{orphans(o.GetNamespace())}, nil
		}})
	}
	return Children[T]{informer.GetIndexer()}
}

func orphans(namespace string) string { return "none/" + namespace }

// Of answers the objects that uid controls.
func (c Children[T]) Of(uid types.UID) []*T { return c.find(string(uid)) }

// Orphans answers the objects of a namespace that nobody controls.
func (c Children[T]) Orphans(namespace string) []*T { return c.find(orphans(namespace)) }

func (c Children[T]) find(value string) []*T {
	objs, err := c.indexer.ByIndex(byController, value)
	if err != nil {
		return nil // there is no such index: ByController made it
	}
	out := make([]*T, 0, len(objs))
	for _, o := range objs {
		if t, ok := o.(*T); ok {
			out = append(out, t)
		}
	}
	return out
}

// By indexes an informer's objects by the values that of answers, and answers how to find them. It must be called before
// the informer is started. Who asks for an index by a name that is there shares it, so a name must mean one thing.
func By[T any](informer cache.SharedIndexInformer, name string, of func(*T) []string) func(value string) []*T {
	if _, ok := informer.GetIndexer().GetIndexers()[name]; !ok {
		// The only error is that the index exists, which was just asked.
		_ = informer.AddIndexers(cache.Indexers{name: func(obj any) ([]string, error) {
			if t, ok := obj.(*T); ok {
				return of(t), nil
			}
			return nil, nil
		}})
	}
	return func(value string) []*T {
		objs, err := informer.GetIndexer().ByIndex(name, value)
		if err != nil {
			return nil // there is no such index: it was just made
		}
		out := make([]*T, 0, len(objs))
		for _, o := range objs {
			if t, ok := o.(*T); ok {
				out = append(out, t)
			}
		}
		return out
	}
}

// PodsByNode finds the pods of a node.
func PodsByNode(d Deps) func(node string) []*corev1.Pod {
	return By(d.Informers.Core().V1().Pods().Informer(), "spec.nodeName", func(p *corev1.Pod) []string {
		if p.Spec.NodeName == "" {
			return nil
		}
		return []string{p.Spec.NodeName}
	})
}

// PodsByClaim finds the pods that use a claim, by namespace/name; those made for a pod alone are used by it.
func PodsByClaim(d Deps) func(claim string) []*corev1.Pod {
	return By(d.Informers.Core().V1().Pods().Informer(), "claims", func(p *corev1.Pod) (out []string) {
		for _, name := range ClaimsOf(p) {
			out = append(out, p.Namespace+"/"+name)
		}
		return out
	})
}

// ClaimsOf answers the claims that a pod uses, those made for it alone too.
func ClaimsOf(p *corev1.Pod) (names []string) {
	for _, v := range p.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, p.Name+"-"+v.Name)
		}
	}
	return names
}
