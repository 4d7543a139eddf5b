// Package podresources tells programs of this node (monitors of devices, schedulers of NUMA nodes) which of the node's
// resources each container has: the v1 service of /var/lib/kubelet/pod-resources/kubelet.sock.
//
// Flow: Server.Run listens -> a call asks the sources for the pods that run and what each holds -> one answer. Nothing is
// kept here; the sources may be asked from many goroutines at once. Who calls too often is refused, as upstream refuses.
package podresources

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// Source knows who has what.
type Source interface {
	// Pods are those which hold resources.
	Pods() []*v1.Pod
	Container(pod *v1.Pod, c *v1.Container) *podresources.ContainerResources
	Allocatable() *podresources.AllocatableResourcesResponse
}

// Server answers at one socket.
type Server struct {
	podresources.UnimplementedPodResourcesListerServer
	Socket string
	Source Source

	limit *rate.Limiter
}

// The calls a second that are answered, and at once.
const (
	perSecond = 100
	atOnce    = 10
)

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	s.limit = rate.NewLimiter(perSecond, atOnce)
	if err := os.MkdirAll(filepath.Dir(s.Socket), 0o750); err != nil {
		return fmt.Errorf("making the folder of the pod resources API: %w", err)
	}
	if err := os.Remove(s.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the socket of an earlier kubelet: %w", err)
	}
	l, err := net.Listen("unix", s.Socket)
	if err != nil {
		return fmt.Errorf("listening for the pod resources API: %w", err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if !s.limit.Allow() {
			return nil, status.Error(codes.ResourceExhausted, "rejected by rate limit")
		}
		return next(ctx, req)
	}))
	podresources.RegisterPodResourcesListerServer(server, s)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(l); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// List tells of all pods.
func (s *Server) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	out := &podresources.ListPodResourcesResponse{}
	for _, pod := range s.Source.Pods() {
		out.PodResources = append(out.PodResources, s.one(pod))
	}
	return out, nil
}

// Get tells of one pod.
func (s *Server) Get(_ context.Context, r *podresources.GetPodResourcesRequest) (*podresources.GetPodResourcesResponse, error) {
	for _, pod := range s.Source.Pods() {
		if pod.Namespace == r.PodNamespace && pod.Name == r.PodName {
			return &podresources.GetPodResourcesResponse{PodResources: s.one(pod)}, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "pod %s in namespace %s not found", r.PodName, r.PodNamespace)
}

// GetAllocatableResources tells what there is to be had.
func (s *Server) GetAllocatableResources(context.Context, *podresources.AllocatableResourcesRequest) (*podresources.AllocatableResourcesResponse, error) {
	return s.Source.Allocatable(), nil
}

// one is a pod with its main containers, and its sidecars: other init containers hand on what they have.
func (s *Server) one(pod *v1.Pod) *podresources.PodResources {
	out := &podresources.PodResources{Name: pod.Name, Namespace: pod.Namespace}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			out.Containers = append(out.Containers, s.Source.Container(pod, c))
		}
	}
	for i := range pod.Spec.Containers {
		out.Containers = append(out.Containers, s.Source.Container(pod, &pod.Spec.Containers[i]))
	}
	return out
}
