// Package csi mounts volumes through drivers which speak the Container Storage Interface.
//
// Flow: package plugins finds a plugin of kind CSIPlugin -> Drivers.Meet asks the driver for the node's ID and limits, which
// Run brings to the CSINode object. Publish brings a volume
// into a pod's folder (attached, staged once for the node, published for each pod), Unpublish takes it out again by what
// was written down beside it, so that a kubelet which comes back needs no memory. Calls for one volume are serialized.
package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/plugins"
)

// Objects reads what volumes are made from.
type Objects interface {
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	Token(ctx context.Context, namespace, account string, req *authv1.TokenRequest) (*authv1.TokenRequest, error)
	// Driver is a driver's own object; nil when it has none.
	Driver(ctx context.Context, name string) (*storagev1.CSIDriver, error)
	Attachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error)
}

// Config is what Drivers work with.
type Config struct {
	// Root is the kubelet's folder.
	Root     string
	NodeName string
	Objects  Objects
	// Tell makes the API know which drivers the node has.
	Tell func(ctx context.Context, drivers []storagev1.CSINodeDriver) error
	// Measure is how often drivers are asked how full their volumes are; 0 or less is never.
	Measure time.Duration
	Log     *slog.Logger
}

// Drivers are the node's.
type Drivers struct {
	cfg Config

	mu      sync.Mutex
	drivers map[string]*driver
	untold  bool
	busy    map[string]*sync.Mutex
	stats   map[string]Stats
}

// driver is one that has registered.
type driver struct {
	name string
	conn *grpc.ClientConn
	node csi.NodeClient
	// stages and the others are what it says it can.
	stages, groups, expands, tells, shares bool
	info                                   storagev1.CSINodeDriver
}

// New makes the folders drivers expect.
func New(cfg Config) (*Drivers, error) {
	for _, d := range []string{"plugins_registry", "plugins"} {
		if err := os.MkdirAll(filepath.Join(cfg.Root, d), 0o750); err != nil {
			return nil, fmt.Errorf("making the plugins' folder: %w", err)
		}
	}
	return &Drivers{cfg: cfg, drivers: map[string]*driver{}, busy: map[string]*sync.Mutex{}, untold: true}, nil
}

// look is how often the API is told of changes; call bounds one call of a driver.
const (
	look = time.Second
	call = 2 * time.Minute
)

// Run keeps the API's knowledge of the node's drivers true, until ctx ends.
func (d *Drivers) Run(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	if d.cfg.Measure > 0 {
		asking.Go(func() {
			m := time.NewTicker(d.cfg.Measure)
			defer m.Stop()
			for ctx.Err() == nil {
				d.measure(ctx)
				select {
				case <-ctx.Done():
				case <-m.C:
				}
			}
		})
	}
	asking.Go(func() { d.recount(ctx) })
	t := time.NewTicker(look)
	defer t.Stop()
	for {
		d.tell(ctx)
		select {
		case <-ctx.Done():
			d.mu.Lock()
			for _, x := range d.drivers {
				_ = x.conn.Close()
			}
			d.mu.Unlock()
			return
		case <-t.C:
		}
	}
}

// Meet asks a driver for the node's ID and what it can do.
func (d *Drivers) Meet(ctx context.Context, info plugins.Plugin) error {
	conn, err := plugins.Dial(info.Endpoint)
	if err != nil {
		return err
	}
	x := &driver{name: info.Name, conn: conn, node: csi.NewNodeClient(conn)}
	me, err := x.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("asking driver %s for the node's ID: %w", info.Name, err)
	}
	caps, err := x.node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("asking driver %s what it can do: %w", info.Name, err)
	}
	for _, c := range caps.Capabilities {
		switch c.GetRpc().GetType() {
		case csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME:
			x.stages = true
		case csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP:
			x.groups = true
		case csi.NodeServiceCapability_RPC_EXPAND_VOLUME:
			x.expands = true
		case csi.NodeServiceCapability_RPC_GET_VOLUME_STATS:
			x.tells = true
		case csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER:
			x.shares = true
		}
	}
	x.info = storagev1.CSINodeDriver{Name: info.Name, NodeID: me.NodeId}
	for k := range me.GetAccessibleTopology().GetSegments() {
		x.info.TopologyKeys = append(x.info.TopologyKeys, k)
	}
	x.info.Allocatable = room(me)
	d.mu.Lock()
	if old := d.drivers[info.Name]; old != nil {
		_ = old.conn.Close()
	}
	d.drivers[info.Name], d.untold = x, true
	d.mu.Unlock()
	d.cfg.Log.Debug("a volume driver knows the node", "driver", info.Name, "node id", me.NodeId)
	return nil
}

// room is how many volumes of a driver the node takes; nil is any number.
func room(me *csi.NodeGetInfoResponse) *storagev1.VolumeNodeResources {
	if me.MaxVolumesPerNode <= 0 {
		return nil
	}
	count := int32(me.MaxVolumesPerNode)
	return &storagev1.VolumeNodeResources{Count: &count}
}

// recountEvery is how often it is looked which drivers are to be asked again for their limits.
const recountEvery = 5 * time.Second

// recount asks drivers again how many volumes the node takes, those whose object says how often.
func (d *Drivers) recount(ctx context.Context) {
	t := time.NewTicker(recountEvery)
	defer t.Stop()
	last := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		d.mu.Lock()
		names := slices.Collect(maps.Keys(d.drivers))
		d.mu.Unlock()
		for _, name := range names {
			def, err := d.cfg.Objects.Driver(ctx, name)
			if err != nil || def == nil || def.Spec.NodeAllocatableUpdatePeriodSeconds == nil {
				continue
			}
			if last[name].IsZero() {
				last[name] = time.Now() // it has just been met
			}
			if time.Since(last[name]) < time.Duration(*def.Spec.NodeAllocatableUpdatePeriodSeconds)*time.Second {
				continue
			}
			last[name] = time.Now()
			d.ask(ctx, name)
		}
	}
}

// ask takes in a driver's present limit.
func (d *Drivers) ask(ctx context.Context, name string) {
	x, err := d.named(name)
	if err != nil {
		return
	}
	cctx, cancel := context.WithTimeout(ctx, statsWait)
	defer cancel()
	me, err := x.node.NodeGetInfo(cctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		d.cfg.Log.Warn("asking a driver how many volumes the node takes", "driver", name, "err", err)
		return
	}
	now := room(me)
	d.mu.Lock()
	defer d.mu.Unlock()
	if was := x.info.Allocatable; (was == nil) != (now == nil) || was != nil && *was.Count != *now.Count {
		x.info.Allocatable, d.untold = now, true
	}
}

// Forget drops a driver which has gone.
func (d *Drivers) Forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.drivers[name]; x != nil {
		_ = x.conn.Close()
		delete(d.drivers, name)
		d.untold = true
	}
}

// tell writes the CSINode when drivers changed, again and again until that is done.
func (d *Drivers) tell(ctx context.Context) {
	d.mu.Lock()
	untold := d.untold
	d.untold = false
	var all []storagev1.CSINodeDriver
	for _, x := range d.drivers {
		all = append(all, x.info)
	}
	d.mu.Unlock()
	if !untold {
		return
	}
	if err := d.cfg.Tell(ctx, all); err != nil {
		if ctx.Err() == nil {
			d.cfg.Log.Debug("writing the CSINode", "err", err)
		}
		d.mu.Lock()
		d.untold = true
		d.mu.Unlock()
	}
}

func (d *Drivers) named(name string) (*driver, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.drivers[name]; x != nil {
		return x, nil
	}
	return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", name)
}

// alone waits for the turn with one volume and answers how to end it.
func (d *Drivers) alone(driver, handle string) func() {
	key := driver + "^" + handle
	d.mu.Lock()
	m := d.busy[key]
	if m == nil {
		m = &sync.Mutex{}
		d.busy[key] = m
	}
	d.mu.Unlock()
	m.Lock()
	return m.Unlock
}

var errNotAttached = errors.New("not attached yet")
