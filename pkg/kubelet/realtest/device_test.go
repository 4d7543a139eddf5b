package realtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/plugins"
)

const deviceName = "sextant.test/thing"

// things is a device plugin whose devices are all /dev/null under other names.
type things struct {
	plugin.UnimplementedDevicePluginServer
	server *grpc.Server

	mu    sync.Mutex
	list  []*plugin.Device
	news  chan struct{}
	calls []string
}

func newThings(healthy map[string]bool) *things {
	p := &things{news: make(chan struct{}, 1)}
	p.tell(healthy)
	return p
}

// tell changes the devices there are.
func (p *things) tell(healthy map[string]bool) {
	p.mu.Lock()
	p.list = nil
	for id, ok := range healthy {
		d := &plugin.Device{ID: id, Health: plugin.Healthy, Topology: &plugin.TopologyInfo{Nodes: []*plugin.NUMANode{{ID: 0}}}}
		if !ok {
			d.Health = plugin.Unhealthy
		}
		p.list = append(p.list, d)
	}
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default:
	}
}

func (p *things) note(format string, a ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, fmt.Sprintf(format, a...))
}

func (p *things) noted(call string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.calls {
		if c == call {
			n++
		}
	}
	return n
}

func (p *things) ListAndWatch(_ *plugin.Empty, s grpc.ServerStreamingServer[plugin.ListAndWatchResponse]) error {
	for {
		p.mu.Lock()
		list := p.list
		p.mu.Unlock()
		if err := s.Send(&plugin.ListAndWatchResponse{Devices: list}); err != nil {
			return err
		}
		select {
		case <-s.Context().Done():
			return nil
		case <-p.news:
		}
	}
}

func (p *things) GetPreferredAllocation(_ context.Context, r *plugin.PreferredAllocationRequest) (*plugin.PreferredAllocationResponse, error) {
	ids := slices.Clone(r.ContainerRequests[0].AvailableDeviceIDs)
	slices.Sort(ids)
	slices.Reverse(ids)
	return &plugin.PreferredAllocationResponse{ContainerResponses: []*plugin.ContainerPreferredAllocationResponse{{DeviceIDs: ids[:r.ContainerRequests[0].AllocationSize]}}}, nil
}

func (p *things) Allocate(_ context.Context, r *plugin.AllocateRequest) (*plugin.AllocateResponse, error) {
	ids := r.ContainerRequests[0].DevicesIds
	p.note("allocate %v", ids)
	return &plugin.AllocateResponse{ContainerResponses: []*plugin.ContainerAllocateResponse{{Envs: map[string]string{"THINGS": strings.Join(ids, ",")},
		Mounts:     []*plugin.Mount{{HostPath: node.path("cdi"), ContainerPath: "/things", ReadOnly: true}},
		Devices:    []*plugin.DeviceSpec{{HostPath: "/dev/null", ContainerPath: "/dev/thing", Permissions: "rw"}},
		CdiDevices: []*plugin.CDIDevice{{Name: "sextant.test/thing=one"}}}}}, nil
}

func (p *things) PreStartContainer(_ context.Context, r *plugin.PreStartContainerRequest) (*plugin.PreStartContainerResponse, error) {
	p.note("prestart %v", r.DevicesIds)
	return &plugin.PreStartContainerResponse{}, nil
}

// start serves and registers, as plugins do whenever they find another kubelet.sock.
func (p *things) start(t *testing.T) {
	t.Helper()
	dir := node.path("kubelet/device-plugins")
	socket := filepath.Join(dir, "things.sock")
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	p.server = grpc.NewServer()
	plugin.RegisterDevicePluginServer(p.server, p)
	go func() { _ = p.server.Serve(l) }()
	conn, err := plugins.Dial(filepath.Join(dir, "kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = plugin.NewRegistrationClient(conn).Register(context.Background(), &plugin.RegisterRequest{Version: plugin.Version, Endpoint: "things.sock", ResourceName: deviceName,
		Options: &plugin.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: true}}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
}

// writeCDI describes a device which sets an environment variable.
func writeCDI(t *testing.T) {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"cdiVersion": "0.6.0", "kind": "sextant.test/thing", "devices": []any{
		map[string]any{"name": "one", "containerEdits": map[string]any{"env": []string{"CDI=one"}}},
		map[string]any{"name": "two", "containerEdits": map[string]any{"env": []string{"CDI=two"}}}}})
	if err == nil {
		err = os.WriteFile(node.path("cdi/things.json"), raw, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// nodeHas waits for the node to show so many devices, and so many of them healthy.
func nodeHas(t *testing.T, capacity, allocatable string) {
	t.Helper()
	err := within(patience, func() error {
		n, err := node.admin.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		c, a := n.Status.Capacity[deviceName], n.Status.Allocatable[deviceName]
		if c.String() != capacity || a.String() != allocatable {
			return fmt.Errorf("the node has %s of %s things, want %s of %s", a.String(), c.String(), allocatable, capacity)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDevicePlugin(t *testing.T) {
	s := newSpace(t)
	ctx := context.Background()
	writeCDI(t)
	p := newThings(map[string]bool{"a": true, "b": true, "c": true, "sick": false})
	p.start(t)
	nodeHas(t, "4", "3")
	spec := func(n int) string {
		return fmt.Sprintf(`{containers: [{name: c, command: [sh, -c, "test -c /dev/thing && ls /things && echo $THINGS $CDI; sleep 600"], resources: {limits: {%s: %d}}}]}`, deviceName, n)
	}
	s.create("two", spec(2))
	pod := s.ready("two")
	s.logged("two", "things.json\nb,c one\n")
	if p.noted("allocate [b c]") != 1 || p.noted("prestart [b c]") != 1 {
		t.Error(p.calls)
	}
	health := func(p *v1.Pod) string {
		var out []string
		for _, r := range container(p, "c").AllocatedResourcesStatus {
			for _, h := range r.Resources {
				out = append(out, fmt.Sprintf("%s %s %s", r.Name, h.ResourceID, h.Health))
			}
		}
		return strings.Join(out, "; ")
	}
	s.until("two", "shown with its devices", func(p *v1.Pod) bool {
		return health(p) == deviceName+" b Healthy; "+deviceName+" c Healthy"
	})
	// A plugin tells who has what; so does the kubelet.
	conn, err := plugins.Dial(node.path("kubelet/pod-resources/kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	lister := podresources.NewPodResourcesListerClient(conn)
	r, err := lister.Get(ctx, &podresources.GetPodResourcesRequest{PodName: "two", PodNamespace: s.name})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.ReplaceAll(fmt.Sprint(r.PodResources.Containers), "  ", " "), `[name:"c" devices:{resource_name:"sextant.test/thing" device_ids:"b" device_ids:"c" topology:{nodes:{}}}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if a, err := lister.GetAllocatableResources(ctx, &podresources.AllocatableResourcesRequest{}); err != nil || len(a.Devices) != 1 || len(a.Devices[0].DeviceIds) != 3 {
		t.Error(a, err)
	}
	s.create("many", spec(2))
	if p := s.ended("many", v1.PodFailed); p.Status.Reason != "UnexpectedAdmissionError" || p.Status.Message != "Pod was rejected: Allocate failed due to requested number of devices unavailable for sextant.test/thing. Requested: 2, Available: 1, which is unexpected" {
		t.Errorf("%s: %s", p.Status.Reason, p.Status.Message)
	}
	p.tell(map[string]bool{"a": true, "b": false, "c": true})
	nodeHas(t, "3", "2")
	s.until("two", "shown with a sick device", func(p *v1.Pod) bool {
		return health(p) == deviceName+" b Unhealthy; "+deviceName+" c Healthy"
	})
	// The kubelet comes back before the plugin does: what was given stays given, and what ran runs on.
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	p.server.Stop()
	if err := node.startKubelet(nil); err != nil {
		t.Fatal(err)
	}
	nodeHas(t, "0", "0")
	p.tell(map[string]bool{"a": true, "b": true, "c": true})
	p.start(t)
	nodeHas(t, "3", "3")
	again := s.until("two", "shown as before", func(p *v1.Pod) bool {
		return health(p) == deviceName+" b Healthy; "+deviceName+" c Healthy"
	})
	if container(again, "c").ContainerID != container(pod, "c").ContainerID {
		t.Error("the container was restarted")
	}
	s.create("more", spec(2))
	if p := s.ended("more", v1.PodFailed); p.Status.Reason != "UnexpectedAdmissionError" {
		t.Errorf("%s: %s", p.Status.Reason, p.Status.Message)
	}
	s.gone("two")
	s.create("last", spec(3))
	s.ready("last")
	s.logged("last", "things.json\na,b,c one\n")
	s.gone("last")
	p.server.Stop()
	nodeHas(t, "3", "0")
	raw, err := os.ReadFile(node.path("kubelet/device-plugins/kubelet_internal_checkpoint"))
	if err != nil || !strings.HasPrefix(string(raw), `{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{"sextant.test/thing":[`) {
		t.Errorf("%s %v", raw, err)
	}
}
