// Package proxy holds a node's kernel to the cluster's Services, and joins its pods to those of other nodes.
//
// Watches mark the proxy dirty; one loop gathers what the caches hold, decides a table (package desired), hands it to the back end
// (package iptables), forgets stale UDP flows, and writes routes and the CNI configuration (package podnet). Only the loop touches the kernel.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/iptables"
	"github.com/sextant-k8s/sextant/pkg/proxy/podnet"
)

const (
	family = "IPv4"
	// notOthers leaves out what another proxy serves, and what has no address.
	notOthers = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"
	// retryAfter is how soon a failed write is tried again.
	retryAfter = 2 * time.Second
)

// backend is what holds the kernel to a table.
type backend interface {
	Sync(ctx context.Context, t desired.Table) (rules int, err error)
	Check(ctx context.Context) bool
	Cleanup(ctx context.Context) error
}

// Proxy is the daemon.
type Proxy struct {
	config  *Config
	core    rest.Interface
	slices  rest.Interface
	rules   *iptables.Backend
	backend backend
	network *podnet.Network // nil where a third party's CNI joins the pods
	metrics *metrics
	wake    chan struct{}
	serve   []func(context.Context) error

	services, endpoints, nodes cache.Store
	filled                     []cache.InformerSynced
	last                       desired.Table // only the loop's

	dirty atomic.Int64 // when the oldest change not written was seen, unix nanoseconds; 0 for none
	wrote atomic.Int64 // when the tables were last written
}

// New reads the configuration, finds the kernel's tools, and binds the ports. Nothing runs yet, and no rule is written.
func New(c *Config) (*Proxy, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	p := &Proxy{config: c, metrics: newMetrics(), wake: make(chan struct{}, 1)}
	var err error
	p.rules, err = iptables.New(iptables.Config{ClusterCIDR: c.ClusterCIDR, MasqueradeAll: c.MasqueradeAll, MasqueradeBit: c.MasqueradeBit, NodePortsOn: c.NodePortsOn})
	if err != nil {
		return nil, err
	}
	p.backend = p.rules
	if c.PodNetwork == "host-gw" {
		p.network = &podnet.Network{Node: c.Hostname, ConfDir: c.CNIConfDir, DataDir: c.CNIDataDir}
	}
	if c.Cleanup {
		return p, nil
	}
	rc, err := c.client()
	if err != nil {
		return nil, err
	}
	core, err := coreclient.NewForConfig(rc)
	if err != nil {
		return nil, err
	}
	disco, err := discoveryclient.NewForConfig(rc)
	if err != nil {
		return nil, err
	}
	p.core, p.slices = core.RESTClient(), disco.RESTClient()
	if c.Healthz != "" {
		l, err := listen("healthz-bind-address", c.Healthz)
		if err != nil {
			return nil, err
		}
		p.serve = append(p.serve, func(ctx context.Context) error { return serve(ctx, l, p.healthRoutes()) })
	}
	if c.Metrics != "" {
		l, err := listen("metrics-bind-address", c.Metrics)
		if err != nil {
			return nil, err
		}
		p.serve = append(p.serve, func(ctx context.Context) error { return serve(ctx, l, p.metricRoutes()) })
	}
	return p, nil
}

// Run keeps the kernel's tables until ctx ends. They stay when it returns: traffic flows on while a proxy is replaced.
func (p *Proxy) Run(ctx context.Context) error {
	if p.config.Cleanup {
		err := p.backend.Cleanup(ctx)
		if p.network != nil {
			err = errors.Join(err, p.network.Cleanup())
		}
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if err := sysctls(); err != nil {
		return err
	}
	informers := p.informers()
	var group sync.WaitGroup
	for _, f := range p.serve {
		group.Go(func() {
			if err := f(ctx); err != nil {
				stop(err)
			}
		})
	}
	for _, c := range informers {
		group.Go(func() { c.RunWithContext(ctx) })
	}
	slog.Info("proxy started", "version", p.config.Version, "release", Release, "node", p.config.Hostname, "mode", p.config.Mode, "podNetwork", p.config.PodNetwork)
	// Half the Services would be half the rules: nothing is written before the caches are whole.
	if cache.WaitForCacheSync(ctx.Done(), p.filled...) {
		p.loop(ctx)
	}
	stop(nil)
	group.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// sysctls lets the node forward, and bridged packets meet the rules where the kernel can.
func sysctls() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("turn on forwarding: %w", err)
	}
	const bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if err := os.WriteFile(bridged, []byte("1"), 0o644); err != nil {
		// Without the module, pods of one node answer each other past the rules: their Services need it to be masqueraded back.
		slog.Warn("bridged packets do not meet the rules", "error", err)
	}
	return nil
}

// informers answers the watches, not yet running.
func (p *Proxy) informers() []cache.Controller {
	var all []cache.Controller
	add := func(client rest.Interface, resource, selector string, kind runtime.Object, seen func(), slim cache.TransformFunc) cache.Store {
		changed := func() {
			if seen != nil {
				seen()
			}
			p.touch()
		}
		store, c := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: cache.NewFilteredListWatchFromClient(client, resource, metav1.NamespaceAll, func(o *metav1.ListOptions) { o.LabelSelector = selector }),
			ObjectType:    kind, Transform: slim,
			Handler: cache.ResourceEventHandlerFuncs{
				AddFunc: func(any) { changed() }, DeleteFunc: func(any) { changed() },
				UpdateFunc: func(old, now any) {
					if a, ok := old.(*v1.Node); ok && sameNode(a, now.(*v1.Node)) {
						return
					}
					changed()
				},
			},
		})
		all = append(all, c)
		p.filled = append(p.filled, c.HasSynced)
		return store
	}
	p.services = add(p.core, "services", notOthers, &v1.Service{}, p.metrics.services.Inc, bare)
	p.endpoints = add(p.slices, "endpointslices", notOthers, &discoveryv1.EndpointSlice{}, p.metrics.ends.Inc, bare)
	p.nodes = add(p.core, "nodes", "", &v1.Node{}, nil, bareNode)
	return all
}

func bare(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
		m.SetAnnotations(nil)
	}
	return o, nil
}

// bareNode keeps of a node what the network and health ask for.
func bareNode(o any) (any, error) {
	n, ok := o.(*v1.Node)
	if !ok {
		return o, nil
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, DeletionTimestamp: n.DeletionTimestamp},
		Spec:       v1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs, Taints: n.Spec.Taints},
		Status:     v1.NodeStatus{Addresses: n.Status.Addresses},
	}, nil
}

// sameNode says that a heartbeat changed nothing here.
func sameNode(a, b *v1.Node) bool {
	if a.Spec.PodCIDR != b.Spec.PodCIDR || len(a.Status.Addresses) != len(b.Status.Addresses) {
		return false
	}
	for i := range a.Status.Addresses {
		if a.Status.Addresses[i] != b.Status.Addresses[i] {
			return false
		}
	}
	return true
}

// touch says that something changed.
func (p *Proxy) touch() {
	now := time.Now()
	p.dirty.CompareAndSwap(0, now.UnixNano())
	p.metrics.queued.WithLabelValues(family).Set(float64(now.UnixNano()) / 1e9)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// loop writes when something changed, and looks after the tables now and then.
func (p *Proxy) loop(ctx context.Context) {
	p.touch()
	look := time.NewTicker(p.config.SyncPeriod)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-look.C:
			if p.backend.Check(ctx) && p.dirty.Load() == 0 && p.network == nil {
				p.wrote.Store(time.Now().UnixNano())
				continue
			}
		}
		if err := p.sync(ctx); err != nil && ctx.Err() == nil {
			slog.Error("write the kernel's tables", "error", err)
			p.metrics.failures.WithLabelValues(family).Inc()
			time.AfterFunc(retryAfter, p.touch)
		}
		if p.config.MinSyncPeriod > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(p.config.MinSyncPeriod):
			}
		}
	}
}

// sync gathers, decides and applies once.
func (p *Proxy) sync(ctx context.Context) error {
	since, began := p.dirty.Swap(0), time.Now()
	var problems []error
	if p.network != nil {
		pods, err := p.network.Sync(all[*v1.Node](p.nodes))
		problems = append(problems, err)
		if pods.IsValid() {
			p.rules.Config.PodCIDR = pods.String()
		}
	}
	table := desired.Decide(desired.Snapshot{Node: p.config.Hostname, Services: all[*v1.Service](p.services), Slices: all[*discoveryv1.EndpointSlice](p.endpoints)})
	n, err := p.backend.Sync(ctx, table)
	if err == nil {
		err = staleFlows(p.last, table).forget()
		p.last = table
	}
	if err = errors.Join(append(problems, err)...); err != nil {
		if since == 0 {
			since = began.UnixNano()
		}
		p.dirty.CompareAndSwap(0, since)
		return err
	}
	done := time.Now()
	p.wrote.Store(done.UnixNano())
	p.metrics.sync.WithLabelValues(family).Observe(done.Sub(began).Seconds())
	p.metrics.last.WithLabelValues(family).Set(float64(done.UnixNano()) / 1e9)
	p.metrics.rules.WithLabelValues(family, "all").Set(float64(n))
	if since > 0 {
		p.metrics.program.WithLabelValues(family).Observe(done.Sub(time.Unix(0, since)).Seconds())
	}
	slog.Debug("synced", "services", len(table.Ports), "rules", n, "took", done.Sub(began))
	return nil
}

func all[T any](store cache.Store) []T {
	list := store.List()
	out := make([]T, 0, len(list))
	for _, o := range list {
		out = append(out, o.(T))
	}
	return out
}

// health is what the health port tells.
type health struct {
	synced          time.Time
	alive, eligible bool
}

// health answers whether changes reach the kernel, and whether the node may have traffic: not while it is being deleted.
func (p *Proxy) health() health {
	h := health{synced: time.Unix(0, p.wrote.Load()), eligible: true}
	since := p.dirty.Load()
	h.alive = p.wrote.Load() > 0 && (since == 0 || time.Since(time.Unix(0, since)) < 2*p.config.SyncPeriod)
	if o, ok, _ := p.nodes.GetByKey(p.config.Hostname); ok {
		n := o.(*v1.Node)
		h.eligible = n.DeletionTimestamp == nil
		for _, t := range n.Spec.Taints {
			h.eligible = h.eligible && t.Key != "ToBeDeletedByClusterAutoscaler"
		}
	}
	return h
}
