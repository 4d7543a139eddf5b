package realtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	drahealth "k8s.io/kubelet/pkg/apis/dra-health/v1"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/plugins"
)

const claimDriver = "things.sextant.test"

// claimer is a DRA driver: every claim's device is the CDI device "two".
type claimer struct {
	dra.UnimplementedDRAPluginServer
	drahealth.UnimplementedDRAResourceHealthServer
	registration.UnimplementedRegistrationServer
	server *grpc.Server
	sick   chan bool

	mu    sync.Mutex
	fails string
	calls []string
}

func (d *claimer) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.DRAPlugin, Name: claimDriver, SupportedVersions: []string{dra.DRAPluginService, drahealth.DRAResourceHealthService}}, nil
}

func (d *claimer) NotifyRegistrationStatus(context.Context, *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *claimer) note(what string, claims []*dra.Claim) {
	for _, c := range claims {
		d.calls = append(d.calls, what+" "+c.Name)
	}
}

func (d *claimer) noted() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.calls, ", ")
}

func (d *claimer) fail(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = why
}

func (d *claimer) NodePrepareResources(_ context.Context, r *dra.NodePrepareResourcesRequest) (*dra.NodePrepareResourcesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &dra.NodePrepareResourcesResponse{Claims: map[string]*dra.NodePrepareResourceResponse{}}
	for _, c := range r.Claims {
		a := &dra.NodePrepareResourceResponse{Error: d.fails}
		if a.Error == "" {
			a.Devices = []*dra.Device{{RequestNames: []string{"one"}, PoolName: nodeName, DeviceName: "dev", CdiDeviceIds: []string{"sextant.test/thing=two"}}}
			d.note("prepare", []*dra.Claim{c})
		}
		out.Claims[c.Uid] = a
	}
	return out, nil
}

func (d *claimer) NodeUnprepareResources(_ context.Context, r *dra.NodeUnprepareResourcesRequest) (*dra.NodeUnprepareResourcesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &dra.NodeUnprepareResourcesResponse{Claims: map[string]*dra.NodeUnprepareResourceResponse{}}
	for _, c := range r.Claims {
		out.Claims[c.Uid] = &dra.NodeUnprepareResourceResponse{}
	}
	d.note("unprepare", r.Claims)
	return out, nil
}

func (d *claimer) NodeWatchResources(_ *drahealth.NodeWatchResourcesRequest, s grpc.ServerStreamingServer[drahealth.NodeWatchResourcesResponse]) error {
	sick := false
	for {
		h := &drahealth.DeviceHealth{Device: &drahealth.DeviceIdentifier{PoolName: nodeName, DeviceName: "dev"}, Health: drahealth.HealthStatus_HEALTHY, HealthCheckTimeoutSeconds: 600}
		if sick {
			h.Health, h.Message = drahealth.HealthStatus_UNHEALTHY, "it smokes"
		}
		if err := s.Send(&drahealth.NodeWatchResourcesResponse{Devices: []*drahealth.DeviceHealth{h}}); err != nil {
			return err
		}
		select {
		case <-s.Context().Done():
			return nil
		case sick = <-d.sick:
		}
	}
}

func (d *claimer) start(t *testing.T) {
	t.Helper()
	socket := node.path("kubelet/plugins_registry/" + claimDriver + "-reg.sock")
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	d.server = grpc.NewServer()
	dra.RegisterDRAPluginServer(d.server, d)
	drahealth.RegisterDRAResourceHealthServer(d.server, d)
	registration.RegisterRegistrationServer(d.server, d)
	go func() { _ = d.server.Serve(l) }()
}

// claim makes a claim of one device, given to nobody yet.
func (s *space) claim(name string) *resourcev1.ResourceClaim {
	s.t.Helper()
	c, err := node.admin.ResourceV1().ResourceClaims(s.name).Create(context.Background(), &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "one", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "things", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}}}}}}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// allocate does what a scheduler would: it gives the claim its device, for the pods named.
func (s *space) allocate(c *resourcev1.ResourceClaim, pods ...*v1.Pod) {
	s.t.Helper()
	c, err := node.admin.ResourceV1().ResourceClaims(s.name).Get(context.Background(), c.Name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	c.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "one", Driver: claimDriver, Pool: nodeName, Device: "dev"}}}}
	for _, p := range pods {
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
	}
	if _, err := node.admin.ResourceV1().ResourceClaims(s.name).UpdateStatus(context.Background(), c, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

func TestClaims(t *testing.T) {
	s := newSpace(t)
	ctx := context.Background()
	writeCDI(t)
	d := &claimer{sick: make(chan bool), fails: "no power"}
	c := s.claim("mine")
	spec := `{resourceClaims: [{name: thing, resourceClaimName: mine}], containers: [{name: c, command: [sh, -c, "echo $CDI; sleep 600"], resources: {claims: [{name: thing, request: one}]}}, {name: without, command: [sh, -c, "sleep 600"]}]}`
	first := s.create("first", spec)
	s.event("first", "FailedPrepareDynamicResources: Failed to prepare dynamic resources: pod first("+string(first.UID)+") is not allowed to use resource claim mine("+string(c.UID)+")")
	second := s.create("second", spec)
	s.allocate(c, first, second)
	s.event("first", "FailedPrepareDynamicResources: Failed to prepare dynamic resources: DRA driver "+claimDriver+" is not registered")
	d.start(t)
	s.event("first", "FailedPrepareDynamicResources: Failed to prepare dynamic resources: NodePrepareResources failed for ResourceClaim mine: no power")
	d.fail("")
	s.ready("first")
	s.ready("second")
	for _, p := range []string{"first", "second"} {
		if err := within(patience, func() error {
			if got := s.logs(p, &v1.PodLogOptions{Container: "c"}); got != "two\n" {
				return fmt.Errorf("%s said %q", p, got)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	if got := d.noted(); got != "prepare mine" {
		t.Error(got)
	}
	health := func(want string) {
		t.Helper()
		s.until("first", "shown as "+want, func(p *v1.Pod) bool {
			st := container(p, "c").AllocatedResourcesStatus
			if len(st) != 1 || len(st[0].Resources) != 1 {
				return false
			}
			h := st[0].Resources[0]
			got := fmt.Sprintf("%s %s %s", st[0].Name, h.ResourceID, h.Health)
			if h.Message != nil {
				got += " " + *h.Message
			}
			return got == want
		})
	}
	health("claim:thing/one sextant.test/thing=two Healthy")
	d.sick <- true
	health("claim:thing/one sextant.test/thing=two Unhealthy it smokes")
	conn, err := plugins.Dial(node.path("kubelet/pod-resources/kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r, err := podresources.NewPodResourcesListerClient(conn).Get(ctx, &podresources.GetPodResourcesRequest{PodName: "first", PodNamespace: s.name})
	if err != nil {
		t.Fatal(err)
	}
	if l := r.PodResources.Containers; len(l) != 2 || len(l[0].DynamicResources) != 1 || len(l[1].DynamicResources) != 0 ||
		l[0].DynamicResources[0].ClaimResources[0].CdiDevices[0].Name != "sextant.test/thing=two" {
		t.Error(l)
	}
	// The kubelet comes back and still knows that two pods use it.
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	if err := node.startKubelet(nil); err != nil {
		t.Fatal(err)
	}
	s.gone("first")
	if got := d.noted(); strings.Contains(got, "unprepare") {
		t.Error("taken away from a pod which runs:", got)
	}
	s.gone("second")
	if got := d.noted(); !strings.HasSuffix(got, ", unprepare mine") {
		t.Error(got)
	}
	raw, err := os.ReadFile(node.path("kubelet/dra_manager_state"))
	if err != nil || !strings.Contains(string(raw), `\"ClaimInfoStateList\":[]`) {
		t.Errorf("%s %v", raw, err)
	}
	d.server.Stop()
	if found, _ := filepath.Glob(node.path("kubelet/plugins_registry/*")); len(found) > 0 {
		t.Error(found)
	}
}
