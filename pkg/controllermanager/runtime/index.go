package runtime

import (
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
