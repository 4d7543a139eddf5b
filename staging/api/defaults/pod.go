package defaults

import (
	"regexp"

	corev1 "k8s.io/api/core/v1"
)

// Pod fills in a pod.
func Pod(p *corev1.Pod) {
	PodSpec(&p.Spec)
	set(&p.Spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	requests(&p.Spec)
	if p.Spec.HostNetwork {
		hostPorts(p.Spec.Containers)
		hostPorts(p.Spec.InitContainers)
	}
	podAddresses(&p.Status)
}

// podAddresses: a pod's one address and the first of many are the same; the one wins.
func podAddresses(s *corev1.PodStatus) {
	switch {
	case s.PodIP == "" && len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	case s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP):
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
}

// PodTemplate fills in a podtemplates object.
func PodTemplate(t *corev1.PodTemplate) { Template(&t.Template) }

// Template fills in a pod template: what Pod does but for what is decided when the pod is made.
func Template(t *corev1.PodTemplateSpec) {
	PodSpec(&t.Spec)
	if t.Spec.HostNetwork {
		hostPorts(t.Spec.Containers)
		hostPorts(t.Spec.InitContainers)
	}
}

// PodSpec fills in what a pod and a template share.
func PodSpec(s *corev1.PodSpec) {
	fill(&s.DNSPolicy, corev1.DNSClusterFirst)
	fill(&s.RestartPolicy, corev1.RestartPolicyAlways)
	if s.SecurityContext == nil {
		s.SecurityContext = &corev1.PodSecurityContext{}
	}
	set(&s.TerminationGracePeriodSeconds, int64(corev1.DefaultTerminationGracePeriodSeconds))
	fill(&s.SchedulerName, corev1.DefaultSchedulerName)
	// The old name and the new are kept equal, as readers know one or the other.
	if s.ServiceAccountName == "" {
		s.ServiceAccountName = s.DeprecatedServiceAccount
	}
	s.DeprecatedServiceAccount = s.ServiceAccountName
	for i := range s.Volumes {
		volume(&s.Volumes[i])
	}
	for i := range s.InitContainers {
		container(&s.InitContainers[i])
	}
	for i := range s.Containers {
		container(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		c := corev1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		container(&c)
		s.EphemeralContainers[i].EphemeralContainerCommon = corev1.EphemeralContainerCommon(c)
	}
	list(s.Overhead)
}

func container(c *corev1.Container) {
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = corev1.PullIfNotPresent
		if latest(c.Image) {
			c.ImagePullPolicy = corev1.PullAlways
		}
	}
	fill(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	fill(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		fill(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if f := c.Env[i].ValueFrom; f != nil {
			if f.FieldRef != nil {
				fill(&f.FieldRef.APIVersion, "v1")
			}
			if f.FileKeyRef != nil {
				set(&f.FileKeyRef.Optional, false)
			}
		}
	}
	probe(c.LivenessProbe)
	probe(c.ReadinessProbe)
	probe(c.StartupProbe)
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil && h.HTTPGet != nil {
				get(h.HTTPGet)
			}
		}
	}
	list(c.Resources.Requests)
	list(c.Resources.Limits)
	// A limit without a request is the request too.
	for name, q := range c.Resources.Limits {
		if _, ok := c.Resources.Requests[name]; !ok {
			if c.Resources.Requests == nil {
				c.Resources.Requests = corev1.ResourceList{}
			}
			c.Resources.Requests[name] = q.DeepCopy()
		}
	}
}

// list rounds what is finer than the API keeps: a thousandth.
func list(l corev1.ResourceList) {
	for name, q := range l {
		if q.RoundUp(-3) {
			continue
		}
		l[name] = q
	}
}

// tagged is the grammar of an image's name without a digest: host, path, tag.
var tagged = regexp.MustCompile(`^((?:(?:[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?` +
	`[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)(?::(\w[\w.-]{0,127}))?$`)

// nameBytes is how long an image's name may be without its tag.
const nameBytes = 255

// latest tells whether an image's name means whatever is newest. A name that breaks the grammar means nothing.
func latest(image string) bool {
	m := tagged.FindStringSubmatch(image)
	return m != nil && len(m[1]) <= nameBytes && (m[2] == "" || m[2] == "latest")
}

func probe(p *corev1.Probe) {
	if p == nil {
		return
	}
	fill(&p.TimeoutSeconds, 1)
	fill(&p.PeriodSeconds, 10)
	fill(&p.SuccessThreshold, 1)
	fill(&p.FailureThreshold, 3)
	if p.HTTPGet != nil {
		get(p.HTTPGet)
	}
	if p.GRPC != nil {
		set(&p.GRPC.Service, "")
	}
}

func get(h *corev1.HTTPGetAction) {
	fill(&h.Path, "/")
	fill(&h.Scheme, corev1.URISchemeHTTP)
}

// requests gives pod-level resources their requests: what the containers ask for together, else what the pod may use at most.
func requests(s *corev1.PodSpec) {
	if s.Resources == nil || len(s.Resources.Requests)+len(s.Resources.Limits) == 0 {
		return
	}
	for name, sum := range Together(s) {
		if _, ok := s.Resources.Requests[name]; ok || name != corev1.ResourceCPU && name != corev1.ResourceMemory {
			continue
		}
		if s.Resources.Requests == nil {
			s.Resources.Requests = corev1.ResourceList{}
		}
		s.Resources.Requests[name] = sum
	}
	for name, q := range s.Resources.Limits {
		if _, ok := s.Resources.Requests[name]; ok {
			continue
		}
		sum := q.DeepCopy()
		if s.Resources.Requests == nil {
			s.Resources.Requests = corev1.ResourceList{}
		}
		s.Resources.Requests[name] = sum
	}
}

// Together is what the containers of a pod request at its busiest moment: all that run on, or one that begins beside the sidecars
// before it.
func Together(s *corev1.PodSpec) corev1.ResourceList {
	add := func(to, l corev1.ResourceList) {
		for name, q := range l {
			sum := to[name].DeepCopy()
			sum.Add(q)
			to[name] = sum
		}
	}
	sum, most, beside := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for _, c := range s.Containers {
		add(sum, c.Resources.Requests)
	}
	for _, c := range s.InitContainers {
		begins := corev1.ResourceList{}
		add(begins, c.Resources.Requests)
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(sum, c.Resources.Requests)
			add(beside, c.Resources.Requests)
			begins = corev1.ResourceList{}
		}
		add(begins, beside)
		for name, q := range begins {
			if had, ok := most[name]; !ok || q.Cmp(had) > 0 {
				most[name] = q
			}
		}
	}
	for name, q := range most {
		if had, ok := sum[name]; !ok || q.Cmp(had) > 0 {
			sum[name] = q
		}
	}
	return sum
}

// hostPorts makes the ports of a container on the host's network the host's.
func hostPorts(cs []corev1.Container) {
	for i := range cs {
		for j := range cs[i].Ports {
			fill(&cs[i].Ports[j].HostPort, cs[i].Ports[j].ContainerPort)
		}
	}
}
