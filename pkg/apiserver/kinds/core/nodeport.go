package core

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// nodePorts names the one object that says which node ports are taken.
const nodePorts = "servicenodeports"

var ranges = schema.GroupResource{Resource: "rangeallocations"}

// RangeAllocation is the row of the bitmaps behind allocations. It is stored and never served.
func RangeAllocation() *kind.Def {
	d := kind.Row(kind.Def{Kind: "RangeAllocation", Resource: "rangeallocations", Prefix: "ranges"},
		kind.In[corev1.RangeAllocation, corev1.RangeAllocation](corev1.SchemeGroupVersion, nil))
	d.Versions = nil
	return d
}

// taken is a node port in use: two ports of a service may share a number under different protocols.
type taken map[int32]bool

func portsOf(s *corev1.Service) taken {
	t := taken{}
	if s == nil {
		return t
	}
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			t[p.NodePort] = true
		}
	}
	if s.Spec.HealthCheckNodePort != 0 {
		t[s.Spec.HealthCheckNodePort] = true
	}
	return t
}

var errPortTaken = errors.New("provided port is already allocated")

// takePorts gives the service the node ports it lacks and claims those it names.
func (r Ranges) takePorts(op *kind.Op, res *reservation, s, was *corev1.Service) field.ErrorList {
	have := portsOf(was)
	claim := func(path *field.Path, port int32) *field.Error {
		if have[port] {
			return nil
		}
		if err := r.claimPort(op, res, port); err != nil {
			return field.Invalid(path, port, err.Error())
		}
		have[port] = true
		return nil
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		path := field.NewPath("spec", "ports").Index(i).Child("nodePort")
		if p.NodePort == 0 {
			if !needsNodePorts(s) {
				continue
			}
			if was == nil {
				p.NodePort = sharedPort(s, i)
			}
			if p.NodePort != 0 {
				if err := claim(path, p.NodePort); err != nil {
					return field.ErrorList{err}
				}
				continue
			}
			n, err := r.drawPort(op, res)
			if err != nil {
				return field.ErrorList{field.InternalError(path, fmt.Errorf("failed to allocate a nodePort: %w", err))}
			}
			p.NodePort = n
			have[n] = true
			continue
		}
		if err := claim(path, p.NodePort); err != nil {
			return field.ErrorList{err}
		}
	}
	if !needsHealthPort(s) {
		return nil
	}
	path := field.NewPath("spec", "healthCheckNodePort")
	if s.Spec.HealthCheckNodePort == 0 {
		n, err := r.drawPort(op, res)
		if err != nil {
			return field.ErrorList{field.InternalError(path, fmt.Errorf("failed to allocate a HealthCheck NodePort: %w", err))}
		}
		s.Spec.HealthCheckNodePort = n
		return nil
	}
	if err := claim(path, s.Spec.HealthCheckNodePort); err != nil {
		return field.ErrorList{err}
	}
	return nil
}

// sharedPort is the node port of a new service's other ports of the same number, those before i first; 0 if none has one.
func sharedPort(s *corev1.Service, i int) int32 {
	for _, q := range s.Spec.Ports {
		if q.Port == s.Spec.Ports[i].Port && q.NodePort != 0 {
			return q.NodePort
		}
	}
	return 0
}

// freePorts gives back the ports that the service no longer has, once that is stored.
func (r Ranges) freePorts(op *kind.Op, res *reservation, s, was *corev1.Service) {
	keep := portsOf(s)
	for p := range portsOf(was) {
		if !keep[p] {
			res.freed = append(res.freed, func() { r.releasePort(op.Env, p) })
		}
	}
}

func (r Ranges) claimPort(op *kind.Op, res *reservation, port int32) error {
	if port < r.NodePorts.Low || port > r.NodePorts.High {
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %s", r.NodePorts)
	}
	err := r.bits(op.Ctx, op.Env, op.DryRun, func(b *big.Int) error {
		i := int(port - r.NodePorts.Low)
		if b.Bit(i) == 1 {
			return errPortTaken
		}
		b.SetBit(b, i, 1)
		return nil
	})
	if err == nil && !op.DryRun {
		res.taken = append(res.taken, func() { r.releasePort(op.Env, port) })
	}
	return err
}

// drawPort takes a port at random, preferring the upper part of the range where nobody picks ports by hand.
func (r Ranges) drawPort(op *kind.Op, res *reservation) (int32, error) {
	var port int32
	err := r.bits(op.Ctx, op.Env, op.DryRun, func(b *big.Int) error {
		size := int(r.NodePorts.High-r.NodePorts.Low) + 1
		band := min(max(size/32, 16), 128)
		if band >= size {
			band = 0
		}
		start := band + rand.IntN(size-band)
		for n := range size {
			// Walk the upper part round from a random place, then the lower one.
			i := band + (start-band+n)%(size-band)
			if n >= size-band {
				i = n - (size - band)
			}
			if b.Bit(i) == 0 {
				b.SetBit(b, i, 1)
				port = r.NodePorts.Low + int32(i)
				return nil
			}
		}
		return errors.New("range is full")
	})
	if err == nil && !op.DryRun {
		res.taken = append(res.taken, func() { r.releasePort(op.Env, port) })
	}
	return port, err
}

func (r Ranges) releasePort(env kind.Env, port int32) {
	if port < r.NodePorts.Low || port > r.NodePorts.High {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = r.bits(ctx, env, false, func(b *big.Int) error {
		b.SetBit(b, int(port-r.NodePorts.Low), 0)
		return nil
	})
}

// bits changes the bitmap of taken ports in one atomic write, making it first if there is none.
func (r Ranges) bits(ctx context.Context, env kind.Env, dryRun bool, change func(*big.Int) error) error {
	mutate := func(obj kind.Object) error {
		a := obj.(*corev1.RangeAllocation)
		if a.Range != r.NodePorts.String() {
			moved, err := r.move(a)
			if err != nil {
				return err
			}
			a.Range, a.Data = r.NodePorts.String(), moved
		}
		b := new(big.Int).SetBytes(a.Data)
		if err := change(b); err != nil {
			return err
		}
		a.Data = b.Bytes()
		return nil
	}
	empty := &corev1.RangeAllocation{ObjectMeta: metav1.ObjectMeta{Name: nodePorts}, Range: r.NodePorts.String()}
	if dryRun {
		obj, err := env.Get(ctx, ranges, "", nodePorts)
		if err != nil {
			return mutate(empty)
		}
		return mutate(obj)
	}
	_, err := env.Mutate(ctx, ranges, "", nodePorts, mutate)
	if !apierrors.IsNotFound(err) {
		return err
	}
	if _, err := env.Create(ctx, ranges, empty); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	_, err = env.Mutate(ctx, ranges, "", nodePorts, mutate)
	return err
}

// move carries the ports taken over to a changed range; those outside it are forgotten.
func (r Ranges) move(a *corev1.RangeAllocation) ([]byte, error) {
	var low, high int32
	if _, err := fmt.Sscanf(a.Range, "%d-%d", &low, &high); err != nil {
		return nil, fmt.Errorf("reading the stored node port range %q: %w", a.Range, err)
	}
	was, now := new(big.Int).SetBytes(a.Data), new(big.Int)
	for i := range int(high-low) + 1 {
		p := low + int32(i)
		if was.Bit(i) == 1 && p >= r.NodePorts.Low && p <= r.NodePorts.High {
			now.SetBit(now, int(p-r.NodePorts.Low), 1)
		}
	}
	return now.Bytes(), nil
}
