package resourcequota

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Snapshot is what a decision is made on.
type Snapshot struct {
	Quota    *corev1.ResourceQuota
	Pods     []*corev1.Pod
	Services []*corev1.Service
	Claims   []*corev1.PersistentVolumeClaim
	// Counts are the numbers of other objects in the namespace, by "resource" or "resource.group".
	Counts map[string]int64
	Now    time.Time
}

// Plan is what is to be written.
type Plan struct {
	Status *corev1.ResourceQuotaStatus // nil if it stays
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	if p.Status == nil {
		return ""
	}
	names := make([]string, 0, len(p.Status.Hard))
	for n := range p.Status.Hard {
		names = append(names, string(n))
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		hard, used := p.Status.Hard[corev1.ResourceName(n)], p.Status.Used[corev1.ResourceName(n)]
		fmt.Fprintf(&b, "%s %s of %s\n", n, used.String(), hard.String())
	}
	return b.String()
}

// frees tells whether the plan gives back something that the quota says is used.
func (p Plan) frees(q *corev1.ResourceQuota) bool {
	return len(p.less(q)) > 0
}

// less names what the plan gives back something of.
func (p Plan) less(q *corev1.ResourceQuota) (names []corev1.ResourceName) {
	if p.Status == nil {
		return nil
	}
	for name, was := range q.Status.Used {
		if now, ok := p.Status.Used[name]; ok && now.Cmp(was) < 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// freed answers the watched resources whose objects the plan gives something back for.
func (p Plan) freed(q *corev1.ResourceQuota) (resources []string) {
	for _, name := range p.less(q) {
		r := counted(name)
		switch {
		case r != "" && !watched[r]: // they were asked for a moment ago
			continue
		case r != "":
		case name == corev1.ResourceServicesNodePorts || name == corev1.ResourceServicesLoadBalancers:
			r = "services"
		case name == corev1.ResourceRequestsStorage || strings.Contains(string(name), classInfix):
			r = "persistentvolumeclaims"
		default:
			r = "pods"
		}
		if !slices.Contains(resources, r) {
			resources = append(resources, r)
		}
	}
	return resources
}

// watched are the resources that are counted from caches.
var watched = map[string]bool{"pods": true, "services": true, "persistentvolumeclaims": true}

// legacy are the counts that have a name of their own.
var legacy = map[corev1.ResourceName]string{
	corev1.ResourceConfigMaps: "configmaps", corev1.ResourceSecrets: "secrets", corev1.ResourceQuotas: "resourcequotas",
	corev1.ResourceReplicationControllers: "replicationcontrollers", corev1.ResourceServices: "services", corev1.ResourcePersistentVolumeClaims: "persistentvolumeclaims",
}

const (
	countPrefix  = "count/"
	classInfix   = ".storageclass.storage.k8s.io/"
	requestsWord = "requests."
	limitsWord   = "limits."
)

// counted answers the resource whose objects a name counts, "" if it counts none of them.
func counted(name corev1.ResourceName) string {
	if r, ok := strings.CutPrefix(string(name), countPrefix); ok {
		return r
	}
	return legacy[name]
}

// decide adds up what a quota limits.
func decide(s Snapshot) Plan {
	next := corev1.ResourceQuotaStatus{Hard: s.Quota.Spec.Hard.DeepCopy(), Used: corev1.ResourceList{}}
	for name := range s.Quota.Spec.Hard {
		used := s.use(name)
		if used == nil {
			continue // nobody knows how to measure it
		}
		next.Used[name] = *used
	}
	if equality.Semantic.DeepEqual(s.Quota.Status, next) {
		return Plan{}
	}
	return Plan{Status: &next}
}

func (s Snapshot) use(name corev1.ResourceName) *resource.Quantity {
	number := func(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.DecimalSI) }
	switch name {
	case corev1.ResourcePods, "count/pods":
		n := int64(0)
		for _, p := range s.Pods {
			// Finished pods are objects that count, but no pods that run.
			if (name == "count/pods" || live(p, s.Now)) && s.scoped(p) {
				n++
			}
		}
		return number(n)
	case corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		n := int64(0)
		for _, svc := range s.Services {
			n += ports(svc, name)
		}
		return number(n)
	case corev1.ResourceServices, "count/services":
		return number(int64(len(s.Services)))
	case corev1.ResourceRequestsStorage:
		return s.storage(func(*corev1.PersistentVolumeClaim) bool { return true })
	case corev1.ResourcePersistentVolumeClaims, "count/persistentvolumeclaims":
		return number(int64(len(s.Claims)))
	}
	if class, what, ok := strings.Cut(string(name), classInfix); ok {
		of := func(c *corev1.PersistentVolumeClaim) bool {
			return c.Spec.StorageClassName != nil && *c.Spec.StorageClassName == class
		}
		if what == string(corev1.ResourceRequestsStorage) {
			return s.storage(of)
		}
		n := int64(0)
		for _, c := range s.Claims {
			if of(c) {
				n++
			}
		}
		return number(n)
	}
	if r := counted(name); r != "" {
		n, known := s.Counts[r]
		if !known {
			return nil
		}
		return number(n)
	}
	return s.compute(name)
}

// ports counts a service's node ports, or whether it is a load balancer.
func ports(svc *corev1.Service, name corev1.ResourceName) int64 {
	balancer := svc.Spec.Type == corev1.ServiceTypeLoadBalancer
	switch {
	case name == corev1.ResourceServicesLoadBalancers && balancer:
		return 1
	case name == corev1.ResourceServicesLoadBalancers:
		return 0
	case svc.Spec.Type == corev1.ServiceTypeNodePort:
		return int64(len(svc.Spec.Ports))
	case balancer && (svc.Spec.AllocateLoadBalancerNodePorts == nil || *svc.Spec.AllocateLoadBalancerNodePorts):
		return int64(len(svc.Spec.Ports))
	case balancer:
		n := int64(0)
		for _, p := range svc.Spec.Ports {
			if p.NodePort != 0 {
				n++
			}
		}
		return n
	}
	return 0
}

func (s Snapshot) storage(of func(*corev1.PersistentVolumeClaim) bool) *resource.Quantity {
	total := resource.NewQuantity(0, resource.BinarySI)
	for _, c := range s.Claims {
		if of(c) {
			want := c.Spec.Resources.Requests[corev1.ResourceStorage]
			if have, ok := c.Status.AllocatedResources[corev1.ResourceStorage]; ok && have.Cmp(want) > 0 {
				want = have
			}
			total.Add(want)
		}
	}
	return total
}

// compute adds up what live pods request or may use.
func (s Snapshot) compute(name corev1.ResourceName) *resource.Quantity {
	plain, limits := string(name), false
	switch {
	case strings.HasPrefix(plain, requestsWord):
		plain = strings.TrimPrefix(plain, requestsWord)
	case strings.HasPrefix(plain, limitsWord):
		plain, limits = strings.TrimPrefix(plain, limitsWord), true
	case name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage && !strings.HasPrefix(plain, corev1.ResourceHugePagesPrefix):
		return nil
	}
	total := resource.NewQuantity(0, resource.DecimalSI)
	for _, p := range s.Pods {
		if live(p, s.Now) && s.scoped(p) {
			total.Add(need(p, corev1.ResourceName(plain), limits))
		}
	}
	return total
}
