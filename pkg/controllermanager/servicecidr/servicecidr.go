// Package servicecidr says which ranges of service addresses are ready, and keeps those that services have addresses of.
//
// A range brings its key, and the keys of those that overlap with it; an address brings those that hold it and are being
// deleted. Reconcile looks at all ranges and addresses anew; it keeps no state.
package servicecidr

import (
	"context"
	"net/netip"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	ranges, addresses := d.Informers.Networking().V1().ServiceCIDRs(), d.Informers.Networking().V1().IPAddresses()
	// leaving answers the ranges that are being deleted and concern f.
	leaving := func(f func(netip.Prefix) bool) (keys []runtime.Key) {
		all, err := ranges.Lister().List(labels.Everything())
		if err != nil {
			return nil // a lister of everything does not fail
		}
		for _, r := range all {
			for _, p := range prefixes(r) {
				if r.DeletionTimestamp != nil && f(p) {
					keys = append(keys, runtime.KeyOf(r))
				}
			}
		}
		return keys
	}
	c := &controller{d, func() ([]*networkingv1.ServiceCIDR, error) { return ranges.Lister().List(labels.Everything()) }, func() (out []netip.Addr, err error) {
		list, err := addresses.Lister().List(labels.Everything())
		for _, a := range list {
			if ip, err := netip.ParseAddr(a.Name); err == nil {
				out = append(out, ip)
			}
		}
		return out, err
	}}
	return &runtime.Controller{
		Name: "service-cidr-controller", Account: "service-cidrs-controller", Queue: "ipaddresses", For: "ranges of service addresses stay while services need them",
		Watches: []runtime.Watch{
			{What: "servicecidrs", Informer: ranges.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				keys := []runtime.Key{runtime.KeyOf(obj)}
				for _, mine := range prefixes(obj.(*networkingv1.ServiceCIDR)) {
					keys = append(keys, leaving(mine.Overlaps)...)
				}
				return keys
			}},
			{What: "ipaddresses", Informer: addresses.Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				ip, err := netip.ParseAddr(obj.GetName())
				if err != nil {
					return nil
				}
				return leaving(func(p netip.Prefix) bool { return p.Contains(ip) })
			}},
		},
		Writes: []string{"servicecidrs", "servicecidrs/status"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			r, err := ranges.Lister().Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			return c.reconcile(ctx, r)
		},
	}
}

type controller struct {
	runtime.Deps
	ranges    func() ([]*networkingv1.ServiceCIDR, error)
	addresses func() ([]netip.Addr, error)
}

func (c *controller) reconcile(ctx context.Context, r *networkingv1.ServiceCIDR) (time.Duration, error) {
	s := Snapshot{Range: r, Now: time.Now()}
	var err error
	if s.Others, err = c.ranges(); err != nil {
		return 0, err
	}
	if r.DeletionTimestamp != nil {
		if s.Addresses, err = c.addresses(); err != nil {
			return 0, err
		}
	}
	p := decide(s)
	api := c.Client.NetworkingV1().ServiceCIDRs()
	next := r.DeepCopy()
	if p.Finalizers != nil {
		next.Finalizers = p.Finalizers
		if next, err = api.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			return 0, ended(err)
		}
	}
	if p.Ready != nil {
		meta.SetStatusCondition(&next.Status.Conditions, *p.Ready)
		if _, err = api.UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return 0, ended(err)
		}
	}
	return p.Again, nil
}

// ended is nil for what is gone.
func ended(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
