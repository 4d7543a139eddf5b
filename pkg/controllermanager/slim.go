package controllermanager

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// slimmer makes objects small before they are cached. Pods are most of what there is: of their specs stays what some
// controller reads, and what pods of one template have in common is held once for all of them, which may be since cached
// objects are never changed. Statuses stay whole: they are written back.
type slimmer struct {
	mu    sync.Mutex
	specs map[string]*corev1.PodSpec
	metas map[string]*metav1.ObjectMeta
	words map[string]string
}

// templates is how many pieces are remembered of each kind. Beyond it all are forgotten: pods keep theirs, and later ones
// share anew.
const templates = 8192

func newSlimmer() *slimmer {
	return &slimmer{specs: map[string]*corev1.PodSpec{}, metas: map[string]*metav1.ObjectMeta{}, words: map[string]string{}}
}

// slim is called for every object on its way into a cache.
func (s *slimmer) slim(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		trim(&o.Spec)
		s.share(o)
		s.status(&o.Status)
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

// status has a pod's status hold the words of others.
func (s *slimmer) status(st *corev1.PodStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Decoding doubles what it appends to: five conditions lie in room for eight.
	st.Conditions = append([]corev1.PodCondition(nil), st.Conditions...)
	st.ContainerStatuses = append([]corev1.ContainerStatus(nil), st.ContainerStatuses...)
	word(s, &st.Phase)
	word(s, &st.HostIP)
	word(s, &st.QOSClass)
	word(s, &st.Reason)
	for i := range st.HostIPs {
		word(s, &st.HostIPs[i].IP)
	}
	for i := range st.PodIPs {
		if st.PodIPs[i].IP == st.PodIP {
			st.PodIPs[i].IP = st.PodIP
		}
	}
	for i := range st.Conditions {
		c := &st.Conditions[i]
		word(s, &c.Type)
		word(s, &c.Status)
		word(s, &c.Reason)
		word(s, &c.Message)
	}
	for _, list := range [][]corev1.ContainerStatus{st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses} {
		for i := range list {
			word(s, &list[i].Name)
			word(s, &list[i].Image)
			word(s, &list[i].ImageID)
		}
	}
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

// trim drops what no controller reads of a pod's spec.
func trim(spec *corev1.PodSpec) {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			c := &list[i]
			list[i] = corev1.Container{
				Name: c.Name, Ports: c.Ports, Resources: c.Resources, RestartPolicy: c.RestartPolicy, VolumeMounts: c.VolumeMounts, SecurityContext: c.SecurityContext,
			}
			for m := range c.VolumeMounts {
				c.VolumeMounts[m] = corev1.VolumeMount{Name: c.VolumeMounts[m].Name}
			}
		}
	}
	kept := spec.Volumes[:0]
	for _, v := range spec.Volumes {
		if v.Projected == nil && v.ConfigMap == nil && v.DownwardAPI == nil && v.EmptyDir == nil && v.HostPath == nil {
			kept = append(kept, v)
		}
	}
	spec.Volumes = append([]corev1.Volume(nil), kept...) // what was dropped is let go of
	spec.DNSConfig, spec.HostAliases, spec.ImagePullSecrets = nil, nil, nil
}

// share has a pod hold what others hold already.
func (s *slimmer) share(p *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// These are the pod's own.
	node, host, volumes := p.Spec.NodeName, p.Spec.Hostname, p.Spec.Volumes
	p.Spec.NodeName, p.Spec.Hostname, p.Spec.Volumes = "", "", nil
	if key, err := p.Spec.Marshal(); err == nil {
		known := s.specs[string(key)]
		if known == nil {
			if len(s.specs) >= templates {
				clear(s.specs)
			}
			common := p.Spec
			known = &common
			s.specs[string(key)] = known
		}
		p.Spec = *known
	}
	word(s, &node)
	p.Spec.NodeName, p.Spec.Hostname, p.Spec.Volumes = node, host, volumes
	common := metav1.ObjectMeta{Labels: p.Labels, Annotations: p.Annotations, OwnerReferences: p.OwnerReferences, Finalizers: p.Finalizers, GenerateName: p.GenerateName, Namespace: p.Namespace}
	if key, err := common.Marshal(); err == nil {
		known := s.metas[string(key)]
		if known == nil {
			if len(s.metas) >= templates {
				clear(s.metas)
			}
			known = &common
			s.metas[string(key)] = known
		}
		p.Labels, p.Annotations, p.OwnerReferences = known.Labels, known.Annotations, known.OwnerReferences
		p.Finalizers, p.GenerateName, p.Namespace = known.Finalizers, known.GenerateName, known.Namespace
	}
}
