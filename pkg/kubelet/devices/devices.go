// Package devices hands out the devices of device plugins (v1beta1).
//
// Flow: a plugin registers at <dir>/kubelet.sock, or through package plugins -> Manager opens ListAndWatch and keeps the
// devices it tells of, each healthy or not -> Allocate, asked by the topology manager at a pod's admission, decides which
// devices a container gets and asks the plugin what makes them usable -> Give tells that at every start of the container.
// What was given is in a checkpoint of upstream's form before the pod starts, so that a kubelet which comes back knows it.
// A plugin whose stream ends makes its devices unhealthy at once, and forgotten after five minutes.
// All methods may be called at once, but Allocate, which its caller serializes. mu is never held over a plugin's answer.
package devices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/plugins"
	"github.com/sextant-k8s/sextant/pkg/kubelet/topology"
)

// Config is what a Manager works with.
type Config struct {
	// Dir is where plugins meet the kubelet, /var/lib/kubelet/device-plugins.
	Dir string
	// Nodes are the machine's NUMA nodes.
	Nodes []int
	// Changed: there are more or fewer devices. Touched: how a pod's devices are has changed.
	Changed func()
	Touched func(uid string)
	Log     *slog.Logger
}

// Manager knows the node's devices and who has them.
type Manager struct {
	cfg Config

	mu    sync.Mutex
	ctx   context.Context
	wg    sync.WaitGroup
	kinds map[string]*kind
	given []Grant
}

// kind is one resource.
type kind struct {
	devices map[string]device
	options *plugin.DevicePluginOptions
	conn    *grpc.ClientConn
	cancel  context.CancelFunc
	// left is when the plugin's stream ended; zero while it stands. A plugin of an earlier life has never stood.
	left time.Time
}

type device struct {
	healthy bool
	nodes   topology.Mask
}

// Grant is what one container has of one resource.
type Grant struct {
	Pod, Container, Resource string
	IDs                      []string
	answer                   *plugin.ContainerAllocateResponse
}

// forget is how long a resource stays in the node's capacity after its plugin has gone.
const forget = 5 * time.Minute

// New reads what an earlier kubelet has given.
func New(cfg Config) (*Manager, error) {
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the folder of device plugins: %w", err)
	}
	m := &Manager{cfg: cfg, kinds: map[string]*kind{}}
	data, err := read(cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range data.PodDeviceEntries {
		g := Grant{Pod: e.PodUID, Container: e.ContainerName, Resource: e.ResourceName, answer: &plugin.ContainerAllocateResponse{}}
		for _, ids := range e.DeviceIDs {
			g.IDs = append(g.IDs, ids...)
		}
		g.IDs = sorted(g.IDs)
		if err := proto.Unmarshal(e.AllocResp, g.answer); err != nil {
			return nil, fmt.Errorf("reading what plugin %s has told in the device checkpoint: %w", e.ResourceName, err)
		}
		m.given = append(m.given, g)
	}
	for name := range data.RegisteredDevices {
		m.kinds[name] = &kind{devices: map[string]device{}, left: time.Now()}
	}
	return m, nil
}

// Run serves registrations until ctx ends. Sockets of plugins are removed first, as upstream does: their plugins see by
// that, or by the new kubelet.sock, that they must register again.
func (m *Manager) Run(ctx context.Context) error {
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type()&os.ModeSocket != 0 {
			_ = os.Remove(filepath.Join(m.cfg.Dir, e.Name()))
		}
	}
	path := filepath.Join(m.cfg.Dir, "kubelet.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listening for device plugins: %w", err)
	}
	m.mu.Lock()
	m.ctx = ctx
	m.mu.Unlock()
	s := grpc.NewServer()
	plugin.RegisterRegistrationServer(s, &desk{m: m})
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	m.wg.Go(func() { m.age(ctx) })
	err = s.Serve(l)
	m.wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// age drops resources whose plugins do not come back.
func (m *Manager) age(ctx context.Context) {
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		gone := false
		m.mu.Lock()
		for _, k := range m.kinds {
			if !k.left.IsZero() && time.Since(k.left) > forget && len(k.devices) > 0 {
				k.devices, gone = map[string]device{}, true
			}
		}
		m.mu.Unlock()
		if gone {
			m.cfg.Changed()
		}
	}
}

// desk takes registrations at kubelet.sock.
type desk struct {
	plugin.UnimplementedRegistrationServer
	m *Manager
}

func (d *desk) Register(_ context.Context, r *plugin.RegisterRequest) (*plugin.Empty, error) {
	if !slices.Contains(plugin.SupportedVersions[:], r.Version) {
		return nil, fmt.Errorf("requested API version %q is not supported by kubelet. Supported version is %q", r.Version, plugin.SupportedVersions)
	}
	name := v1.ResourceName(r.ResourceName)
	if !Extended(name) {
		return nil, fmt.Errorf("the ResourceName %q is invalid", r.ResourceName)
	}
	if r.Endpoint == "" || r.Endpoint != filepath.Base(r.Endpoint) {
		return nil, fmt.Errorf("the endpoint %q is not the name of a socket in %s", r.Endpoint, d.m.cfg.Dir)
	}
	// It may begin to serve only once it is registered.
	return &plugin.Empty{}, d.m.connect(r.ResourceName, filepath.Join(d.m.cfg.Dir, r.Endpoint), r.Options)
}

// Meet takes a plugin which package plugins has found.
func (m *Manager) Meet(ctx context.Context, p plugins.Plugin) error {
	if !slices.ContainsFunc(p.Versions, func(v string) bool { return slices.Contains(plugin.SupportedVersions[:], v) }) {
		return fmt.Errorf("device plugin %s speaks none of the versions %v", p.Name, plugin.SupportedVersions)
	}
	if !Extended(v1.ResourceName(p.Name)) {
		return fmt.Errorf("the ResourceName %q is invalid", p.Name)
	}
	conn, err := plugins.Dial(p.Endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // only read
	options, err := plugin.NewDevicePluginClient(conn).GetDevicePluginOptions(ctx, &plugin.Empty{})
	if err != nil {
		return fmt.Errorf("asking device plugin %s for its options: %w", p.Name, err)
	}
	return m.connect(p.Name, p.Endpoint, options)
}

// Forget ends a plugin which package plugins has found.
func (m *Manager) Forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.kinds[name]; k != nil && k.cancel != nil {
		k.cancel()
	}
}

// Extended tells whether a resource has the name of an extended one: of a domain which is not Kubernetes' own.
func Extended(name v1.ResourceName) bool {
	domain, _, ok := strings.Cut(string(name), "/")
	return ok && domain != "" && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io") && !strings.HasPrefix(string(name), v1.DefaultResourceRequestsPrefix)
}

// connect takes a plugin in the place of the one before it, and begins to listen to it.
func (m *Manager) connect(name, socket string, options *plugin.DevicePluginOptions) error {
	conn, err := plugins.Dial(socket)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil || m.ctx.Err() != nil {
		_ = conn.Close()
		return errors.New("the kubelet is not ready for plugins")
	}
	ctx, cancel := context.WithCancel(m.ctx)
	k := &kind{devices: map[string]device{}, options: options, conn: conn, cancel: cancel}
	if old := m.kinds[name]; old != nil {
		if old.cancel != nil {
			old.cancel()
		}
		k.devices = old.devices
	}
	m.kinds[name] = k
	m.cfg.Log.Info("a device plugin has registered", "resource", name, "socket", socket)
	m.wg.Go(func() { m.listen(ctx, name, k) })
	return nil
}

// listen takes what a plugin tells of its devices until its stream ends.
func (m *Manager) listen(ctx context.Context, name string, k *kind) {
	stream, err := plugin.NewDevicePluginClient(k.conn).ListAndWatch(ctx, &plugin.Empty{}, grpc.WaitForReady(true))
	for err == nil {
		var r *plugin.ListAndWatchResponse
		if r, err = stream.Recv(); err == nil {
			m.take(name, k, r.Devices)
		}
	}
	_ = k.conn.Close()
	m.mu.Lock()
	current := m.kinds[name] == k
	k.left = time.Now()
	if current {
		for id, d := range k.devices {
			d.healthy = false
			k.devices[id] = d
		}
	}
	m.mu.Unlock()
	if current && m.ctx.Err() == nil {
		m.cfg.Log.Warn("a device plugin has gone", "resource", name, "err", err)
		m.told(name)
	}
}

func (m *Manager) take(name string, k *kind, list []*plugin.Device) {
	now := map[string]device{}
	for _, d := range list {
		x := device{healthy: d.Health == plugin.Healthy}
		for _, n := range d.GetTopology().GetNodes() {
			if n.ID >= 0 && n.ID < 64 {
				x.nodes |= topology.MaskOf(int(n.ID))
			}
		}
		now[d.ID] = x
	}
	m.mu.Lock()
	if m.kinds[name] != k {
		m.mu.Unlock()
		return
	}
	k.devices = now
	err := m.saveLocked()
	m.mu.Unlock()
	if err != nil {
		m.cfg.Log.Error("writing the device checkpoint", "err", err)
	}
	m.told(name)
}

// told has the node and the pods concerned shown anew.
func (m *Manager) told(name string) {
	m.cfg.Changed()
	m.mu.Lock()
	pods := map[string]bool{}
	for _, g := range m.given {
		if g.Resource == name {
			pods[g.Pod] = true
		}
	}
	m.mu.Unlock()
	for uid := range pods {
		m.cfg.Touched(uid)
	}
}

// saveLocked writes the checkpoint.
func (m *Manager) saveLocked() error {
	d := checkpointData{RegisteredDevices: map[string][]string{}}
	for name, k := range m.kinds {
		ids := []string{}
		for id, x := range k.devices {
			if x.healthy {
				ids = append(ids, id)
			}
		}
		d.RegisteredDevices[name] = sorted(ids)
	}
	for _, g := range m.given {
		raw, err := proto.Marshal(g.answer)
		if err != nil {
			return err
		}
		e := PodDevicesEntry{PodUID: g.Pod, ContainerName: g.Container, ResourceName: g.Resource, DeviceIDs: DevicesPerNUMA{}, AllocResp: raw}
		for _, id := range g.IDs {
			node := int64(-1)
			if k := m.kinds[g.Resource]; k != nil && k.devices[id].nodes != 0 {
				node = int64(k.devices[id].nodes.Nodes()[0])
			}
			e.DeviceIDs[node] = append(e.DeviceIDs[node], id)
		}
		d.PodDeviceEntries = append(d.PodDeviceEntries, e)
	}
	return write(m.cfg.Dir, d)
}

// Resources are what plugins bring to the node: all devices, and the healthy ones.
func (m *Manager) Resources() (capacity, allocatable v1.ResourceList) {
	m.mu.Lock()
	defer m.mu.Unlock()
	capacity, allocatable = v1.ResourceList{}, v1.ResourceList{}
	for name, k := range m.kinds {
		healthy := 0
		for _, d := range k.devices {
			if d.healthy {
				healthy++
			}
		}
		n := v1.ResourceName(name)
		capacity[n] = *resource.NewQuantity(int64(len(k.devices)), resource.DecimalSI)
		allocatable[n] = *resource.NewQuantity(int64(healthy), resource.DecimalSI)
	}
	return capacity, allocatable
}
