// Package csi mounts volumes through drivers which speak the Container Storage Interface.
//
// Flow: Drivers.Run watches <root>/plugins_registry for sockets -> a plugin of kind CSIPlugin tells its name and where its
// driver listens -> the driver tells the node's ID and limits, which go to the CSINode object. Publish brings a volume
// into a pod's folder (attached, staged once for the node, published for each pod), Unpublish takes it out again by what
// was written down beside it, so that a kubelet which comes back needs no memory. Calls for one volume are serialized.
package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
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
	Log  *slog.Logger
}

// Drivers are the node's.
type Drivers struct {
	cfg Config

	mu      sync.Mutex
	drivers map[string]*driver
	sockets map[string]string
	untold  bool
	busy    map[string]*sync.Mutex
}

// driver is one that has registered.
type driver struct {
	name   string
	conn   *grpc.ClientConn
	node   csi.NodeClient
	stages bool
	groups bool
	info   storagev1.CSINodeDriver
}

// New makes the folders drivers expect.
func New(cfg Config) (*Drivers, error) {
	for _, d := range []string{"plugins_registry", "plugins"} {
		if err := os.MkdirAll(filepath.Join(cfg.Root, d), 0o750); err != nil {
			return nil, fmt.Errorf("making the plugins' folder: %w", err)
		}
	}
	return &Drivers{cfg: cfg, drivers: map[string]*driver{}, sockets: map[string]string{}, busy: map[string]*sync.Mutex{}, untold: true}, nil
}

// look is how often the folder is read; call bounds one call of a driver.
const (
	look = time.Second
	call = 2 * time.Minute
)

// Run registers drivers as they come and forgets them as they go, until ctx ends.
func (d *Drivers) Run(ctx context.Context) {
	t := time.NewTicker(look)
	defer t.Stop()
	said := map[string]string{}
	for {
		d.scan(ctx, said)
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

// scan compares the folder's sockets with those known.
func (d *Drivers) scan(ctx context.Context, said map[string]string) {
	here := map[string]bool{}
	_ = filepath.WalkDir(filepath.Join(d.cfg.Root, "plugins_registry"), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type()&os.ModeSocket != 0 && !strings.HasPrefix(e.Name(), ".") {
			here[path] = true
		}
		return nil
	})
	d.mu.Lock()
	var fresh []string
	for path := range here {
		if _, ok := d.sockets[path]; !ok {
			fresh = append(fresh, path)
		}
	}
	for path, name := range d.sockets {
		if here[path] {
			continue
		}
		delete(d.sockets, path)
		if x := d.drivers[name]; x != nil {
			_ = x.conn.Close()
			delete(d.drivers, name)
			d.untold = true
			d.cfg.Log.Info("a volume driver has gone", "driver", name)
		}
	}
	d.mu.Unlock()
	for _, path := range fresh {
		err := d.register(ctx, path)
		switch {
		case err == nil:
			delete(said, path)
		case said[path] != err.Error():
			said[path] = err.Error()
			d.cfg.Log.Warn("registering a plugin", "socket", path, "err", err)
		}
	}
}

func dial(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", addr)
		}))
}

// register asks a plugin who it is, makes its acquaintance, and tells it the outcome.
func (d *Drivers) register(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := dial(path)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // only read
	plugin := registration.NewRegistrationClient(conn)
	info, err := plugin.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return err
	}
	if info.Type != registration.CSIPlugin {
		err = fmt.Errorf("plugins of kind %s are not served by this kubelet", info.Type)
	} else {
		err = d.meet(ctx, path, info)
	}
	word := &registration.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		word.Error = err.Error()
	}
	if _, e := plugin.NotifyRegistrationStatus(ctx, word); err == nil && e != nil {
		err = fmt.Errorf("telling the plugin that it is registered: %w", e)
	}
	return err
}

func (d *Drivers) meet(ctx context.Context, path string, info *registration.PluginInfo) error {
	at := info.Endpoint
	if at == "" {
		at = path
	}
	conn, err := dial(at)
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
		}
	}
	x.info = storagev1.CSINodeDriver{Name: info.Name, NodeID: me.NodeId}
	for k := range me.GetAccessibleTopology().GetSegments() {
		x.info.TopologyKeys = append(x.info.TopologyKeys, k)
	}
	if n := me.MaxVolumesPerNode; n > 0 {
		count := int32(n)
		x.info.Allocatable = &storagev1.VolumeNodeResources{Count: &count}
	}
	d.mu.Lock()
	if old := d.drivers[info.Name]; old != nil {
		_ = old.conn.Close()
	}
	d.drivers[info.Name], d.sockets[path], d.untold = x, info.Name, true
	d.mu.Unlock()
	d.cfg.Log.Info("a volume driver has registered", "driver", info.Name, "node id", me.NodeId)
	return nil
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
