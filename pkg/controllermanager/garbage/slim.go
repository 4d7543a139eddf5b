package garbage

import (
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// most is how many owners are remembered. Beyond it all are forgotten: objects keep theirs, and later ones share anew.
const most = 8192

// owners holds the references of objects to their owners, once for all that an owner has.
type owners struct {
	mu    sync.Mutex
	known map[types.UID][]metav1.OwnerReference
}

// slim keeps of an object what the graph needs.
func (s *owners) slim(obj any) (any, error) {
	o, err := meta.Accessor(obj)
	if err != nil {
		return obj, nil //nolint:nilerr // it is the news of an end, which holds what is slim already
	}
	o.SetManagedFields(nil)
	o.SetAnnotations(nil)
	o.SetLabels(nil)
	o.SetGenerateName("")
	o.SetOwnerReferences(s.share(o.GetOwnerReferences()))
	if m, ok := obj.(*metav1.PartialObjectMetadata); ok {
		m.TypeMeta = metav1.TypeMeta{} // whose informer it is says that
	}
	return obj, nil
}

func (s *owners) share(refs []metav1.OwnerReference) []metav1.OwnerReference {
	if len(refs) != 1 {
		return refs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[refs[0].UID]
	if known != nil && equality.Semantic.DeepEqual(known[0], refs[0]) {
		return known
	}
	if s.known == nil || len(s.known) >= most {
		s.known = map[types.UID][]metav1.OwnerReference{}
	}
	s.known[refs[0].UID] = refs
	return refs
}
