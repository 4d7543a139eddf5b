package plugins

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	podresource "k8s.io/component-helpers/resource"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// meter counts what objects of one kind use, in a quota's terms.
type meter struct {
	usage func(obj runtime.Object) corev1.ResourceList
	// covers tells whether a quota's resource is one that this kind can use.
	covers func(name corev1.ResourceName) bool
}

// The names of resources by storage class: "gold.storageclass.storage.k8s.io/requests.storage".
const (
	ofClass        = ".storageclass.storage.k8s.io/"
	requestsPrefix = corev1.DefaultResourceRequestsPrefix
	limitsPrefix   = "limits."
)

var (
	services = schema.GroupResource{Resource: "services"}
	claims   = schema.GroupResource{Resource: "persistentvolumeclaims"}

	// plainCounts may also be limited by their name alone.
	plainCounts = []schema.GroupResource{
		pods, services, claims, quotas, {Resource: "configmaps"}, {Resource: "replicationcontrollers"}, {Resource: "secrets"},
	}
	// computed are the resources that pods use both as requests and as limits.
	computed = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
)

// meterOf answers how a request is counted, nil if it uses nothing that a quota could limit.
func meterOf(r *admission.Request) *meter {
	gr := r.Def.GroupResource()
	grows := r.Verb == admission.Create && r.Sub == ""
	changes := r.Verb == admission.Update && r.Sub == ""
	switch {
	case r.Namespace == "" || !r.Def.Namespaced || r.Def.Virtual != nil || r.Def.Kind == "Event":
		return nil
	case gr == pods && (grows || r.Verb == admission.Update && r.Sub == "resize"):
		return &meter{usage: podUsage, covers: coversPod}
	case gr == services && (grows || changes):
		return &meter{usage: serviceUsage, covers: func(n corev1.ResourceName) bool {
			return counts(n, services) || n == corev1.ResourceServicesNodePorts || n == corev1.ResourceServicesLoadBalancers
		}}
	case gr == claims && (grows || changes):
		return &meter{usage: claimUsage, covers: func(n corev1.ResourceName) bool {
			return counts(n, claims) || n == corev1.ResourceRequestsStorage ||
				strings.HasSuffix(string(n), ofClass+"requests.storage") || strings.HasSuffix(string(n), ofClass+"persistentvolumeclaims")
		}}
	case gr != pods && grows:
		return &meter{
			usage:  func(runtime.Object) corev1.ResourceList { return counted(gr) },
			covers: func(n corev1.ResourceName) bool { return counts(n, gr) },
		}
	}
	return nil
}

// counted is one object of a kind.
func counted(gr schema.GroupResource) corev1.ResourceList {
	l := corev1.ResourceList{corev1.ResourceName("count/" + gr.String()): *one()}
	if slices.Contains(plainCounts, gr) {
		l[corev1.ResourceName(gr.Resource)] = *one()
	}
	return l
}

func counts(n corev1.ResourceName, gr schema.GroupResource) bool {
	_, ok := counted(gr)[n]
	return ok
}

func one() *resource.Quantity { return resource.NewQuantity(1, resource.DecimalSI) }

func podUsage(obj runtime.Object) corev1.ResourceList {
	p := obj.(*corev1.Pod)
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return corev1.ResourceList{"count/pods": *one()} // it is there, but runs no more
	}
	l := counted(pods)
	o := podresource.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
	maps.Copy(l, computeUsage(podresource.PodRequests(p, o), podresource.PodLimits(p, o)))
	return l
}

// computeUsage names requests and limits as quotas do.
func computeUsage(requests, limits corev1.ResourceList) corev1.ResourceList {
	l := corev1.ResourceList{}
	for name, n := range requests {
		bare := slices.Contains(computed, name) || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
		if bare {
			l[name] = n
		}
		if bare || extended(name) {
			l[requestsPrefix+name] = n
		}
	}
	for name, n := range limits {
		if slices.Contains(computed, name) {
			l[limitsPrefix+name] = n
		}
	}
	return l
}

// extended tells whether a resource is of somebody's own making.
func extended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), "kubernetes.io/")
}

func coversPod(n corev1.ResourceName) bool {
	if counts(n, pods) || slices.Contains(computed, n) {
		return true
	}
	if limit, ok := strings.CutPrefix(string(n), limitsPrefix); ok {
		return slices.Contains(computed, corev1.ResourceName(limit))
	}
	rest, requested := strings.CutPrefix(string(n), requestsPrefix)
	name := corev1.ResourceName(rest)
	return strings.HasPrefix(rest, corev1.ResourceHugePagesPrefix) || requested && (slices.Contains(computed, name) || extended(name))
}

func serviceUsage(obj runtime.Object) corev1.ResourceList {
	s := obj.(*corev1.Service)
	l := counted(services)
	ports, balancers := 0, 0
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		ports = len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		balancers = 1
		for _, p := range s.Spec.Ports {
			if a := s.Spec.AllocateLoadBalancerNodePorts; a == nil || *a || p.NodePort != 0 {
				ports++
			}
		}
	}
	l[corev1.ResourceServicesNodePorts] = *resource.NewQuantity(int64(ports), resource.DecimalSI)
	l[corev1.ResourceServicesLoadBalancers] = *resource.NewQuantity(int64(balancers), resource.DecimalSI)
	return l
}

func claimUsage(obj runtime.Object) corev1.ResourceList {
	c := obj.(*corev1.PersistentVolumeClaim)
	l := counted(claims)
	class := c.Annotations[corev1.BetaStorageClassAnnotation]
	if class == "" && c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	if class != "" {
		l[corev1.ResourceName(class+ofClass+"persistentvolumeclaims")] = *one()
	}
	size, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		return l
	}
	// A claim made smaller again still holds what it was given.
	if given, ok := c.Status.AllocatedResources[corev1.ResourceStorage]; ok && given.Cmp(size) > 0 {
		size = given
	}
	l[corev1.ResourceRequestsStorage] = size
	if class != "" {
		l[corev1.ResourceName(class+ofClass+"requests.storage")] = size
	}
	return l
}

// missing tells which limited resources the containers of a pod do not name: cpu and memory that are limited must be.
func (m *meter) missing(q *corev1.ResourceQuota, obj runtime.Object) error {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	whole := corev1.ResourceList{}
	if p.Spec.Resources != nil {
		whole = computeUsage(p.Spec.Resources.Requests, p.Spec.Resources.Limits)
	}
	var parts []string
	for _, name := range sortedNames(q.Status.Hard) {
		_, forAll := whole[name]
		bare := strings.TrimPrefix(strings.TrimPrefix(string(name), requestsPrefix), limitsPrefix)
		if forAll || bare != "cpu" && bare != "memory" {
			continue
		}
		var without []string
		for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
			if _, ok := computeUsage(c.Resources.Requests, c.Resources.Limits)[name]; !ok {
				without = append(without, c.Name)
			}
		}
		if len(without) > 0 {
			slices.Sort(without)
			parts = append(parts, fmt.Sprintf("%s for: %s", name, strings.Join(without, ",")))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return fmt.Errorf("must specify %s", strings.Join(parts, "; "))
}
