package main

import (
	"context"
	"errors"
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

// masked and readonly are what kubelets have the runtime hide from every container, and keep it from writing to.
var (
	masked = []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	readonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func dialRuntime(b *bench, socket string) (*runtimeClient, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("reaching the container runtime: %w", err)
	}
	return &runtimeClient{RuntimeServiceClient: cri.NewRuntimeServiceClient(conn), b: b, pods: map[string]bareNames{}}, nil
}

// startPod does what StartContainer needs before it: a sandbox and a container such as every kubelet asks for, with the pod's network, name
// server, host name and seccomp filter, and with the mounts that no pod is without: a token, /etc/hosts and the last word.
func (c *runtimeClient) startPod(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	logs := filepath.Join(c.b.dir, "podlogs", name)
	token, hosts, word := filepath.Join(logs, "token"), filepath.Join(logs, "hosts"), filepath.Join(logs, "word")
	if err := errors.Join(os.MkdirAll(token, 0o755), os.WriteFile(hosts, []byte("127.0.0.1\tlocalhost\n"), 0o644), os.WriteFile(word, nil, 0o666)); err != nil {
		return err
	}
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: name}, Hostname: name, LogDirectory: logs,
		DnsConfig: &cri.DNSConfig{Servers: []string{nodeIP}},
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: "/" + c.b.cgroup + "/bare", SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{}, Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}}},
	}
	s, err := c.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return err
	}
	made, err := c.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: s.PodSandboxId, SandboxConfig: config, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: pauseImage}, LogPath: "main.log",
		Mounts: []*cri.Mount{{ContainerPath: "/var/run/secrets/kubernetes.io/serviceaccount", HostPath: token, Readonly: true},
			{ContainerPath: "/etc/hosts", HostPath: hosts}, {ContainerPath: "/dev/termination-log", HostPath: word}},
		Linux: &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{CpuShares: 10},
			SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: &cri.NamespaceOption{}, MaskedPaths: masked, ReadonlyPaths: readonly}},
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
