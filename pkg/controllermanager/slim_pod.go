package controllermanager

import (
	"unsafe"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/localpath"
)

// notes are the annotations of pods that some controller reads.
var notes = []string{
	batchv1.JobCompletionIndexAnnotation, batchv1.JobIndexFailureCountAnnotation, batchv1.JobIndexIgnoredFailureCountAnnotation, corev1.PodDeletionCost, localpath.ClaimNote,
}

// slimmed stands where a pod's managed fields were: it says that the pod is slim. An informer that lists shows each object twice,
// and one that is slim holds what others hold, which must not be written to.
var slimmed = make([]metav1.ManagedFieldsEntry, 0, 1)

// pod keeps of a pod what some controller reads, and has it hold what others hold already. What is kept is in testdata/pod.txt.
// Nobody writes a cached pod back: what changes of one is patched.
func (s *slimmer) pod(p *corev1.Pod) {
	if unsafe.SliceData(p.ManagedFields) == unsafe.SliceData(slimmed) {
		return
	}
	p.ManagedFields = slimmed
	p.Annotations = read(p.Annotations)
	trim(&p.Spec)
	p.Status = corev1.PodStatus{
		Phase: p.Status.Phase, Reason: p.Status.Reason, Message: p.Status.Message, StartTime: p.Status.StartTime, PodIPs: p.Status.PodIPs, Conditions: conditions(p),
		InitContainerStatuses: containers(p.Status.InitContainerStatuses), ContainerStatuses: containers(p.Status.ContainerStatuses),
		ResourceClaimStatuses: p.Status.ResourceClaimStatuses, ExtendedResourceClaimStatus: p.Status.ExtendedResourceClaimStatus,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spec(&p.Spec)
	s.meta(&p.ObjectMeta)
	s.status(&p.Status)
}

func read(annotations map[string]string) (kept map[string]string) {
	for _, k := range notes {
		if v, ok := annotations[k]; ok {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[k] = v
		}
	}
	return kept
}

// conditions answers those that are read: whether a pod is ready and whether it is taken away, and of one that failed, or may yet,
// all of them, since the failure policy of its job may ask for any.
func conditions(p *corev1.Pod) []corev1.PodCondition {
	every := p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil
	keep := func(c *corev1.PodCondition) bool {
		return every || c.Type == corev1.PodReady || c.Type == corev1.DisruptionTarget
	}
	n := 0
	for i := range p.Status.Conditions {
		if keep(&p.Status.Conditions[i]) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	kept := make([]corev1.PodCondition, 0, n)
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; keep(c) {
			kept = append(kept, corev1.PodCondition{Type: c.Type, Status: c.Status, Reason: c.Reason, LastTransitionTime: c.LastTransitionTime})
		}
	}
	return kept
}

// waiting is the state of every container that waits.
var waiting = &corev1.ContainerStateWaiting{}

func containers(list []corev1.ContainerStatus) []corev1.ContainerStatus {
	if len(list) == 0 {
		return nil
	}
	kept := make([]corev1.ContainerStatus, len(list))
	for i := range list {
		c := &list[i]
		kept[i] = corev1.ContainerStatus{Name: c.Name, RestartCount: c.RestartCount}
		if c.State.Waiting != nil {
			kept[i].State.Waiting = waiting
		}
		if t := c.State.Terminated; t != nil {
			kept[i].State.Terminated = &corev1.ContainerStateTerminated{ExitCode: t.ExitCode, Reason: t.Reason, Message: t.Message, FinishedAt: t.FinishedAt}
		}
	}
	return kept
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

// spec has a pod's spec hold what others hold. The lock is held.
func (s *slimmer) spec(spec *corev1.PodSpec) {
	// These are the pod's own.
	node, host, volumes := spec.NodeName, spec.Hostname, spec.Volumes
	spec.NodeName, spec.Hostname, spec.Volumes = "", "", nil
	*spec = *held(s, s.specs, spec)
	word(s, &node)
	spec.NodeName, spec.Hostname, spec.Volumes = node, host, volumes
}

// meta has a pod's metadata hold what others hold: those of one template have all of this in common, those of a set with labels of
// their own their owner. The lock is held.
func (s *slimmer) meta(m *metav1.ObjectMeta) {
	common := &metav1.ObjectMeta{Labels: m.Labels, Annotations: m.Annotations, OwnerReferences: m.OwnerReferences, Finalizers: m.Finalizers, GenerateName: m.GenerateName, Namespace: m.Namespace}
	if all := held(s, s.metas, common); all != common {
		common = all
	} else {
		owned := held(s, s.metas, &metav1.ObjectMeta{OwnerReferences: m.OwnerReferences, Finalizers: m.Finalizers, GenerateName: m.GenerateName, Namespace: m.Namespace})
		common.OwnerReferences, common.Finalizers, common.GenerateName, common.Namespace = owned.OwnerReferences, owned.Finalizers, owned.GenerateName, owned.Namespace
	}
	m.Labels, m.Annotations, m.OwnerReferences = common.Labels, common.Annotations, common.OwnerReferences
	m.Finalizers, m.GenerateName, m.Namespace = common.Finalizers, common.GenerateName, common.Namespace
}

// status has a pod's status hold what others hold. The lock is held.
func (s *slimmer) status(st *corev1.PodStatus) {
	word(s, &st.Phase)
	word(s, &st.Reason)
	word(s, &st.Message)
	for i := range st.Conditions {
		c := &st.Conditions[i]
		word(s, &c.Type)
		word(s, &c.Status)
		word(s, &c.Reason)
	}
	own := false
	for _, list := range [][]corev1.ContainerStatus{st.InitContainerStatuses, st.ContainerStatuses} {
		for i := range list {
			word(s, &list[i].Name)
			own = own || list[i].State.Terminated != nil
		}
	}
	if !own {
		common := held(s, s.statuses, &corev1.PodStatus{InitContainerStatuses: st.InitContainerStatuses, ContainerStatuses: st.ContainerStatuses})
		st.InitContainerStatuses, st.ContainerStatuses = common.InitContainerStatuses, common.ContainerStatuses
	}
}

// message is what a key can be made of.
type message interface {
	Size() int
	MarshalTo(to []byte) (int, error)
}

// held answers the one that is equal to m and was asked for first, which is a copy of m if none was. The lock is held.
func held[T any, M interface {
	*T
	message
}](s *slimmer, all map[string]M, m M) M {
	n := m.Size()
	if cap(s.key) < n {
		s.key = make([]byte, 2*n)
	}
	n, err := m.MarshalTo(s.key[:n])
	if err != nil {
		return m // it cannot be told from others
	}
	if have := all[string(s.key[:n])]; have != nil {
		return have
	}
	if len(all) >= templates {
		clear(all)
	}
	kept := *m
	all[string(s.key[:n])] = &kept
	return m
}
