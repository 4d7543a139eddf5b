package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runtimeClient does with bare CRI calls what a kubelet must at least do for a pod.
type runtimeClient struct {
	cri.RuntimeServiceClient
	b *bench
}

func dialRuntime(b *bench, socket string) (*runtimeClient, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("reaching the container runtime: %w", err)
	}
	return &runtimeClient{cri.NewRuntimeServiceClient(conn), b}, nil
}

// each does rounds of so many pods at once, as eachPod does.
func (c *runtimeClient) each(runtime *daemon, rounds, pods int) (life, error) {
	var l life
	sandboxes, containers := make([]string, pods), make([]string, pods)
	for r := range rounds {
		start, err := meter(1, driver, []*daemon{runtime}, parallel(pods, pods, func(i int) (err error) {
			sandboxes[i], containers[i], err = c.startPod(fmt.Sprintf("bare-%d-%d-%d", pods, r, i))
			return err
		}))
		if err != nil {
			return l, fmt.Errorf("bare CRI calls that start: %w", err)
		}
		end, err := meter(1, driver, []*daemon{runtime}, parallel(pods, pods, func(i int) error { return c.endPod(sandboxes[i], containers[i]) }))
		if err != nil {
			return l, fmt.Errorf("bare CRI calls that end: %w", err)
		}
		l.start.add(start, rounds)
		l.end.add(end, rounds)
	}
	return l, nil
}

func (c *runtimeClient) startPod(name string) (sandbox, container string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	logs := filepath.Join(c.b.dir, "podlogs", name)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return "", "", err
	}
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: name}, LogDirectory: logs,
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: "/" + c.b.cgroup + "/bare", SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{}}},
	}
	s, err := c.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return "", "", err
	}
	made, err := c.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: s.PodSandboxId, SandboxConfig: config, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: pauseImage}, LogPath: "main.log",
		Linux: &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{CpuShares: 10}},
	}})
	if err != nil {
		return "", "", err
	}
	_, err = c.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId})
	return s.PodSandboxId, made.ContainerId, err
}

func (c *runtimeClient) endPod(sandbox, container string) error {
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
