// Package proxy holds a node's kernel to the cluster's Services, and joins its pods to those of other nodes.
//
// Watches put what they see, slimmed, into a state, and mark the Services touched; one loop takes these, decides their ports (package
// desired), hands the table and what changed to the back end (package iptables, nftables or ipvs), and writes
// routes, tunnels and the CNI configuration (package podnet) and what network policies allow (package netpol). Only the loop touches
// the kernel's tables; a sweeper beside it forgets flows that the tables do not lead any more.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
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
	// settleAfter is how long after the first write the heap that only starting needed goes back to the kernel.
	settleAfter = time.Second
)

// needed are the lists that must be whole before anything is written.
var needed = []string{"services", "endpointslices", "nodes"}

// backend is what holds the kernel to a table: its changes are what differs from the last Sync, or everything must be looked at
// where the back end does not know what the kernel holds. All operations are idempotent.
type backend interface {
	Sync(ctx context.Context, t *desired.Table, changes []desired.Change) (desired.Written, error)
	Check(ctx context.Context) bool
	Cleanup(ctx context.Context) error
}

// Proxy is the daemon.
type Proxy struct {
	config   *Config
	api      *clients
	backend  backend
	others   []backend       // of the other modes: what they left is removed
	network  *podnet.Network // nil where a third party's CNI joins the pods
	enforcer *enforcement    // nil where network policies are not ours to enforce
	metrics  *metrics
	wake     chan struct{}
	serve    []func(context.Context) error
	state    *state
	table    desired.Table    // only the loop's
	owed     []desired.Change // to the flows, since the last write that went well; only the loop's
	balanced *healthPorts
	sweeper  *sweeper

	dirty    atomic.Int64 // when the oldest change not written was seen, unix nanoseconds; 0 for none
	wrote    atomic.Int64 // when the tables were last written
	eligible atomic.Bool  // the node may have new traffic
	// reconciled says that the sweeper was asked for the flows of an earlier proxy.
	reconciled atomic.Bool
}

// New reads the configuration, finds the kernel's tools, and binds the ports. Nothing runs yet, and no rule is written.
func New(c *Config) (*Proxy, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	c.log()
	c.warn()
	p := &Proxy{config: c, wake: make(chan struct{}, 1)}
	if c.WriteConfigTo != "" || c.InitOnly {
		return p, nil
	}
	p.eligible.Store(true)
	p.state = newState(c.Hostname, p.touch)
	p.metrics = newMetrics(c.Mode, c.Version, p.state.counts, p.dropped)
	p.sweeper = newSweeper(p.metrics, func() {
		p.reconciled.Store(false)
		time.AfterFunc(retryAfter, p.touch)
	})
	p.balanced = newHealthPorts(func() bool { return p.health().alive })
	var err error
	if p.backend, p.others, err = c.backends(); err != nil {
		return nil, err
	}
	if c.PodNetwork != podnet.None {
		p.network = &podnet.Network{Node: c.Hostname, Mode: c.PodNetwork, ConfDir: c.CNIConfDir, DataDir: c.CNIDataDir}
	}
	if c.Enforce || c.Cleanup {
		if p.enforcer, err = newEnforcement(p.state); err != nil && c.Enforce {
			return nil, err
		}
	}
	if c.Cleanup {
		return p, nil
	}
	rc, err := c.client()
	if err != nil {
		return nil, err
	}
	if p.api, err = newClients(rc); err != nil {
		return nil, err
	}
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
	switch {
	case p.config.WriteConfigTo != "":
		return p.config.writeFile()
	case p.config.InitOnly:
		return p.sysctls()
	}
	if p.config.Cleanup {
		err := p.backend.Cleanup(ctx)
		for _, b := range p.others {
			err = errors.Join(err, b.Cleanup(ctx))
		}
		if p.network != nil {
			err = errors.Join(err, p.network.Cleanup())
		}
		if p.enforcer != nil {
			err = errors.Join(err, p.enforcer.kernel.Cleanup())
		}
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	p.config.spare()
	if err := p.sysctls(); err != nil {
		return err
	}
	var group sync.WaitGroup
	for _, f := range p.serve {
		group.Go(func() {
			if err := f(ctx); err != nil {
				stop(err)
			}
		})
	}
	watch := func(client rest.Interface, selector string, kind runtime.Object, into *store) {
		lw := cache.NewFilteredListWatchFromClient(client, into.name, metav1.NamespaceAll, func(o *metav1.ListOptions) { o.LabelSelector = selector })
		r := cache.NewReflectorWithOptions(lw, kind, into, cache.ReflectorOptions{Name: into.name})
		group.Go(func() { r.RunWithContext(ctx) })
	}
	group.Go(func() { p.sweeper.run(ctx) })
	services, endpoints, nodes := p.state.stores()
	watch(p.api.core, notOthers, &v1.Service{}, services)
	watch(p.api.discovery, notOthers, &discoveryv1.EndpointSlice{}, endpoints)
	watch(p.api.core, "", &v1.Node{}, nodes)
	if p.enforcer != nil {
		policies, pods, namespaces := p.state.policyStores()
		watch(p.api.networking, "", &networkingv1.NetworkPolicy{}, policies)
		p.enforcer.watch = func() {
			watch(p.api.core, "", &v1.Pod{}, pods)
			watch(p.api.core, "", &v1.Namespace{}, namespaces)
		}
	}
	slog.Info("proxy started", "version", p.config.Version, "release", Release, "node", p.config.Hostname, "mode", p.config.Mode, "podNetwork", p.config.PodNetwork)
	p.loop(ctx)
	p.balanced.close()
	stop(nil)
	group.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// sysctls lets the node forward, and bridged packets meet the rules where the kernel can.
func (p *Proxy) sysctls() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("turn on forwarding: %w", err)
	}
	const v6 = "/proc/sys/net/ipv6/conf/all/forwarding"
	if err := os.WriteFile(v6, []byte("1"), 0o644); err != nil {
		slog.Info("IPv6 is not forwarded", "error", err)
	}
	for _, bridged := range []string{"/proc/sys/net/bridge/bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables"} {
		if err := os.WriteFile(bridged, []byte("1"), 0o644); err != nil {
			// Without the module, pods of one node answer each other past the rules: their Services need it to be masqueraded back.
			slog.Warn("bridged packets do not meet the rules", "error", err)
		}
	}
	return p.config.conntrack()
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
	look := time.NewTicker(p.config.SyncPeriod)
	defer look.Stop()
	for settled := false; ; {
		looked := false
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-look.C:
			looked = true
		}
		// Half the Services would be half the rules: nothing is written before the lists are whole.
		if !p.state.whole(needed...) {
			continue
		}
		if looked {
			p.backend.Check(ctx) // what it misses, sync writes
		}
		if err := p.sync(ctx, looked); err != nil && ctx.Err() == nil {
			slog.Error("write the kernel's tables", "error", err)
			p.metrics.failures.WithLabelValues(family).Inc()
			time.AfterFunc(retryAfter, p.touch)
		} else if !settled {
			settled = true
			p.settle(ctx)
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

// dropped answers how many packets a rule has dropped since it was written, for being outside of their connection's window; 0 where no rule does. It may be called
// from any goroutine.
func (p *Proxy) dropped() uint64 {
	b, counts := p.backend.(*iptables.Backend)
	if !counts {
		return 0
	}
	ctx, stop := context.WithTimeout(context.Background(), retryAfter)
	defer stop()
	return b.Dropped(ctx)
}

// settle removes what another mode left, now that traffic does not need it any more, and gives back the memory of starting.
func (p *Proxy) settle(ctx context.Context) {
	for _, b := range p.others {
		if err := b.Cleanup(ctx); err != nil {
			slog.Error("remove what another mode left", "error", err)
			if p.metrics.cleanup != nil {
				p.metrics.cleanup.WithLabelValues(family).Inc()
			}
		}
	}
	time.AfterFunc(settleAfter, debug.FreeOSMemory)
}

// sync takes, decides and applies once.
func (p *Proxy) sync(ctx context.Context, look bool) error {
	since, began := p.dirty.Swap(0), time.Now()
	b := p.state.take()
	p.eligible.Store(b.self == nil || !b.self.Deleting)
	var problems []error
	var mine [2]netip.Prefix
	if p.network != nil {
		var err error
		mine, err = p.network.Sync(b.nodes, look)
		problems = append(problems, err)
	}
	if p.enforcer != nil {
		problems = append(problems, p.enforcer.sync(mine, look))
	}
	p.table.Policy = p.config.policy(mine, b.self)
	changes := b.apply(&p.table)
	p.owed = append(p.owed, changes...)
	problems = append(problems, p.balanced.sync(ctx, b.parts))
	p.metrics.changed(changes)
	p.sweeper.keep(changes)
	written, err := p.backend.Sync(ctx, &p.table, changes)
	if err == nil {
		var left *strays
		if !p.reconciled.Swap(true) || look {
			left = strayFlows(&p.table, p.config.Mode == "ipvs")
		}
		p.sweeper.add(p.owed, left)
		p.owed = nil
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
	p.metrics.synced(began, done, b.triggers, written, len(b.parts) == p.table.Services())
	slog.Debug("synced", "services", p.table.Services(), "changed", len(changes), "rules", written.Sum(), "took", done.Sub(began))
	return nil
}

// health is what the health port tells.
type health struct {
	synced          time.Time
	alive, eligible bool
}

// health answers whether changes reach the kernel, and whether the node may have traffic: not while it is being deleted.
func (p *Proxy) health() health {
	h := health{synced: time.Unix(0, p.wrote.Load()), eligible: p.eligible.Load()}
	since := p.dirty.Load()
	h.alive = p.wrote.Load() > 0 && (since == 0 || time.Since(time.Unix(0, since)) < 2*p.config.SyncPeriod)
	return h
}

// policy is how rules are made, with what only the cluster knows.
func (c *Config) policy(mine [2]netip.Prefix, self *podnet.Node) desired.Policy {
	out := desired.Policy{Pods: c.pods, NodePods: mine, MasqueradeAll: c.MasqueradeAll, MasqueradeBit: c.MasqueradeBit, DropInvalid: !c.Tracking.Liberal}
	switch c.LocalMode {
	case "NodeCIDR":
		if self != nil {
			out.Inside = self.Pods
		}
	case "BridgeInterface":
		out.InsideLink = c.LocalBridge
	case "InterfaceNamePrefix":
		out.InsideLink = c.LocalPrefix + "+"
	default:
		out.Inside = c.pods
	}
	on := c.NodePortsOn
	if len(on) == 0 {
		on = []string{"all"}
		if c.Mode == "nftables" {
			on = []string{"primary"}
		}
	}
	for _, s := range on {
		switch s {
		case "all":
			out.NodePortsAll = true
		case "primary":
			if self == nil {
				continue
			}
			for _, a := range self.Addresses {
				if a.IsValid() {
					out.NodePortsOn = append(out.NodePortsOn, netip.PrefixFrom(a, a.BitLen()))
				}
			}
		case "localhost":
			// Answering there would need route_localnet, which opens the host's own services to its neighbours.
		default:
			p, err := netip.ParsePrefix(strings.TrimSpace(s))
			switch {
			case err != nil: // complete has refused it
			case p.Bits() == 0:
				out.NodePortsAll = true
			default:
				out.NodePortsOn = append(out.NodePortsOn, p.Masked())
			}
		}
	}
	return out
}
