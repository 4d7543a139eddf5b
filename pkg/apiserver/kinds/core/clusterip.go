package core

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

var ipaddresses = schema.GroupResource{Group: "networking.k8s.io", Resource: "ipaddresses"}

// ipTries is how many addresses are drawn before the range is walked.
const ipTries = 16

// takeIPs gives the service a cluster IP of each of its families that it lacks, and claims those it names.
func (r Ranges) takeIPs(op *kind.Op, res *reservation, s, was *corev1.Service) field.ErrorList {
	path := field.NewPath("spec", "clusterIPs")
	if !hasClusterIP(s) {
		return nil
	}
	if hasClusterIP(was) && slices.Equal(s.Spec.ClusterIPs, was.Spec.ClusterIPs) && len(s.Spec.ClusterIPs) >= len(s.Spec.IPFamilies) {
		return nil
	}
	for i, f := range s.Spec.IPFamilies {
		cidr, ok := r.cidr(f)
		if !ok {
			return field.ErrorList{field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), f, "not configured on this cluster")}
		}
		if i < len(s.Spec.ClusterIPs) && s.Spec.ClusterIPs[i] != "" {
			ip := s.Spec.ClusterIPs[i]
			if hasClusterIP(was) && slices.Contains(was.Spec.ClusterIPs, ip) {
				continue
			}
			if err := r.claim(op, res, s, cidr, ip); err != nil {
				return field.ErrorList{field.Invalid(path, s.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %v: %v", ip, err))}
			}
			continue
		}
		ip, err := r.draw(op, res, s, cidr)
		if err != nil {
			return field.ErrorList{field.Invalid(path, s.Spec.ClusterIPs, fmt.Sprintf("failed to allocate a serviceIP: %v", err))}
		}
		if i < len(s.Spec.ClusterIPs) {
			s.Spec.ClusterIPs[i] = ip
		} else {
			s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, ip)
		}
	}
	if len(s.Spec.ClusterIPs) > 0 {
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	}
	return nil
}

// freeIPs gives back the addresses that the service no longer has, once that is stored.
func (r Ranges) freeIPs(op *kind.Op, res *reservation, s, was *corev1.Service) {
	if !hasClusterIP(was) {
		return
	}
	for _, ip := range was.Spec.ClusterIPs {
		if s == nil || !slices.Contains(s.Spec.ClusterIPs, ip) {
			res.freed = append(res.freed, func() { release(op.Env, ip, was) })
		}
	}
}

// claim takes one address.
func (r Ranges) claim(op *kind.Op, res *reservation, s *corev1.Service, cidr netip.Prefix, ip string) error {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return err
	}
	if !cidr.Contains(a) || a == cidr.Masked().Addr() {
		return fmt.Errorf("the provided IP (%v) is not in the valid range. The range of valid IPs is %v", a, cidr)
	}
	if op.DryRun {
		if _, err := op.Env.Get(op.Ctx, ipaddresses, "", a.String()); err == nil {
			return fmt.Errorf("provided IP is already allocated")
		}
		return nil
	}
	_, err = op.Env.Create(op.Ctx, ipaddresses, &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: a.String(), Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(family(cidr)), networkingv1.LabelManagedBy: "ipallocator.k8s.io",
		}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name}},
	})
	if apierrors.IsAlreadyExists(err) {
		return errTaken
	}
	if err == nil {
		res.taken = append(res.taken, func() { release(op.Env, a.String(), s) })
	}
	return err
}

var errTaken = errors.New("provided IP is already allocated")

// draw takes an address at random from the upper part of the range, where nobody picks addresses by hand; when that is
// crowded, the first free one anywhere.
func (r Ranges) draw(op *kind.Op, res *reservation, s *corev1.Service, cidr netip.Prefix) (string, error) {
	size := usable(cidr)
	band := min(max(size/16, 16), 256)
	if band >= size {
		band = 0
	}
	for range ipTries {
		ip := nth(cidr, 1+band+rand.Int64N(size-band))
		if err := r.claim(op, res, s, cidr, ip); !errors.Is(err, errTaken) {
			return ip, err
		}
	}
	start := rand.Int64N(size)
	for i := range min(size, 1<<16) {
		ip := nth(cidr, 1+(start+i)%size)
		if _, err := op.Env.Get(op.Ctx, ipaddresses, "", ip); err == nil {
			continue
		}
		if err := r.claim(op, res, s, cidr, ip); !errors.Is(err, errTaken) {
			return ip, err
		}
	}
	return "", fmt.Errorf("range is full")
}

// usable is the number of addresses that may be handed out: not the network's own, nor an IPv4 range's broadcast.
func usable(cidr netip.Prefix) int64 {
	bits := cidr.Addr().BitLen() - cidr.Bits()
	if bits > 40 {
		bits = 40
	}
	n := int64(1)<<bits - 1
	if cidr.Addr().Is4() {
		n--
	}
	return max(n, 1)
}

// nth is the range's n-th address.
func nth(cidr netip.Prefix, n int64) string {
	base := new(big.Int).SetBytes(cidr.Masked().Addr().AsSlice())
	base.Add(base, big.NewInt(n))
	b := make([]byte, cidr.Addr().BitLen()/8)
	a, _ := netip.AddrFromSlice(base.FillBytes(b))
	return a.String()
}

// release gives an address back if it is still the service's.
func release(env kind.Env, ip string, s *corev1.Service) {
	// The request may be over by now; the address must not stay taken for that.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	obj, err := env.GetFresh(ctx, ipaddresses, "", ip)
	if err != nil {
		return
	}
	ref := obj.(*networkingv1.IPAddress).Spec.ParentRef
	if ref == nil || ref.Resource != "services" || ref.Namespace != s.Namespace || ref.Name != s.Name {
		return
	}
	uid := obj.GetUID()
	_ = env.Delete(ctx, ipaddresses, "", ip, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
}
