package controllermanager

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// slimmer makes objects small before they are cached. Pods are most of what there is: of their specs stays what some
// controller reads, and what pods of one template have in common is held once for all of them, which may be since cached
// objects are never changed. Statuses stay whole: they are written back.
type slimmer struct {
	mu    sync.Mutex
	specs map[string]*corev1.PodSpec
	metas map[string]*metav1.ObjectMeta
}

// templates is how many pieces are remembered of each kind. Beyond it all are forgotten: pods keep theirs, and later ones
// share anew.
const templates = 8192

func newSlimmer() *slimmer {
	return &slimmer{specs: map[string]*corev1.PodSpec{}, metas: map[string]*metav1.ObjectMeta{}}
}

// slim is called for every object on its way into a cache.
func (s *slimmer) slim(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	if p, ok := obj.(*corev1.Pod); ok {
		trim(&p.Spec)
		s.share(p)
	}
	return obj, nil
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
