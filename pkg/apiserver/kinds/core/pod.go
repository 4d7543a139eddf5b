package core

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// PodStreams serve what goes through to a pod's kubelet.
type PodStreams struct {
	Log, Exec, Attach, PortForward, Proxy kind.ConnectFunc
}

// Pod is the row of pods.
func Pod(s PodStreams) *kind.Def {
	stream := []string{"GET", "POST"}
	return kind.Row(kind.Def{
		Kind: "Pod", Resource: "pods", ShortNames: []string{"po"}, Categories: []string{"all"},
		Namespaced: true, Generation: true, ReturnDeleted: true,
		Prepare: kind.On(func(_ *kind.Op, p, old *corev1.Pod) {
			if old == nil {
				p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: qosClass(p)}
				if len(p.Spec.SchedulingGates) > 0 {
					p.Status.Conditions = []corev1.PodCondition{{
						Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
						Message: "Scheduling is blocked due to non-empty scheduling gates",
					}}
				}
				return
			}
			p.Spec.EphemeralContainers = old.Spec.EphemeralContainers
		}),
		Check: kind.Valid(validate.Pod, validate.PodUpdate),
		Grace: func(_ *kind.Op, obj kind.Object, asked *int64) int64 { return podGrace(obj.(*corev1.Pod), asked) },
		FieldNames: []string{
			"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
			"status.phase", "status.podIP", "status.nominatedNodeName", "spec.host",
		},
		Fields: kind.Of(func(p *corev1.Pod) map[string]string {
			return map[string]string{
				"spec.nodeName": p.Spec.NodeName, "spec.restartPolicy": string(p.Spec.RestartPolicy), "spec.schedulerName": p.Spec.SchedulerName,
				"spec.serviceAccountName": p.Spec.ServiceAccountName, "spec.hostNetwork": strconv.FormatBool(p.Spec.HostNetwork),
				"status.phase": string(p.Status.Phase), "status.podIP": podIP(p), "status.nominatedNodeName": p.Status.NominatedNodeName,
				"spec.host": p.Spec.NodeName, // its name before v1
			}
		}),
		Indexed: "spec.nodeName",
		Columns: kind.Columns("Name Ready Status Restarts Age IP* Node* Nominated_Node* Readiness_Gates*"),
		Row:     kind.Of(podRow),
		Subs: []kind.Sub{
			{Name: "attach", Connect: &kind.Connect{Methods: stream, OptionsKind: "PodAttachOptions", Serve: s.Attach}},
			{Name: "binding", Action: &kind.Action{GV: corev1.SchemeGroupVersion, Kind: "Binding", New: func() runtime.Object { return &corev1.Binding{} }, Do: bind}},
			{Name: "ephemeralcontainers", Aspect: &kind.Rules{Prepare: kind.On(prepareEphemeral), Check: kind.Valid(nil, validate.PodEphemeralContainersUpdate)}},
			{Name: "eviction", Action: &kind.Action{GV: policyv1.SchemeGroupVersion, Kind: "Eviction", New: func() runtime.Object { return &policyv1.Eviction{} }, Do: evict}},
			{Name: "exec", Connect: &kind.Connect{Methods: stream, OptionsKind: "PodExecOptions", Serve: s.Exec}},
			{Name: "log", Connect: &kind.Connect{Methods: []string{"GET"}, OptionsKind: "PodLogOptions", Serve: s.Log}},
			{Name: "portforward", Connect: &kind.Connect{Methods: stream, OptionsKind: "PodPortForwardOptions", Serve: s.PortForward}},
			{Name: "proxy", Connect: &kind.Connect{Methods: proxyMethods, OptionsKind: "PodProxyOptions", Serve: s.Proxy, Path: true}},
			{Name: "resize", Aspect: &kind.Rules{Prepare: kind.On(prepareResize), Check: kind.Valid(nil, validate.PodResize)}},
			{Name: "status", Aspect: &kind.Rules{Prepare: kind.On(prepareStatus), Check: kind.Valid(nil, validate.PodStatusUpdate)}},
		},
	}, kind.In[corev1.Pod, corev1.PodList](corev1.SchemeGroupVersion, defaults.Pod))
}

// podGrace is how many seconds a pod has to end: what was asked, else what its spec says.
func podGrace(p *corev1.Pod, asked *int64) int64 {
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return 0 // no container runs: what a kubelet still takes down needs no pod
	}
	if asked == nil {
		asked = p.Spec.TerminationGracePeriodSeconds
	}
	switch {
	case asked == nil:
		return 0
	case *asked < 0:
		return 1
	}
	return *asked
}

// prepareStatus lets a status update change the status, and of the metadata what is not the server's.
func prepareStatus(_ *kind.Op, p, old *corev1.Pod) {
	p.Spec = old.Spec
	p.OwnerReferences = old.OwnerReferences
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = old.DeletionTimestamp, old.DeletionGracePeriodSeconds
	if old.Status.QOSClass != "" {
		p.Status.QOSClass = old.Status.QOSClass
	}
}

func prepareEphemeral(_ *kind.Op, p, old *corev1.Pod) {
	added := p.Spec.EphemeralContainers
	m := p.ObjectMeta
	*p = *old.DeepCopy()
	p.ManagedFields, p.ResourceVersion = m.ManagedFields, m.ResourceVersion
	p.Spec.EphemeralContainers = added
}

// prepareResize lets a resize change the resources of the pod and of its containers; their order and names are checked later.
func prepareResize(_ *kind.Op, p, old *corev1.Pod) {
	asked := p.DeepCopy()
	*p = *old.DeepCopy()
	p.ManagedFields, p.ResourceVersion = asked.ManagedFields, asked.ResourceVersion
	take := func(have, want []corev1.Container) []corev1.Container {
		if !slices.EqualFunc(have, want, func(a, b corev1.Container) bool { return a.Name == b.Name }) {
			return want // which is refused
		}
		for i, w := range want {
			have[i].Resources, have[i].ResizePolicy = w.Resources, w.ResizePolicy
		}
		return have
	}
	p.Spec.Containers = take(p.Spec.Containers, asked.Spec.Containers)
	p.Spec.InitContainers = take(p.Spec.InitContainers, asked.Spec.InitContainers)
	if !equality.Semantic.DeepEqual(asked.Spec.Resources, old.Spec.Resources) {
		p.Spec.Resources = asked.Spec.Resources
	}
}

func podIP(p *corev1.Pod) string {
	if len(p.Status.PodIPs) > 0 {
		return p.Status.PodIPs[0].IP
	}
	return p.Status.PodIP
}

// qosClass is the class that a pod's requests and limits put it in.
func qosClass(p *corev1.Pod) corev1.PodQOSClass {
	guaranteed, any := true, false
	weigh := func(r corev1.ResourceRequirements) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			req, lim := r.Requests[name], r.Limits[name]
			any = any || !req.IsZero() || !lim.IsZero()
			if lim.IsZero() || !req.IsZero() && req.Cmp(lim) != 0 {
				guaranteed = false
			}
		}
	}
	if p.Spec.Resources != nil && (len(p.Spec.Resources.Requests) > 0 || len(p.Spec.Resources.Limits) > 0) {
		weigh(*p.Spec.Resources)
	} else {
		for _, c := range p.Spec.Containers {
			weigh(c.Resources)
		}
		for _, c := range p.Spec.InitContainers {
			weigh(c.Resources)
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
