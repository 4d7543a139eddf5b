// Command csi is a small volume driver: a volume is a folder of this machine. It speaks the Container Storage Interface
// as any driver does, so that tests, and whoever writes a driver, have one to look at.
//
// Flow: main serves identity, controller and node services on <root>/plugins/<name>/csi.sock and offers itself to the
// kubelet at <root>/plugins_registry/<name>-reg.sock. Staging binds the folder to the node's path, publishing binds that
// to the pod's. Each call is one line on standard output. Calls may come at once; the kernel's mount table is the state.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"golang.org/x/sys/unix"
)

var (
	name = flag.String("name", "folders.sextant.local", "the driver's name")
	node = flag.String("node", "", "the node's ID")
	root = flag.String("root", "/var/lib/kubelet", "the kubelet's folder")
	data = flag.String("data", "/var/lib/sextant-csi", "where volumes are kept")
	most = flag.Int64("max-volumes", 0, "how many volumes the node takes; 0 is any number")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "csi:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	own := filepath.Join(*root, "plugins", *name, "csi.sock")
	offer := filepath.Join(*root, "plugins_registry", *name+"-reg.sock")
	driver := grpc.NewServer(grpc.UnaryInterceptor(tell))
	d := &folders{}
	csi.RegisterIdentityServer(driver, d)
	csi.RegisterControllerServer(driver, d)
	csi.RegisterNodeServer(driver, d)
	plugin := grpc.NewServer()
	registration.RegisterRegistrationServer(plugin, &offered{at: own})
	failed := make(chan error, 2)
	// The driver first: who finds the offer asks at once.
	for _, s := range []struct {
		path   string
		server *grpc.Server
	}{{own, driver}, {offer, plugin}} {
		l, err := listen(s.path)
		if err != nil {
			return err
		}
		defer os.Remove(s.path) //nolint:errcheck // gone is gone
		go func() { failed <- s.server.Serve(l) }()
		defer s.server.Stop()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}

// tell prints each call.
func tell(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	out, err := next(ctx, req)
	id := ""
	if v, ok := req.(interface{ GetVolumeId() string }); ok {
		id = v.GetVolumeId()
	}
	fmt.Println(info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:], id, status.Code(err))
	return out, err
}

// offered answers the kubelet's question who this is.
type offered struct {
	registration.UnimplementedRegistrationServer
	at string
}

func (o *offered) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: *name, Endpoint: o.at, SupportedVersions: []string{"1.0.0"}}, nil
}

func (o *offered) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	fmt.Println("registered", s.PluginRegistered, s.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

// folders is the driver.
type folders struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
}

// folder is where a volume is kept; a name with a path in it is none.
func folder(id string) (string, error) {
	if id == "" || id != filepath.Base(id) || strings.HasPrefix(id, ".") {
		return "", status.Errorf(codes.InvalidArgument, "volume ID %q", id)
	}
	return filepath.Join(*data, id), nil
}

func (*folders) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: *name, VendorVersion: "v0.1.0"}, nil
}

func (*folders) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (*folders) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{Type: &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}}}}}, nil
}

func (*folders) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{Type: &csi.ControllerServiceCapability_Rpc{
		Rpc: &csi.ControllerServiceCapability_RPC{Type: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}}}}}, nil
}

func (*folders) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	dir, err := folder(r.Name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: r.Name, CapacityBytes: r.GetCapacityRange().GetRequiredBytes()}}, nil
}

func (*folders) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	dir, err := folder(r.VolumeId)
	if err == nil {
		err = os.RemoveAll(dir)
	}
	return &csi.DeleteVolumeResponse{}, err
}

func (*folders) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: *node, MaxVolumesPerNode: *most}, nil
}

func (*folders) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	out := &csi.NodeGetCapabilitiesResponse{}
	for _, c := range []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS, csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER} {
		out.Capabilities = append(out.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: c}}})
	}
	return out, nil
}

// NodeExpandVolume writes the size into the volume, for folders have none, and refuses what is more than a tebibyte.
func (*folders) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	size := r.GetCapacityRange().GetRequiredBytes()
	if size > 1<<40 {
		return nil, status.Errorf(codes.OutOfRange, "%d bytes are too many", size)
	}
	if err := os.WriteFile(filepath.Join(r.VolumePath, "size"), fmt.Appendf(nil, "%d", size), 0o644); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}

// NodeGetVolumeStats tells figures of its own, by which they are known.
func (*folders) NodeGetVolumeStats(context.Context, *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: 1 << 30, Available: 1 << 29, Used: 1 << 28}, {Unit: csi.VolumeUsage_INODES, Total: 100, Available: 90, Used: 10}}}, nil
}

func (*folders) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	dir, err := folder(r.VolumeId)
	if err == nil && r.GetVolumeCapability().GetBlock() == nil {
		err = bind(dir, r.StagingTargetPath, false)
	}
	return &csi.NodeStageVolumeResponse{}, err
}

func (*folders) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, release(r.StagingTargetPath)
}

// NodePublishVolume binds what was staged, or for a volume that lives with its pod a new folder, in which the pod's name
// is found when the driver's object asks for it.
func (*folders) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	from := r.StagingTargetPath
	if r.GetVolumeCapability().GetBlock() != nil {
		return &csi.NodePublishVolumeResponse{}, device(r.VolumeContext["device"], r.TargetPath)
	}
	if from == "" {
		dir, err := folder(r.VolumeId)
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		if pod := r.VolumeContext["csi.storage.k8s.io/pod.name"]; pod != "" {
			if err := os.WriteFile(filepath.Join(dir, "pod"), []byte(pod), 0o644); err != nil {
				return nil, status.Error(codes.Internal, err.Error())
			}
		}
		from = dir
	}
	if err := os.MkdirAll(r.TargetPath, 0o750); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodePublishVolumeResponse{}, bind(from, r.TargetPath, r.Readonly)
}

func (*folders) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := release(r.TargetPath); err != nil {
		return nil, err
	}
	if err := os.Remove(r.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if dir, err := folder(r.VolumeId); err == nil && strings.HasPrefix(r.VolumeId, "csi-") {
		_ = os.RemoveAll(dir) // it lived with its pod
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// device shows a device of the machine at a path.
func device(from, to string) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return bind(from, to, false)
}

// bind mounts one folder on another, once.
func bind(from, to string, readOnly bool) error {
	var a, b unix.Stat_t
	if err := unix.Stat(from, &a); err != nil {
		return status.Errorf(codes.NotFound, "%s: %v", from, err)
	}
	if err := unix.Stat(to, &b); err == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		return nil
	}
	err := unix.Mount(from, to, "", unix.MS_BIND, "")
	if err == nil && readOnly {
		err = unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		return status.Errorf(codes.Internal, "mounting %s on %s: %v", from, to, err)
	}
	return nil
}

// release unmounts; what is not mounted is released already.
func release(path string) error {
	if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return status.Errorf(codes.Internal, "unmounting %s: %v", path, err)
	}
	return nil
}
