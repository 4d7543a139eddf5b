package validate

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/sets"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Pod answers what is wrong with a new pod.
func Pod(p *corev1.Pod) field.ErrorList {
	errs := pod(p)
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "ephemeralContainers"), "cannot be set on create"))
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return errs
}

// pod checks a pod by itself, new or not.
func pod(p *corev1.Pod) field.ErrorList {
	errs := validation.ValidateObjectMeta(&p.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	spec := field.NewPath("spec")
	errs = append(errs, podSpec(&p.Spec, spec)...)
	if p.Spec.ServiceAccountName == "" {
		for i, v := range p.Spec.Volumes {
			if v.Projected == nil {
				continue
			}
			for k, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil {
					errs = append(errs, field.Forbidden(spec.Child("volumes").Index(i).Child("projected", "sources").Index(k).Child("serviceAccountToken"),
						"must not be specified when serviceAccountName is not set"))
				}
			}
		}
	}
	return errs
}

// PodTemplateSpec answers what is wrong with a template that stands at a path.
func PodTemplateSpec(t *corev1.PodTemplateSpec, at *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabels(t.Labels, at.Child("labels"))
	errs = append(errs, validation.ValidateAnnotations(t.Annotations, at.Child("annotations"))...)
	errs = append(errs, podSpec(&t.Spec, at.Child("spec"))...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(at.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// PodTemplate answers what is wrong with a pod template.
func PodTemplate(t *corev1.PodTemplate) field.ErrorList {
	errs := validation.ValidateObjectMeta(&t.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, PodTemplateSpec(&t.Template, field.NewPath("template"))...)
}

// PodTemplateUpdate answers what is wrong with a pod template in the place of old.
func PodTemplateUpdate(t, old *corev1.PodTemplate) field.ErrorList {
	errs := common(&t.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&t.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, PodTemplateSpec(&t.Template, field.NewPath("template"))...)
}

func podSpec(s *corev1.PodSpec, at *field.Path) field.ErrorList {
	vols, errs := volumes(s.Volumes, at.Child("volumes"))
	in := surroundings{volumes: vols, grace: s.TerminationGracePeriodSeconds, host: s.HostNetwork, never: s.RestartPolicy == corev1.RestartPolicyNever}
	errs = append(errs, containers(s.Containers, in, at.Child("containers"))...)
	errs = append(errs, initContainers(s.InitContainers, s.Containers, in, at.Child("initContainers"))...)
	errs = append(errs, ephemeralContainers(s, in, at.Child("ephemeralContainers"))...)
	errs = add(errs, oneOf(at.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever))
	errs = add(errs, oneOf(at.Child("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone))
	errs = append(errs, metavalidation.ValidateLabels(s.NodeSelector, at.Child("nodeSelector"))...)
	errs = append(errs, podSecurity(s, at.Child("securityContext"))...)
	for i, r := range s.ImagePullSecrets {
		errs = append(errs, required(r.Name, at.Child("imagePullSecrets").Index(i).Child("name"))...)
	}
	errs = append(errs, affinity(s.Affinity, at.Child("affinity"))...)
	errs = append(errs, dnsConfig(s, at.Child("dnsConfig"))...)
	for i, g := range s.ReadinessGates {
		p := at.Child("readinessGates").Index(i).Child("conditionType")
		errs = append(errs, invalid(p, string(g.ConditionType), utilvalidation.IsQualifiedName(string(g.ConditionType)))...)
	}
	gates := sets.New[string]()
	for i, g := range s.SchedulingGates {
		p := at.Child("schedulingGates").Index(i)
		errs = append(errs, invalid(p, g.Name, utilvalidation.IsQualifiedName(g.Name))...)
		if gates.Has(g.Name) {
			errs = append(errs, field.Duplicate(p, g.Name))
		}
		gates.Insert(g.Name)
	}
	errs = append(errs, spread(s.TopologySpreadConstraints, at.Child("topologySpreadConstraints"))...)
	names := func(value, name string, rule func(string) []string) {
		if value != "" {
			errs = append(errs, invalid(at.Child(name), value, rule(value))...)
		}
	}
	subdomain := func(v string) []string { return validation.NameIsDNSSubdomain(v, false) }
	names(s.ServiceAccountName, "serviceAccountName", subdomain)
	names(s.NodeName, "nodeName", subdomain)
	if s.ActiveDeadlineSeconds != nil {
		errs = append(errs, within(*s.ActiveDeadlineSeconds, 1, at.Child("activeDeadlineSeconds"))...)
	}
	names(s.Hostname, "hostname", utilvalidation.IsDNS1123Label)
	names(s.Subdomain, "subdomain", utilvalidation.IsDNS1123Label)
	errs = append(errs, tolerations(s.Tolerations, at.Child("tolerations"))...)
	errs = append(errs, hostAliases(s.HostAliases, at.Child("hostAliases"))...)
	names(s.PriorityClassName, "priorityClassName", subdomain)
	if s.RuntimeClassName != nil {
		errs = append(errs, invalid(at.Child("runtimeClassName"), *s.RuntimeClassName, subdomain(*s.RuntimeClassName))...)
	}
	if p := s.PreemptionPolicy; p != nil {
		errs = add(errs, oneOf(at.Child("preemptionPolicy"), *p, corev1.PreemptLowerPriority, corev1.PreemptNever))
	}
	for _, n := range slices.Sorted(maps.Keys(s.Overhead)) {
		p := at.Child("overhead")
		errs = append(errs, resourceName(n, p.Key(string(n)))...)
		errs = append(errs, quantity(n, s.Overhead[n], p.Key(string(n)))...)
	}
	errs = append(errs, podResources(s, at.Child("resources"))...)
	if s.OS != nil {
		errs = add(errs, oneOf(at.Child("os").Child("name"), s.OS.Name, corev1.Linux, corev1.Windows))
	}
	return errs
}

func dnsConfig(s *corev1.PodSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	c := s.DNSConfig
	if s.DNSPolicy == corev1.DNSNone && (c == nil || len(c.Nameservers) == 0) {
		p := at
		if c != nil {
			p = at.Child("nameservers")
		}
		return append(errs, field.Required(p, "must provide at least one DNS nameserver when `dnsPolicy` is None"))
	}
	if c == nil {
		return nil
	}
	if len(c.Nameservers) > 3 {
		errs = append(errs, field.Invalid(at.Child("nameservers"), c.Nameservers, "must not have more than 3 nameservers"))
	}
	for i, ns := range c.Nameservers {
		errs = append(errs, utilvalidation.IsValidIP(at.Child("nameservers").Index(i), ns)...)
	}
	if len(c.Searches) > 32 {
		errs = append(errs, field.Invalid(at.Child("searches"), c.Searches, "must not have more than 32 search paths"))
	}
	for i, d := range c.Searches {
		if d == "." {
			continue
		}
		name := d
		if n := len(d); n > 0 && d[n-1] == '.' {
			name = d[:n-1]
		}
		errs = append(errs, invalid(at.Child("searches").Index(i), d, utilvalidation.IsDNS1123SubdomainWithUnderscore(name))...)
	}
	for i, o := range c.Options {
		if o.Name == "" {
			errs = append(errs, field.Required(at.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}

func hostAliases(list []corev1.HostAlias, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, h := range list {
		errs = append(errs, utilvalidation.IsValidIP(at.Index(i).Child("ip"), h.IP)...)
		for k, n := range h.Hostnames {
			errs = append(errs, invalid(at.Index(i).Child("hostnames").Index(k), n, utilvalidation.IsDNS1123Subdomain(n))...)
		}
	}
	return errs
}

const mayChange = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`," +
	"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"

// PodUpdate answers what is wrong with a pod in the place of old.
func PodUpdate(p, old *corev1.Pod) field.ErrorList {
	at := field.NewPath("spec")
	errs := common(&p.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, metadata)...)
	errs = append(errs, pod(p)...)
	if len(p.Spec.Containers) != len(old.Spec.Containers) {
		return append(errs, field.Forbidden(at.Child("containers"), "pod updates may not add or remove containers"))
	}
	if len(p.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return append(errs, field.Forbidden(at.Child("initContainers"), "pod updates may not add or remove containers"))
	}
	for i, c := range p.Spec.Containers {
		errs = append(errs, required(c.Image, at.Child("containers").Index(i).Child("image"))...)
	}
	for i, c := range p.Spec.InitContainers {
		errs = append(errs, required(c.Image, at.Child("initContainers").Index(i).Child("image"))...)
	}
	if deadline, had := p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds; deadline != nil {
		p := at.Child("activeDeadlineSeconds")
		if wrong := within(*deadline, 0, p); len(wrong) > 0 {
			return append(errs, wrong...)
		}
		if had != nil && *had < *deadline {
			return append(errs, field.Invalid(p, *deadline, "must be less than or equal to previous value"))
		}
	} else if had != nil {
		errs = append(errs, field.Invalid(at.Child("activeDeadlineSeconds"), deadline, "must not update from a positive integer to nil value"))
	}
	errs = append(errs, addedTolerations(p.Spec.Tolerations, old.Spec.Tolerations, at.Child("tolerations"))...)
	gated := len(old.Spec.SchedulingGates) > 0
	for _, g := range p.Spec.SchedulingGates {
		if !slices.Contains(old.Spec.SchedulingGates, g) {
			errs = append(errs, field.Forbidden(at.Child("schedulingGates").Child(g.Name), "only deletion is allowed, but found new scheduling gate '"+g.Name+"'"))
		}
	}
	if gated && p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(at.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	if same := unchanged(p, old, gated); !equality.Semantic.DeepEqual(same.Spec, old.Spec) {
		errs = append(errs, field.Forbidden(at, mayChange+diff.Diff(hub{&old.Spec}, hub{&same.Spec})))
	}
	return errs
}

// unchanged is the pod with all that an update may change as it was.
func unchanged(p, old *corev1.Pod, gated bool) *corev1.Pod {
	p = p.DeepCopy()
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range p.Spec.InitContainers {
		p.Spec.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	p.Spec.ActiveDeadlineSeconds, p.Spec.Tolerations = old.Spec.ActiveDeadlineSeconds, old.Spec.Tolerations
	if was, is := old.Spec.TerminationGracePeriodSeconds, p.Spec.TerminationGracePeriodSeconds; was != nil && *was < 0 && is != nil && *is == 1 {
		p.Spec.TerminationGracePeriodSeconds = was
	}
	p.Spec.SchedulingGates = old.Spec.SchedulingGates
	if gated {
		more := true
		for k, v := range old.Spec.NodeSelector {
			is, ok := p.Spec.NodeSelector[k]
			more = more && ok && is == v
		}
		if more {
			p.Spec.NodeSelector = old.Spec.NodeSelector
		}
		narrow(p, old)
	}
	return p
}

// narrow takes over the old node affinity where the new one only asks for more.
func narrow(p, old *corev1.Pod) {
	required := func(s *corev1.Pod) []corev1.NodeSelectorTerm {
		if a := s.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		}
		return nil
	}
	was, is := required(old), required(p)
	if was != nil && len(was) != len(is) {
		return
	}
	for i, t := range was {
		for k, e := range t.MatchExpressions {
			if k >= len(is[i].MatchExpressions) || !equality.Semantic.DeepEqual(e, is[i].MatchExpressions[k]) {
				return
			}
		}
		for k, e := range t.MatchFields {
			if k >= len(is[i].MatchFields) || !equality.Semantic.DeepEqual(e, is[i].MatchFields[k]) {
				return
			}
		}
	}
	switch {
	case p.Spec.Affinity == nil:
	case old.Spec.Affinity == nil && p.Spec.Affinity.PodAffinity == nil && p.Spec.Affinity.PodAntiAffinity == nil:
		p.Spec.Affinity = nil
	case old.Spec.Affinity != nil:
		p.Spec.Affinity.NodeAffinity = old.Spec.Affinity.NodeAffinity
	}
}

// addedTolerations lets tolerations come, and their seconds change.
func addedTolerations(list, old []corev1.Toleration, at *field.Path) field.ErrorList {
	for _, o := range old {
		o.TolerationSeconds = nil
		if !slices.ContainsFunc(list, func(t corev1.Toleration) bool {
			t.TolerationSeconds = nil
			return t == o
		}) {
			return field.ErrorList{field.Forbidden(at, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return tolerations(list, at)
}

// PodStatusUpdate answers what is wrong with a pod's status in the place of old's.
func PodStatusUpdate(p, old *corev1.Pod) field.ErrorList {
	errs := common(&p.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, metadata)...)
	at := field.NewPath("status")
	if p.Spec.NodeName != old.Spec.NodeName {
		errs = append(errs, field.Forbidden(at.Child("nodeName"), "may not be changed directly"))
	}
	if n := p.Status.NominatedNodeName; n != "" {
		errs = append(errs, invalid(at.Child("nominatedNodeName"), n, validation.NameIsDNSSubdomain(n, false))...)
	}
	types := sets.New[string]()
	for i, c := range p.Status.Conditions {
		q := at.Child("conditions").Index(i)
		if types.Has(string(c.Type)) {
			errs = append(errs, field.Duplicate(q.Child("type"), c.Type))
		}
		types.Insert(string(c.Type))
	}
	ips := sets.New[string]()
	for i, ip := range p.Status.PodIPs {
		q := at.Child("podIPs").Index(i)
		errs = append(errs, utilvalidation.IsValidIP(q, ip.IP)...)
		if ips.Has(ip.IP) {
			errs = append(errs, field.Duplicate(q, ip))
		}
		ips.Insert(ip.IP)
	}
	stays := func(now, was []corev1.ContainerStatus, list []corev1.Container, at *field.Path) {
		for _, w := range was {
			i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == w.Name })
			if w.State.Terminated == nil || i >= 0 && restarts(&list[i], p.Spec.RestartPolicy, w.State.Terminated.ExitCode) {
				continue
			}
			for _, n := range now {
				if n.Name == w.Name && n.State.Terminated == nil {
					errs = append(errs, field.Forbidden(at.Key(n.Name).Child("state"), "may not be transitioned to non-terminated state"))
				}
			}
		}
	}
	if p.Spec.RestartPolicy != corev1.RestartPolicyAlways && !restartsAll(&p.Spec) {
		stays(p.Status.ContainerStatuses, old.Status.ContainerStatuses, p.Spec.Containers, at.Child("containerStatuses"))
		stays(p.Status.InitContainerStatuses, old.Status.InitContainerStatuses, p.Spec.InitContainers, at.Child("initContainerStatuses"))
	}
	return errs
}

// PodEphemeralContainersUpdate answers what is wrong with a pod that was given ephemeral containers.
func PodEphemeralContainersUpdate(p, old *corev1.Pod) field.ErrorList {
	errs := common(&p.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, metadata)...)
	errs = append(errs, pod(p)...)
	at := field.NewPath("spec", "ephemeralContainers")
	for _, was := range old.Spec.EphemeralContainers {
		i := slices.IndexFunc(p.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == was.Name })
		if i < 0 {
			errs = append(errs, field.Forbidden(at, "existing ephemeral containers \""+was.Name+"\" may not be removed\n"))
		} else if now := p.Spec.EphemeralContainers[i]; !equality.Semantic.DeepEqual(now, was) {
			errs = append(errs, field.Forbidden(at, "existing ephemeral containers \""+was.Name+"\" may not be changed\n"+diff.Diff(hub{&was}, hub{&now})))
		}
	}
	return errs
}
