package rules

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// demand is an extended resource that one container of a pod requests.
type demand struct {
	container string
	resource  v1.ResourceName
	request   string // what a device request for it is called
	n         int64
	passing   bool // it is an init container that ends, so that later ones may have its devices
}

// Extended is the claim made for a pod whose extended resources come from devices: there is no such object yet.
type Extended struct {
	Requests []resourcev1.DeviceRequest
	Mappings []v1.ContainerExtendedResourceRequest
}

// extendedSuffix makes the key of a pod that of its claim for extended resources, whose name nobody knows yet.
const extendedSuffix = "/extended-resources"

// readExtended notes the extended resources of a pod, container by container.
func (c *Class) readExtended(p *v1.Pod) {
	index := 0
	for _, containers := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			x := &containers[i]
			if hasExtended(x.Resources.Requests) {
				names := make([]v1.ResourceName, 0, len(x.Resources.Requests))
				for name := range x.Resources.Requests {
					names = append(names, name)
				}
				slices.Sort(names)
				for at, name := range names {
					q := x.Resources.Requests[name]
					if n := q.Value(); n > 0 && isExtended(name) {
						c.extended = append(c.extended, demand{container: x.Name, resource: name, n: n, request: fmt.Sprintf("container-%d-request-%d", index, at),
							passing: index < len(p.Spec.InitContainers) && (x.RestartPolicy == nil || *x.RestartPolicy != v1.ContainerRestartPolicyAlways)})
					}
				}
			}
			index++
		}
	}
}

func hasExtended(list v1.ResourceList) bool {
	for name := range list {
		if isExtended(name) {
			return true
		}
	}
	return false
}

func isExtended(name v1.ResourceName) bool {
	s := string(name)
	return strings.HasPrefix(s, resourcev1.ResourceDeviceClassPrefix) ||
		strings.Contains(s, "/") && !strings.Contains(s, v1.ResourceDefaultNamespacePrefix) && !strings.HasPrefix(s, v1.DefaultResourceRequestsPrefix)
}

// classFor answers the device class whose devices serve an extended resource, empty for none: the one that names it, the newest of
// several, or the one that it is named by.
func (d *Devices) classFor(name v1.ResourceName) string {
	if d.byResource == nil {
		d.byResource = map[v1.ResourceName]string{}
		for _, c := range d.classes {
			if c.Spec.ExtendedResourceName == nil {
				continue
			}
			resource := v1.ResourceName(*c.Spec.ExtendedResourceName)
			if other := d.classes[d.byResource[resource]]; other == nil || newer(c, other) {
				d.byResource[resource] = c.Name
			}
		}
	}
	if class, ok := strings.CutPrefix(string(name), resourcev1.ResourceDeviceClassPrefix); ok && d.classes[class] != nil {
		return class
	}
	return d.byResource[name]
}

func newer(c, other *resourcev1.DeviceClass) bool {
	if !c.CreationTimestamp.Equal(&other.CreationTimestamp) {
		return other.CreationTimestamp.Before(&c.CreationTimestamp)
	}
	return c.Name < other.Name
}

// backs says whether devices can serve any of the extended resources of a class of pods.
func (d *Devices) backs(c *Class) bool {
	return slices.ContainsFunc(c.extended, func(x demand) bool { return d.classFor(x.resource) != "" })
}

// extended answers what a pod must claim on a row because the node itself does not offer it; nil for nothing.
func (v *View) extended(r int32) *Extended {
	t, out := v.table, &Extended{}
	passed := map[v1.ResourceName][]*resourcev1.ExactDeviceRequest{} // of init containers that end, nobody's since
	names := map[*resourcev1.ExactDeviceRequest]string{}
	for _, x := range v.class.extended {
		class := t.Devices.classFor(x.resource)
		if class == "" || t.rows[r].amount(t.kind(x.resource)).capacity > 0 {
			continue
		}
		n, pool := x.n, passed[x.resource]
		taken := 0
		for ; n > 0 && taken < len(pool); taken++ {
			n -= pool[taken].Count
			out.Mappings = append(out.Mappings, v1.ContainerExtendedResourceRequest{ContainerName: x.container, ResourceName: string(x.resource), RequestName: names[pool[taken]]})
		}
		if !x.passing {
			passed[x.resource] = pool[taken:]
		}
		if n <= 0 {
			continue
		}
		request := &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: n}
		names[request] = x.request
		out.Requests = append(out.Requests, resourcev1.DeviceRequest{Name: x.request, Exactly: request})
		out.Mappings = append(out.Mappings, v1.ContainerExtendedResourceRequest{ContainerName: x.container, ResourceName: string(x.resource), RequestName: x.request})
		if x.passing {
			passed[x.resource] = append(passed[x.resource], request)
		}
	}
	if len(out.Mappings) == 0 {
		return nil
	}
	return out
}

// claim is the claim as the allocator is asked for it.
func (x *Extended) claim(namespace string) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "extended-resources", UID: "extended-resources"},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: x.Requests}}}
}

// made notes that a claim for extended resources is there: what its pod's plan keeps need not be kept twice.
func (d *Devices) made(c *resourcev1.ResourceClaim) {
	if c == nil || c.Status.Allocation == nil || c.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" {
		return
	}
	if owner := metav1.GetControllerOfNoCopy(c); owner != nil {
		delete(d.assigned, c.Namespace+"/"+owner.Name+extendedSuffix)
	}
}
