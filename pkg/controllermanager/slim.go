package controllermanager

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// slimmer makes objects small before they are cached. What many of them have in common is held once for all, which may be
// since cached objects are never changed. Pods are most of what there is: see pod.
type slimmer struct {
	mu       sync.Mutex
	specs    map[string]*corev1.PodSpec
	statuses map[string]*corev1.PodStatus
	metas    map[string]*metav1.ObjectMeta
	words    map[string]string
	key      []byte // of what is looked for; it is used anew
}

// templates is how many pieces are remembered of each kind. Beyond it all are forgotten: pods keep theirs, and later ones
// share anew.
const templates = 8192

func newSlimmer() *slimmer {
	return &slimmer{specs: map[string]*corev1.PodSpec{}, statuses: map[string]*corev1.PodStatus{}, metas: map[string]*metav1.ObjectMeta{}, words: map[string]string{}}
}

// slim is called for every object on its way into a cache.
func (s *slimmer) slim(obj any) (any, error) {
	if p, ok := obj.(*corev1.Pod); ok {
		s.pod(p)
		return p, nil
	}
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	switch o := obj.(type) {
	case *discoveryv1.EndpointSlice:
		s.slice(o)
	case *corev1.Endpoints: //nolint:staticcheck // it is still served
		s.endpoints(o)
	}
	return obj, nil
}

// long is from where on a text is no word: it is likely its object's own.
const long = 256

// word has a text be the one that others hold. The lock is held.
func word[T ~string](s *slimmer, t *T) {
	if *t == "" || len(*t) > long {
		return
	}
	known, ok := s.words[string(*t)]
	if !ok {
		if len(s.words) >= templates {
			clear(s.words)
		}
		known = string(*t)
		s.words[known] = known
	}
	*t = T(known)
}

var truth = map[bool]*bool{true: new(true), false: new(false)}

// slice has the endpoints of a slice hold what others hold.
func (s *slimmer) slice(x *discoveryv1.EndpointSlice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range x.Endpoints {
		e := &x.Endpoints[i]
		for _, b := range []**bool{&e.Conditions.Ready, &e.Conditions.Serving, &e.Conditions.Terminating} {
			if *b != nil {
				*b = truth[**b]
			}
		}
		s.reference(e.TargetRef)
		for _, t := range []*string{e.NodeName, e.Zone} {
			if t != nil {
				word(s, t)
			}
		}
	}
}

// endpoints does the same for those of old.
func (s *slimmer) endpoints(x *corev1.Endpoints) { //nolint:staticcheck // it is still served
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range x.Subsets {
		for _, list := range [][]corev1.EndpointAddress{x.Subsets[i].Addresses, x.Subsets[i].NotReadyAddresses} {
			for k := range list {
				s.reference(list[k].TargetRef)
				if list[k].NodeName != nil {
					word(s, list[k].NodeName)
				}
			}
		}
	}
}

func (s *slimmer) reference(r *corev1.ObjectReference) {
	if r != nil {
		word(s, &r.Kind)
		word(s, &r.Namespace)
	}
}
