package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

var (
	services  = schema.GroupResource{Resource: "services"}
	endpoints = schema.GroupResource{Resource: "endpoints"}
	slicesGR  = schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}
	cidrs     = schema.GroupResource{Group: networkingv1.GroupName, Resource: "servicecidrs"}
	configs   = schema.GroupResource{Resource: "configmaps"}
)

// kubernetes is the name under which the cluster finds its own API.
const kubernetes = "kubernetes"

// authentication publishes how this server knows clients, for servers that stand behind it.
func (b *Bootstrap) authentication(ctx context.Context) error {
	data := map[string]string{}
	for key, file := range map[string]string{"client-ca-file": b.c.ClientCAFile, "requestheader-client-ca-file": b.c.ProxyCAFile} {
		if file == "" {
			continue
		}
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("publishing %s: %w", key, err)
		}
		data[key] = string(pem)
	}
	if b.c.ProxyCAFile != "" {
		for key, list := range map[string][]string{
			"requestheader-allowed-names": b.c.ProxyNames, "requestheader-username-headers": b.c.UserHeaders,
			"requestheader-group-headers": b.c.GroupHeaders, "requestheader-extra-headers-prefix": b.c.ExtraPrefixes,
			"requestheader-uid-headers": b.c.UIDHeaders,
		} {
			if key == "requestheader-uid-headers" && len(list) == 0 {
				continue // clients of before there were any do not expect it
			}
			text, err := json.Marshal(append([]string{}, list...))
			if err != nil {
				return err
			}
			data[key] = string(text)
		}
	}
	want := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "extension-apiserver-authentication", Namespace: metav1.NamespaceSystem}, Data: data}
	return b.hold(ctx, configs, want, func(obj kind.Object) bool {
		c := obj.(*corev1.ConfigMap)
		if reflect.DeepEqual(c.Data, data) {
			return false
		}
		c.Data = data
		return true
	})
}

// tokenTracking says since when uses of tokens in secrets are noted on these: what has no note may have been used before.
func (b *Bootstrap) tokenTracking(ctx context.Context) error {
	const key = "since"
	today := time.Now().UTC().Format(time.DateOnly)
	want := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-apiserver-legacy-service-account-token-tracking", Namespace: metav1.NamespaceSystem}, Data: map[string]string{key: today}}
	return b.hold(ctx, configs, want, func(obj kind.Object) bool {
		c := obj.(*corev1.ConfigMap)
		if _, err := time.Parse(time.DateOnly, c.Data[key]); err == nil {
			return false
		}
		if c.Data == nil {
			c.Data = map[string]string{}
		}
		c.Data[key] = today
		return true
	})
}

// hold creates an object, or changes the one that is there where change finds a difference.
func (b *Bootstrap) hold(ctx context.Context, gr schema.GroupResource, want kind.Object, change func(kind.Object) bool) error {
	have, err := b.c.Env.Get(ctx, gr, want.GetNamespace(), want.GetName())
	if apierrors.IsNotFound(err) {
		_, err = b.c.Env.Create(ctx, gr, want)
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
	if err != nil || !change(have) {
		return err
	}
	_, err = b.c.Env.Mutate(ctx, gr, want.GetNamespace(), want.GetName(), func(obj kind.Object) error {
		change(obj)
		return nil
	})
	return err
}

func (b *Bootstrap) serviceCIDR(ctx context.Context) error {
	texts := make([]string, len(b.c.ServiceCIDRs))
	for i, p := range b.c.ServiceCIDRs {
		texts[i] = p.String()
	}
	want := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: kubernetes}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: texts}}
	if err := b.hold(ctx, cidrs, want, func(kind.Object) bool { return false }); err != nil {
		return err
	}
	_, err := b.c.Env.Mutate(ctx, cidrs, "", kubernetes, func(obj kind.Object) error {
		c := obj.(*networkingv1.ServiceCIDR)
		if len(c.Status.Conditions) > 0 {
			return nil
		}
		c.Status.Conditions = []metav1.Condition{{
			Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, Message: "Kubernetes default Service CIDR is ready", LastTransitionTime: metav1.Now(),
		}}
		return nil
	})
	return err
}

// service makes the service by which pods find the API: the first address of the range.
func (b *Bootstrap) service(ctx context.Context) error {
	first := b.c.ServiceCIDRs[0].Masked().Addr().Next().String()
	return b.hold(ctx, services, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: kubernetes, Namespace: metav1.NamespaceDefault, Labels: map[string]string{"provider": "kubernetes", "component": "apiserver"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: first, SessionAffinity: corev1.ServiceAffinityNone, Type: corev1.ServiceTypeClusterIP,
			Ports: []corev1.ServicePort{{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt(b.c.Port)}},
		},
	}, func(kind.Object) bool { return false })
}

// serviceEvery is how often the service and its endpoints are looked after.
const serviceEvery = 10 * time.Second

// keepService brings the service back where somebody deleted it, as with all that is in its namespace, and keeps its endpoints.
func (b *Bootstrap) keepService(ctx context.Context) error {
	// The service was made just now, which the cache need not know yet.
	for err := b.endpoints(ctx); ; err = errors.Join(b.service(ctx), b.endpoints(ctx)) {
		if err != nil && ctx.Err() == nil {
			slog.Warn("the kubernetes service or its endpoints could not be written", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(serviceEvery):
		}
	}
}

// Leave takes this server out of the service, so that the others get its clients.
func (b *Bootstrap) Leave(ctx context.Context) error {
	if b.c.Peers == nil {
		return nil
	}
	b.leaving.Lock()
	defer b.leaving.Unlock()
	b.left = true
	if err := b.c.Peers.Leave(ctx, b.c.Advertise); err != nil {
		return err
	}
	return b.writeEndpoints(ctx)
}

// endpoints says that this server is there, and points the service at all that are. Without peers they are somebody else's.
func (b *Bootstrap) endpoints(ctx context.Context) error {
	if b.c.Peers == nil {
		return nil
	}
	b.leaving.Lock()
	defer b.leaving.Unlock()
	if b.left {
		return nil
	}
	if err := b.c.Peers.Join(ctx, b.c.Advertise); err != nil {
		return err
	}
	return b.writeEndpoints(ctx)
}

// writeEndpoints points the service at the servers that are there, in both forms. When none is, the last one stays: a
// service without endpoints would help nobody.
func (b *Bootstrap) writeEndpoints(ctx context.Context) error {
	ips, err := b.c.Peers.List(ctx)
	if err != nil || len(ips) == 0 {
		return err
	}
	slices.Sort(ips)
	port := int32(b.c.Port)
	addresses, ends := make([]corev1.EndpointAddress, len(ips)), make([]discoveryv1.Endpoint, len(ips))
	for n, ip := range ips {
		addresses[n].IP = ip
		ends[n] = discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}
	}
	subsets := []corev1.EndpointSubset{{Addresses: addresses, Ports: []corev1.EndpointPort{{Name: "https", Port: port, Protocol: corev1.ProtocolTCP}}}}
	meta := metav1.ObjectMeta{Name: kubernetes, Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}}
	err = b.hold(ctx, endpoints, &corev1.Endpoints{ObjectMeta: meta, Subsets: subsets}, func(obj kind.Object) bool {
		e := obj.(*corev1.Endpoints)
		if reflect.DeepEqual(e.Subsets, subsets) {
			return false
		}
		e.Subsets = subsets
		return true
	})
	if err != nil {
		return err
	}
	family := discoveryv1.AddressTypeIPv4
	if a, err := netip.ParseAddr(b.c.Advertise); err == nil && a.Is6() {
		family = discoveryv1.AddressTypeIPv6
	}
	meta.Labels = map[string]string{discoveryv1.LabelServiceName: kubernetes}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: meta, AddressType: family,
		Endpoints: ends,
		Ports:     []discoveryv1.EndpointPort{{Name: new("https"), Port: &port, Protocol: new(corev1.ProtocolTCP)}},
	}
	return b.hold(ctx, slicesGR, slice, func(obj kind.Object) bool {
		s := obj.(*discoveryv1.EndpointSlice)
		if reflect.DeepEqual(s.Endpoints, slice.Endpoints) && reflect.DeepEqual(s.Ports, slice.Ports) {
			return false
		}
		s.Endpoints, s.Ports = slice.Endpoints, slice.Ports
		return true
	})
}
