// Package loadbalancer gives services of type LoadBalancer addresses of a pool, where no cloud does. That packets for them
// reach a node is up to the network around; from there on the proxy knows what to do.
//
// A service brings its key. One worker runs, and it alone knows who holds which address: it reads that from all services
// before it decides on the first, and from then on keeps it itself, so that no cache that is behind gives one away twice.
// Whoever waits for an address is looked at again when one is given back.
package loadbalancer

import (
	"context"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// Config is what is given away, and to whom.
type Config struct {
	Pool    Pool
	NoClass bool // services of no class are served too: there is no cloud that does
}

type controller struct {
	runtime.Deps
	Config
	services corelisters.ServiceLister
	written  runtime.Written

	// Only the worker touches these.
	held    map[netip.Addr]runtime.Key
	waiting map[runtime.Key]bool
	freed   chan runtime.Key // waiting keys that may find an address now
}

// lag is how long to wait for a cache that is behind.
const lag = 50 * time.Millisecond

// New answers the controller.
func New(d runtime.Deps, conf Config) *runtime.Controller {
	services := d.Informers.Core().V1().Services()
	c := &controller{Deps: d, Config: conf, services: services.Lister(), waiting: map[runtime.Key]bool{}, freed: make(chan runtime.Key)}
	return &runtime.Controller{
		Name: "address-pool-controller", Account: "service-controller", For: "addresses of a pool for load balancers, where there is no cloud", Workers: 1,
		Watches: []runtime.Watch{{What: "services", Informer: services.Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
			s := obj.(*corev1.Service)
			was, _ := old.(*corev1.Service)
			wants := func(s *corev1.Service) bool { return s != nil && s.Spec.Type == corev1.ServiceTypeLoadBalancer }
			// One that wanted none any more while nobody looked still says what we wrote of it.
			if !wants(s) && !wants(was) && meta.FindStatusCondition(s.Status.Conditions, Condition) == nil {
				return nil
			}
			return []runtime.Key{runtime.KeyOf(obj)}
		}}},
		Writes: []string{"services/status"}, Reconcile: c.reconcile,
		Start: func(ctx context.Context, enqueue func(runtime.Key)) {
			for {
				select {
				case <-ctx.Done():
					return
				case k := <-c.freed:
					enqueue(k)
				}
			}
		},
	}
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	if c.held == nil {
		if err := c.read(); err != nil {
			return 0, err
		}
	}
	s, err := c.services.Services(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.written.Forget(key)
		c.hold(ctx, key, nil)
		delete(c.waiting, key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if c.written.Behind(s) {
		return lag, nil
	}
	p := decide(Snapshot{Service: s, Pool: c.Pool, NoClass: c.NoClass, Now: time.Now(), Taken: func(a netip.Addr) bool {
		by, ok := c.held[a]
		return ok && by != key
	}})
	delete(c.waiting, key)
	if p.Lacks {
		c.waiting[key] = true
	}
	if p.Status != nil {
		// They are its own before it is told, whatever comes of that.
		for _, a := range p.Holds {
			c.held[a] = key
		}
		next := s.DeepCopy()
		next.Status = *p.Status
		if next, err = c.Client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return 0, err
		}
		c.written.Wrote(next)
	}
	for _, e := range p.Tell {
		c.Event(s, e.Type, e.Reason, e.Message)
	}
	c.hold(ctx, key, p.Holds)
	return 0, nil
}

// read notes who holds what. A service that is not ours holds nothing.
func (c *controller) read() error {
	all, err := c.services.List(labels.Everything())
	if err != nil {
		return err
	}
	c.held = map[netip.Addr]runtime.Key{}
	for _, s := range all {
		if !ours(s, c.NoClass) {
			continue
		}
		for _, i := range s.Status.LoadBalancer.Ingress {
			if a, err := netip.ParseAddr(i.IP); err == nil {
				if _, ok := c.held[a]; !ok {
					c.held[a] = runtime.KeyOf(s)
				}
			}
		}
	}
	return nil
}

// hold makes these the addresses of a service, gives back what it had besides, and lets those who wait try again.
func (c *controller) hold(ctx context.Context, key runtime.Key, list []netip.Addr) {
	keep := map[netip.Addr]bool{}
	for _, a := range list {
		keep[a] = true
		c.held[a] = key
	}
	freed := false
	for a, by := range c.held {
		if by == key && !keep[a] {
			delete(c.held, a)
			freed = true
		}
	}
	if !freed {
		return
	}
	for k := range c.waiting {
		select {
		case c.freed <- k:
		case <-ctx.Done():
			return
		}
	}
}
