package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runtimeClient does with bare CRI calls what a kubelet must at least do for a pod.
type runtimeClient struct {
	cri.RuntimeServiceClient
	b *bench

	mu   sync.Mutex // guards pods
	pods map[string]bareNames
}

// bareNames are what the runtime calls a pod and its container.
type bareNames struct{ sandbox, container string }

func dialRuntime(b *bench, socket string) (*runtimeClient, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("reaching the container runtime: %w", err)
	}
	return &runtimeClient{RuntimeServiceClient: cri.NewRuntimeServiceClient(conn), b: b, pods: map[string]bareNames{}}, nil
}

// startPod does what StartContainer needs before it: a sandbox with its network, and a container.
func (c *runtimeClient) startPod(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	logs := filepath.Join(c.b.dir, "podlogs", name)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: name}, LogDirectory: logs,
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: "/" + c.b.cgroup + "/bare", SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{}}},
	}
	s, err := c.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return err
	}
	made, err := c.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: s.PodSandboxId, SandboxConfig: config, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: pauseImage}, LogPath: "main.log",
		Linux: &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{CpuShares: 10}},
	}})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.pods[name] = bareNames{s.PodSandboxId, made.ContainerId}
	c.mu.Unlock()
	_, err = c.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId})
	return err
}

func (c *runtimeClient) endPod(name string) error {
	c.mu.Lock()
	sandbox, container := c.pods[name].sandbox, c.pods[name].container
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := c.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: container, Timeout: 10}); err != nil {
		return err
	}
	if _, err := c.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: container}); err != nil {
		return err
	}
	if _, err := c.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return err
	}
	_, err := c.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox})
	return err
}
