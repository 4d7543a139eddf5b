// Package bootstrap makes the objects that every cluster starts with: system namespaces, default roles and bindings,
// priority classes, flow control, the service range and the service "kubernetes".
//
// The flow: Run goes over the list until everything stands, then keeps what must stay true: the service with the endpoints
// of this server, and each minute the namespaces and flow control, which come back where they were deleted. What an
// administrator changed stays, but for roles, which get back the rules they lack unless they say otherwise, and flow control. Several servers may do the same at once: every step is create-if-missing or a guarded change.
package bootstrap

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/scheme"
)

// objects are the default objects as data: recorded from a conformant cluster.
//
//go:embed data/objects.json.gz
var objects []byte

// Config says what this server is to its cluster.
type Config struct {
	Env          kind.Env
	ServiceCIDRs []netip.Prefix
	// Advertise is where this server is reached, Port its port.
	Advertise string
	Port      int
	// Peers are the servers of the cluster; nil leaves the endpoints of the service to somebody else.
	Peers Peers
	// ClientCA and the front proxy's settings are published for aggregated servers; "" and nil are left out.
	ClientCAFile, ProxyCAFile                            string
	ProxyNames, UserHeaders, GroupHeaders, ExtraPrefixes []string
	UIDHeaders                                           []string
}

// Peers is where servers of one cluster know of each other: one that has not joined for a while is not listed any more.
type Peers interface {
	Join(ctx context.Context, ip string) error
	Leave(ctx context.Context, ip string) error
	List(ctx context.Context) (ips []string, err error)
}

// defaultsEvery is how often namespaces and flow control are looked after.
const defaultsEvery = time.Minute

// Bootstrap makes the default objects.
type Bootstrap struct {
	c    Config
	done atomic.Bool

	leaving sync.Mutex // held while the endpoints are written
	left    bool
}

// New takes the configuration. An address that only this host knows is no endpoint of anything: the endpoints are then left
// to other servers.
func New(c Config) *Bootstrap {
	if ip, err := netip.ParseAddr(c.Advertise); err == nil && ip.IsLoopback() && c.Peers != nil {
		slog.Warn("the address this server advertises is a loopback one: it is not made an endpoint of the kubernetes service; give --advertise-address", "address", c.Advertise)
		c.Peers = nil
	}
	return &Bootstrap{c: c}
}

// Done tells whether everything has been made once.
func (b *Bootstrap) Done() bool { return b.done.Load() }

// Run makes everything, tries again what failed, and keeps what must stay true until ctx ends.
func (b *Bootstrap) Run(ctx context.Context) error {
	defaults, err := Objects()
	if err != nil {
		return err
	}
	wait := 100 * time.Millisecond
	for {
		if err := b.once(ctx, defaults); err == nil {
			break
		} else if ctx.Err() == nil {
			slog.Warn("the default objects are not complete yet, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, 5*time.Second)
	}
	b.done.Store(true)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { b.keepDefaults(ctx, defaults) })
	return b.keepService(ctx)
}

func (b *Bootstrap) once(ctx context.Context, defaults []kind.Object) error {
	for _, obj := range defaults {
		if err := b.ensure(ctx, obj.DeepCopyObject().(kind.Object)); err != nil {
			return fmt.Errorf("%T %s: %w", obj, obj.GetName(), err)
		}
	}
	for _, step := range []func(context.Context) error{b.authentication, b.tokenTracking, b.serviceCIDR, b.service} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// keepDefaults brings back the namespaces that were deleted, and the default schemas and levels that were deleted or changed, until ctx ends.
func (b *Bootstrap) keepDefaults(ctx context.Context, defaults []kind.Object) {
	t := time.NewTicker(defaultsEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := b.lasting(ctx, defaults); err != nil && ctx.Err() == nil {
			slog.Warn("the default namespaces, flow schemas and priority levels could not be looked after", "err", err)
		}
	}
}

// lasting makes the default namespaces, schemas and levels what they should be.
func (b *Bootstrap) lasting(ctx context.Context, defaults []kind.Object) error {
	for _, o := range defaults {
		switch o.(type) {
		case *corev1.Namespace, *flowcontrolv1.FlowSchema, *flowcontrolv1.PriorityLevelConfiguration:
			if err := b.ensure(ctx, o.DeepCopyObject().(kind.Object)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Objects answers the default objects, namespaces first, each of the type its version has.
func Objects() ([]kind.Object, error) {
	z, err := gzip.NewReader(bytes.NewReader(objects))
	if err != nil {
		return nil, fmt.Errorf("opening the default objects: %w", err)
	}
	var raw []json.RawMessage
	if err := json.NewDecoder(z).Decode(&raw); err != nil {
		return nil, fmt.Errorf("reading the default objects: %w", err)
	}
	out := make([]kind.Object, 0, len(raw))
	for _, r := range raw {
		var t struct{ APIVersion, Kind string }
		if err := json.Unmarshal(r, &t); err != nil {
			return nil, err
		}
		obj, err := scheme.Scheme.New(schema.FromAPIVersionAndKind(t.APIVersion, t.Kind))
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(r, obj); err != nil {
			return nil, fmt.Errorf("reading a default %s: %w", t.Kind, err)
		}
		out = append(out, obj.(kind.Object))
	}
	slices.SortStableFunc(out, func(a, b kind.Object) int { return rank(a) - rank(b) })
	return out, nil
}

func rank(o kind.Object) int {
	if _, ok := o.(*corev1.Namespace); ok {
		return 0
	}
	return 1
}

// resource answers where an object of a known type is served.
func resource(obj runtime.Object) (schema.GroupResource, error) {
	gvks, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		return schema.GroupResource{}, err
	}
	gvr, _ := meta.UnsafeGuessKindToResource(gvks[0])
	return gvr.GroupResource(), nil
}

// ensure creates an object, or completes the one that is there.
func (b *Bootstrap) ensure(ctx context.Context, want kind.Object) error {
	gr, err := resource(want)
	if err != nil {
		return err
	}
	have, err := b.c.Env.Get(ctx, gr, want.GetNamespace(), want.GetName())
	if apierrors.IsNotFound(err) {
		_, err = b.c.Env.Create(ctx, gr, want)
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
	if err != nil || have.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] == "false" || !completes(have.DeepCopyObject().(kind.Object), want) {
		return err
	}
	_, err = b.c.Env.Mutate(ctx, gr, want.GetNamespace(), want.GetName(), func(obj kind.Object) error {
		completes(obj, want)
		return nil
	})
	return err
}

// completes gives a role or binding what it lacks of want, and tells whether that was anything.
func completes(have, want kind.Object) bool {
	switch w := want.(type) {
	case *flowcontrolv1.FlowSchema:
		return keepSchema(have.(*flowcontrolv1.FlowSchema), w)
	case *flowcontrolv1.PriorityLevelConfiguration:
		return keepLevel(have.(*flowcontrolv1.PriorityLevelConfiguration), w)
	case *rbacv1.ClusterRole:
		h := have.(*rbacv1.ClusterRole)
		if w.AggregationRule != nil {
			return false // its rules are its controller's
		}
		return addMissing(&h.Rules, w.Rules)
	case *rbacv1.Role:
		return addMissing(&have.(*rbacv1.Role).Rules, w.Rules)
	case *rbacv1.ClusterRoleBinding:
		return addMissing(&have.(*rbacv1.ClusterRoleBinding).Subjects, w.Subjects)
	case *rbacv1.RoleBinding:
		return addMissing(&have.(*rbacv1.RoleBinding).Subjects, w.Subjects)
	}
	return false
}

func addMissing[T any](have *[]T, want []T) (added bool) {
	for _, w := range want {
		if !slices.ContainsFunc(*have, func(h T) bool { return reflect.DeepEqual(h, w) }) {
			*have = append(*have, w)
			added = true
		}
	}
	return added
}
