package rules

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
)

// Devices is what DynamicResources knows of claims, classes and the devices that drivers publish. The objects are not to be changed.
type Devices struct {
	table    *Table
	version  uint64
	claims   map[string]*resourcev1.ResourceClaim
	slices   map[string]*resourcev1.ResourceSlice
	classes  map[string]*resourcev1.DeviceClass
	rules    map[string]*resourcev1.DeviceTaintRule
	assigned map[string]*resourcev1.AllocationResult // by decisions, not seen written yet
	programs *cel.Cache

	byResource     map[v1.ResourceName]string // the class that serves an extended resource; nil when classes changed since
	classesVersion uint64
}

func newDevices(t *Table) *Devices {
	return &Devices{
		table: t, claims: map[string]*resourcev1.ResourceClaim{}, slices: map[string]*resourcev1.ResourceSlice{},
		classes: map[string]*resourcev1.DeviceClass{}, rules: map[string]*resourcev1.DeviceTaintRule{}, assigned: map[string]*resourcev1.AllocationResult{},
	}
}

// ClaimAllocation is a device claim to be written before its pod is bound: reserved for the pod, and allocated if it is not yet.
type ClaimAllocation struct {
	Key        string                       // namespace/name
	Allocation *resourcev1.AllocationResult // nil: allocated already
	Extended   *Extended                    // the claim is to be made for the pod's extended resources; the key is not its name
}

// SetClaim keeps a claim by namespace/name; nil forgets it.
func (d *Devices) SetClaim(key string, c *resourcev1.ResourceClaim) {
	if c == nil || c.Status.Allocation != nil {
		delete(d.assigned, key)
	}
	d.made(c)
	set(d, d.claims, key, c)
}

// SetSlice keeps a slice of devices; nil forgets it.
func (d *Devices) SetSlice(name string, s *resourcev1.ResourceSlice) { set(d, d.slices, name, s) }

// SetClass keeps a device class; nil forgets it.
func (d *Devices) SetClass(name string, c *resourcev1.DeviceClass) {
	set(d, d.classes, name, c)
	d.byResource = nil
	d.classesVersion++
}

// SetTaintRule keeps a rule that taints devices besides their drivers; nil forgets it.
func (d *Devices) SetTaintRule(name string, r *resourcev1.DeviceTaintRule) { set(d, d.rules, name, r) }

// Claim answers a device claim, nil when it is unknown.
func (d *Devices) Claim(key string) *resourcev1.ResourceClaim { return d.claims[key] }

func set[T any](d *Devices, m map[string]*T, key string, o *T) {
	if o == nil {
		delete(m, key)
	} else {
		m[key] = o
	}
	d.version++
}

// Reserve keeps the devices of a plan from other claims until the allocation is seen written or Unreserve gives them back.
func (d *Devices) Reserve(claims []ClaimAllocation) {
	for _, c := range claims {
		if c.Allocation != nil {
			d.assigned[c.Key] = c.Allocation
			d.version++
		}
	}
}

// Unreserve gives the devices of a plan back.
func (d *Devices) Unreserve(claims []ClaimAllocation) {
	for _, c := range claims {
		if c.Allocation != nil {
			delete(d.assigned, c.Key)
			d.version++
		}
	}
}

// List answers all classes, as the allocator asks for them.
func (d *Devices) List() ([]*resourcev1.DeviceClass, error) {
	return slices.Collect(maps.Values(d.classes)), nil
}

// Get answers a class.
func (d *Devices) Get(name string) (*resourcev1.DeviceClass, error) {
	if c := d.classes[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("deviceclass.resource.k8s.io %q not found", name)
}

func (d *Devices) allocation(key string) *resourcev1.AllocationResult {
	if a := d.assigned[key]; a != nil {
		return a
	}
	if c := d.claims[key]; c != nil {
		return c.Status.Allocation
	}
	return nil
}

// inUse answers what claims hold already: whole devices, shares of devices, and how much of those is consumed. Administrators look at
// devices without holding them.
func (d *Devices) inUse() structured.AllocatedState {
	out := structured.AllocatedState{AllocatedDevices: sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](), AggregatedCapacity: structured.NewConsumedCapacityCollection()}
	add := func(a *resourcev1.AllocationResult) {
		for i := range a.Devices.Results {
			r := &a.Devices.Results[i]
			id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
			switch {
			case r.AdminAccess != nil && *r.AdminAccess:
			case r.ShareID == nil:
				out.AllocatedDevices.Insert(id)
			default:
				out.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(id, r.ShareID))
				out.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(id, r.ConsumedCapacity))
			}
		}
	}
	for key, c := range d.claims {
		if c.Status.Allocation != nil && d.assigned[key] == nil {
			add(c.Status.Allocation)
		}
	}
	for _, a := range d.assigned {
		add(a)
	}
	return out
}

// readDevices notes the device claims of a pod.
func (c *Class) readDevices(p *v1.Pod) {
	for i := range p.Spec.ResourceClaims {
		use := &p.Spec.ResourceClaims[i]
		name, _, err := resourceclaim.Name(p, use)
		switch {
		case errors.Is(err, resourceclaim.ErrClaimNotFound):
			c.devices = append(c.devices, DeviceClaim{Name: use.Name})
		case err == nil && name != nil:
			c.devices = append(c.devices, DeviceClaim{Name: use.Name, Object: *name})
		}
	}
}

// dynamicResources holds a pod to the nodes on which the devices of its claims are, or can be had.
var dynamicResources = &Plugin{Name: "DynamicResources", Points: []Point{PreEnqueue, PreFilter, Filter, PostFilter, Reserve, PreBind},
	Helps: NodeAdded | NodeChanged | PodGone | DevicesChanged, Prepare: func(v *View) Part {
		d := v.table.Devices
		extends := d.backs(v.class)
		if len(v.class.devices) == 0 && !extends {
			return Part{}
		}
		refuse := func(words string) Part {
			return Part{Refuse: &Verdict{Plugin: "DynamicResources", Reasons: []string{words}, Final: true, Advice: "see to the claim: kubectl describe resourceclaim"}}
		}
		var open []*resourcev1.ResourceClaim
		var plan []ClaimAllocation
		var where []*nodeaffinity.NodeSelector
		for _, use := range v.class.devices {
			key := v.class.Namespace + "/" + use.Object
			claim := d.claims[key]
			switch a := d.allocation(key); {
			case use.Object == "":
				return refuse("waiting for ResourceClaim " + use.Name + " of the pod to be created")
			case claim == nil:
				return refuse(fmt.Sprintf("resourceclaim.resource.k8s.io %q not found", use.Object))
			case claim.DeletionTimestamp != nil:
				return refuse(fmt.Sprintf("resourceclaim must not be in use and not being deleted: %s", use.Object))
			case a == nil:
				open = append(open, claim)
			case !resourceclaim.CanBeReserved(claim):
				return refuse("resourceclaim in use")
			default:
				plan = append(plan, ClaimAllocation{Key: key})
				if a.NodeSelector != nil {
					if s, err := nodeaffinity.NewNodeSelector(a.NodeSelector); err == nil {
						where = append(where, s)
					}
				}
			}
		}
		elsewhere := &Verdict{Plugin: "DynamicResources", Reasons: []string{"resourceclaim not available on the node"}, Final: true,
			Advice: "the claim's devices are on another node; free the claim or go there"}
		var part Part
		if len(where) > 0 {
			part.Check = func(r int32) *Verdict {
				for _, s := range where {
					if !s.Match(v.table.rows[r].node) {
						return elsewhere
					}
				}
				return nil
			}
		}
		if len(open) == 0 && !extends {
			part.Late = func(int32) *Verdict { v.devices = plan; return nil }
			return part
		}
		allocator, err := d.allocator()
		if err != nil {
			return refuse(err.Error())
		}
		with, everywhere := d.nodes()
		none := &Verdict{Plugin: "DynamicResources", Reasons: []string{"cannot allocate all claims"}, Final: true,
			Advice: "free devices of the classes that the pod's claims ask for, or ask for other devices"}
		// Most nodes have no devices; to see that needs no allocator.
		claimed := part.Check
		part.Check = func(r int32) *Verdict {
			if !everywhere && !with[v.table.rows[r].name] && (len(open) > 0 || v.extended(r) != nil) {
				return none
			}
			if claimed != nil {
				return claimed(r)
			}
			return nil
		}
		part.Late = func(r int32) *Verdict {
			claims, extended := open, v.extended(r)
			if extended != nil && len(extended.Requests) > 0 {
				claims = append(slices.Clip(open), extended.claim(v.class.Namespace))
			}
			if len(claims) == 0 {
				v.devices = plan
				return nil
			}
			ctx := context.Background()
			if limit := v.profile.DeviceTimeout; limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, limit)
				defer cancel()
			}
			results, err := allocator.Allocate(ctx, v.table.rows[r].node, claims)
			if errors.Is(err, context.DeadlineExceeded) {
				return tooLong
			}
			if err != nil {
				return &Verdict{Plugin: "DynamicResources", Reasons: []string{err.Error()}, Final: true}
			}
			if results == nil {
				return none
			}
			v.devices = slices.Clone(plan)
			for i := range results {
				c := ClaimAllocation{Key: claims[i].Namespace + "/" + claims[i].Name, Allocation: &results[i]}
				if i >= len(open) {
					c.Extended = extended
				}
				v.devices = append(v.devices, c)
			}
			return nil
		}
		return part
	}}

var tooLong = &Verdict{Plugin: "DynamicResources", Reasons: []string{"timed out trying to allocate devices"}, Final: true,
	Advice: "ask for fewer or simpler devices, or give DynamicResources a longer filterTimeout"}

// Ready says whether the devices of an allocation can be used: each has all the conditions it is to have before a pod is bound. An error
// means that a device says it never will.
func Ready(c *resourcev1.ResourceClaim) (bool, error) {
	if c.Status.Allocation == nil {
		return false, fmt.Errorf("it was deallocated")
	}
	ready := true
	for i := range c.Status.Allocation.Devices.Results {
		r := &c.Status.Allocation.Devices.Results[i]
		if len(r.BindingConditions) == 0 {
			continue
		}
		at := slices.IndexFunc(c.Status.Devices, func(s resourcev1.AllocatedDeviceStatus) bool {
			return s.Driver == r.Driver && s.Pool == r.Pool && s.Device == r.Device && (s.ShareID == nil) == (r.ShareID == nil) &&
				(s.ShareID == nil || *s.ShareID == string(*r.ShareID))
		})
		if at < 0 {
			ready = false
			continue
		}
		said := c.Status.Devices[at].Conditions
		for _, name := range r.BindingFailureConditions {
			if meta.IsStatusConditionTrue(said, name) {
				return false, fmt.Errorf("device %s/%s/%s says %s", r.Driver, r.Pool, r.Device, name)
			}
		}
		for _, name := range r.BindingConditions {
			ready = ready && meta.IsStatusConditionTrue(said, name)
		}
	}
	return ready, nil
}

// nodes answers the nodes that have devices of their own, and whether there are devices that several nodes reach.
func (d *Devices) nodes() (with map[string]bool, everywhere bool) {
	with = map[string]bool{}
	for _, s := range d.slices {
		if s.Spec.NodeName == nil || *s.Spec.NodeName == "" {
			everywhere = true
		} else {
			with[*s.Spec.NodeName] = true
		}
	}
	return with, everywhere
}

// deviceFeatures are what the release has on by default.
var deviceFeatures = structured.Features{
	AdminAccess: true, PrioritizedList: true, PartitionableDevices: true, DeviceTaints: true, ConsumableCapacity: true, DeviceBindingAndStatus: true,
}

func (d *Devices) allocator() (structured.Allocator, error) {
	if d.programs == nil {
		d.programs = cel.NewCache(256, cel.Features{EnableConsumableCapacity: true})
	}
	all := make([]*resourcev1.ResourceSlice, 0, len(d.slices))
	for _, name := range slices.Sorted(maps.Keys(d.slices)) {
		all = append(all, d.tainted(d.slices[name]))
	}
	return structured.NewAllocator(context.Background(), deviceFeatures, d.inUse(), d, all, d.programs)
}

// tainted is a slice as the rules would have it.
func (d *Devices) tainted(s *resourcev1.ResourceSlice) *resourcev1.ResourceSlice {
	own := s
	for _, name := range slices.Sorted(maps.Keys(d.rules)) {
		r := d.rules[name]
		on := r.Spec.DeviceSelector
		if on == nil || on.Driver != nil && *on.Driver != s.Spec.Driver || on.Pool != nil && *on.Pool != s.Spec.Pool.Name {
			continue
		}
		for i := range s.Spec.Devices {
			if on.Device != nil && *on.Device != s.Spec.Devices[i].Name {
				continue
			}
			if own == s {
				own = s.DeepCopy()
			}
			own.Spec.Devices[i].Taints = append(own.Spec.Devices[i].Taints, r.Spec.Taint)
		}
	}
	return own
}

// deallocate looks for a claim of the pod that is allocated elsewhere while nobody uses it: freeing it is better than evicting.
func (v *View) deallocate(plan *Plan) string {
	d := v.table.Devices
	for _, use := range v.class.devices {
		key := v.class.Namespace + "/" + use.Object
		if c := d.claims[key]; c != nil && c.Status.Allocation != nil && len(c.Status.ReservedFor) == 0 && slices.Contains(plan.Rejectors, "DynamicResources") {
			plan.Free = []string{key}
			return "deallocation of ResourceClaim completed"
		}
	}
	return "no new claims to deallocate"
}

// Reservation is how a claim says that a pod uses it.
func Reservation(name string, uid types.UID) resourcev1.ResourceClaimConsumerReference {
	return resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: name, UID: uid}
}
