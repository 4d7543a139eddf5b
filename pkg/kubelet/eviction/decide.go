package eviction

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Signal names what can run out.
type Signal string

// The signals, by their published names.
const (
	MemoryAvailable  Signal = "memory.available"
	NodeFsAvailable  Signal = "nodefs.available"
	NodeFsInodes     Signal = "nodefs.inodesFree"
	ImageFsAvailable Signal = "imagefs.available"
	ImageFsInodes    Signal = "imagefs.inodesFree"
	PIDAvailable     Signal = "pid.available"
)

// conditionOf is what the node is said to suffer from.
var conditionOf = map[Signal]v1.NodeConditionType{MemoryAvailable: v1.NodeMemoryPressure, NodeFsAvailable: v1.NodeDiskPressure, NodeFsInodes: v1.NodeDiskPressure,
	ImageFsAvailable: v1.NodeDiskPressure, ImageFsInodes: v1.NodeDiskPressure, PIDAvailable: v1.NodePIDPressure}

// resourceOf is the word messages use.
var resourceOf = map[Signal]string{MemoryAvailable: "memory", NodeFsAvailable: "ephemeral-storage", ImageFsAvailable: "ephemeral-storage",
	NodeFsInodes: "inodes", ImageFsInodes: "inodes", PIDAvailable: "pids"}

func disk(s Signal) bool { return conditionOf[s] == v1.NodeDiskPressure }

// Threshold is a limit below which a signal's resource may not fall: an amount, or a share of the capacity.
type Threshold struct {
	Signal Signal
	Amount resource.Quantity
	// Share is of 1; 0 when Amount counts.
	Share float64
	Hard  bool
	// Grace is how long a soft threshold may be met before it counts.
	Grace time.Duration
	// Reclaim is how much more than the threshold must be free again, bytes or numbers.
	Reclaim int64
}

// of is the threshold as a number, of a capacity.
func (t Threshold) of(capacity int64) int64 {
	if t.Share > 0 {
		return int64(t.Share * float64(capacity))
	}
	return t.Amount.Value()
}

// Parse reads the maps of a KubeletConfiguration, in the order in which signals are answered: memory first.
func Parse(hard, soft, grace, reclaim map[string]string) ([]Threshold, error) {
	var out []Threshold
	for _, list := range []struct {
		from map[string]string
		hard bool
	}{{hard, true}, {soft, false}} {
		for name, text := range list.from {
			s := Signal(name)
			if _, ok := conditionOf[s]; !ok {
				if name == "allocatableMemory.available" || strings.HasPrefix(name, "containerfs.") {
					continue // what holds for the node, or its images, holds for these too
				}
				return nil, fmt.Errorf("unsupported eviction signal %q", name)
			}
			t := Threshold{Signal: s, Hard: list.hard}
			if pct, ok := strings.CutSuffix(text, "%"); ok {
				f, err := strconv.ParseFloat(pct, 64)
				if err != nil || f < 0 || f > 100 {
					return nil, fmt.Errorf("eviction threshold %s: %q is no percentage", name, text)
				}
				if t.Share = f / 100; f == 0 || f == 100 {
					continue // published: both turn the signal off
				}
			} else {
				q, err := resource.ParseQuantity(text)
				if err != nil || q.Sign() < 0 {
					return nil, fmt.Errorf("eviction threshold %s: %q is no quantity", name, text)
				}
				t.Amount = q
			}
			if !list.hard {
				d, err := time.ParseDuration(grace[name])
				if err != nil {
					return nil, fmt.Errorf("soft eviction threshold %s needs a grace period in evictionSoftGracePeriod: %w", name, err)
				}
				t.Grace = d
			}
			if r, ok := reclaim[name]; ok {
				if q, err := resource.ParseQuantity(r); err == nil {
					t.Reclaim = q.Value()
				}
			}
			out = append(out, t)
		}
	}
	order := []Signal{MemoryAvailable, NodeFsAvailable, NodeFsInodes, ImageFsAvailable, ImageFsInodes, PIDAvailable}
	at := map[Signal]int{}
	for i, s := range order {
		at[s] = i
	}
	sort.SliceStable(out, func(i, j int) bool {
		if out[i].Signal != out[j].Signal {
			return at[out[i].Signal] < at[out[j].Signal]
		}
		return out[i].Hard && !out[j].Hard
	})
	return out, nil
}

// Observation is what is left of what there is.
type Observation struct{ Available, Capacity int64 }

// Snapshot is what one judgement is made from. Met holds since when each threshold, by index, is met; Last when each
// condition had a cause.
type Snapshot struct {
	Now        time.Time
	Thresholds []Threshold
	Transition time.Duration
	Seen       map[Signal]Observation
	Met        map[int]time.Time
	Last       map[v1.NodeConditionType]time.Time
}

// Act is a threshold which calls for action now.
type Act struct {
	Threshold Threshold
	Limit     int64
	Seen      Observation
}

// Verdict is what the node is like, and what to act on, most urgent first.
type Verdict struct {
	Conditions map[v1.NodeConditionType]bool
	Met        map[int]time.Time
	Last       map[v1.NodeConditionType]time.Time
	Act        []Act
}

// decide compares what is left with the thresholds. One that was met stays so until its reclaim is free as well.
func decide(s Snapshot) Verdict {
	v := Verdict{Conditions: map[v1.NodeConditionType]bool{}, Met: map[int]time.Time{}, Last: map[v1.NodeConditionType]time.Time{}}
	for c, at := range s.Last {
		v.Last[c] = at
	}
	for i, t := range s.Thresholds {
		o, ok := s.Seen[t.Signal]
		if !ok || o.Capacity <= 0 {
			continue
		}
		limit := t.of(o.Capacity)
		since, before := s.Met[i]
		if before {
			limit += t.Reclaim
		} else {
			since = s.Now
		}
		if o.Available >= limit {
			continue
		}
		v.Met[i] = since
		if s.Now.Sub(since) < t.Grace {
			continue
		}
		v.Last[conditionOf[t.Signal]] = s.Now
		v.Act = append(v.Act, Act{t, limit, o})
	}
	for c, at := range v.Last {
		if s.Now.Sub(at) < s.Transition || at.Equal(s.Now) {
			v.Conditions[c] = true
		} else {
			delete(v.Last, c)
		}
	}
	return v
}

// Used is what a pod uses, in all and of each container.
type Used struct {
	Pod                             *v1.Pod
	Memory, Disk, Inodes, Processes int64
	Containers                      map[string]ContainerUsed
}

// ContainerUsed is what one container uses.
type ContainerUsed struct{ Memory, Disk int64 }

func ended(p *v1.Pod) bool {
	return p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed || p.DeletionTimestamp != nil
}

// critical pods hold the node or the cluster up, and are not evicted.
func critical(p *v1.Pod) bool {
	source := p.Annotations["kubernetes.io/config.source"]
	return source != "" && source != "api" || p.Spec.Priority != nil && *p.Spec.Priority >= 2000000000
}

// candidates joins pods which may go with what they use.
func candidates(pods []*v1.Pod, sum *stats.Summary) []Used {
	by := map[string]*stats.PodStats{}
	for i := range sum.Pods {
		by[sum.Pods[i].PodRef.UID] = &sum.Pods[i]
	}
	n := func(p *uint64) int64 {
		if p == nil {
			return 0
		}
		return int64(*p)
	}
	var out []Used
	for _, p := range pods {
		if ended(p) || critical(p) {
			continue
		}
		u := Used{Pod: p, Containers: map[string]ContainerUsed{}}
		if s := by[string(p.UID)]; s != nil {
			if s.Memory != nil {
				u.Memory = n(s.Memory.WorkingSetBytes)
			}
			if s.EphemeralStorage != nil {
				u.Disk, u.Inodes = n(s.EphemeralStorage.UsedBytes), n(s.EphemeralStorage.InodesUsed)
			}
			if s.ProcessStats != nil {
				u.Processes = n(s.ProcessStats.ProcessCount)
			}
			for _, c := range s.Containers {
				one := ContainerUsed{}
				if c.Memory != nil {
					one.Memory = n(c.Memory.WorkingSetBytes)
				}
				for _, f := range []*stats.FsStats{c.Rootfs, c.Logs} {
					if f != nil {
						one.Disk += n(f.UsedBytes)
					}
				}
				u.Containers[c.Name] = one
			}
		}
		out = append(out, u)
	}
	return out
}

// requested is what a pod asked for of a resource.
func requested(p *v1.Pod, name v1.ResourceName) int64 {
	if r := p.Spec.Resources; r != nil {
		if q, ok := r.Requests[name]; ok {
			return q.Value()
		}
	}
	sum := int64(0)
	for _, c := range p.Spec.Containers {
		q := c.Resources.Requests[name]
		sum += q.Value()
	}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			q := c.Resources.Requests[name]
			sum += q.Value()
		}
	}
	return sum
}

func priority(p *v1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// rank puts first who goes first: those over their requests, then the least important, then the furthest over.
func rank(s Signal, pods []Used) []Used {
	use := func(u Used) (used, asked int64) {
		switch s {
		case MemoryAvailable:
			return u.Memory, requested(u.Pod, v1.ResourceMemory)
		case NodeFsAvailable, ImageFsAvailable:
			return u.Disk, requested(u.Pod, v1.ResourceEphemeralStorage)
		case NodeFsInodes, ImageFsInodes:
			return u.Inodes, 0
		}
		return u.Processes, 0
	}
	out := append([]Used(nil), pods...)
	sort.SliceStable(out, func(i, j int) bool {
		a, b := out[i], out[j]
		ua, ra := use(a)
		ub, rb := use(b)
		if over, other := ua > ra, ub > rb; over != other && s != PIDAvailable && s != NodeFsInodes && s != ImageFsInodes {
			return over
		}
		if pa, pb := priority(a.Pod), priority(b.Pod); pa != pb {
			return pa < pb
		}
		return ua-ra > ub-rb
	})
	return out
}

func amount(n int64, s Signal) string {
	format := resource.BinarySI
	if resourceOf[s] == "pids" || resourceOf[s] == "inodes" {
		format = resource.DecimalSI
	}
	return resource.NewQuantity(n, format).String()
}

// message tells an evicted pod why it went, and which of its containers weighed most.
func message(a Act, u Used) string {
	s := a.Threshold.Signal
	text := fmt.Sprintf("The node was low on resource: %s. Threshold quantity: %s, available: %s. ", resourceOf[s], amount(a.Limit, s), amount(a.Seen.Available, s))
	name := v1.ResourceMemory
	switch resourceOf[s] {
	case "memory":
	case "ephemeral-storage":
		name = v1.ResourceEphemeralStorage
	default:
		return text
	}
	for _, c := range append(append([]v1.Container(nil), u.Pod.Spec.InitContainers...), u.Pod.Spec.Containers...) {
		one, ok := u.Containers[c.Name]
		used := one.Memory
		if name == v1.ResourceEphemeralStorage {
			used = one.Disk
		}
		if request := c.Resources.Requests[name]; ok && used > request.Value() {
			text += fmt.Sprintf("Container %s was using %s, request is %s, has larger consumption of %s. ", c.Name, kilo(used), request.String(), name)
		}
	}
	return text
}

// kilo is a size in Ki, as users compare them.
func kilo(n int64) string { return strconv.FormatInt(n>>10, 10) + "Ki" }

func emptyDirText(volume, limit string) string {
	return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", volume, limit)
}

// storageLimited tells whether a pod has any limit on what it keeps on disk.
func storageLimited(p *v1.Pod) bool {
	for _, c := range p.Spec.Containers {
		if _, ok := c.Resources.Limits[v1.ResourceEphemeralStorage]; ok {
			return true
		}
	}
	return false
}

// overLimit is why a pod's disk use ends it, empty when it keeps its limits. The pod's own limit is its containers' sum,
// when all have one.
func overLimit(u Used) string {
	total, all := resource.Quantity{}, true
	for _, c := range u.Pod.Spec.Containers {
		limit, ok := c.Resources.Limits[v1.ResourceEphemeralStorage]
		if !ok {
			all = false
			continue
		}
		total.Add(limit)
		if u.Containers[c.Name].Disk > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit.String())
		}
	}
	if all && u.Disk > total.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", total.String())
	}
	return ""
}
