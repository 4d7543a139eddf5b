package lifecycle

import (
	"context"
	"sort"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// State is what the runtime says of one container.
type State int

// The states, in the order a container goes through them.
const (
	Unknown State = iota
	Created
	Running
	Exited
)

// Container is one container instance as the runtime knows it.
type Container struct {
	ID, Name, SandboxID, Image, ImageID, Hash string
	State                                     State
	Created, Started, Finished                time.Time
	ExitCode                                  int32
	Reason, Message                           string
	Restarts                                  int
	LogPath, MessagePath, MessagePolicy       string
	User                                      *runtimeapi.ContainerUser
	// Resources are as last set; nil from runtimes which do not say.
	Resources *runtimeapi.LinuxContainerResources
}

// Sandbox is one pod sandbox as the runtime knows it.
type Sandbox struct {
	ID      string
	Ready   bool
	Created time.Time
	Attempt uint32
	IPs     []string
}

// Observed is all the runtime knows of one pod: sandboxes newest first, and per name the instances newest first.
type Observed struct {
	Sandboxes  []Sandbox
	Containers map[string][]Container
}

// Latest is the newest instance of a container, nil when there is none.
func (o Observed) Latest(name string) *Container {
	if cs := o.Containers[name]; len(cs) > 0 {
		return &cs[0]
	}
	return nil
}

// in is the newest instance of a container in one sandbox.
func (o Observed) in(name, sandbox string) *Container {
	for i := range o.Containers[name] {
		if c := &o.Containers[name][i]; c.SandboxID == sandbox {
			return c
		}
	}
	return nil
}

// ready is the sandbox which runs now, nil when none does.
func (o Observed) ready() *Sandbox {
	if len(o.Sandboxes) > 0 && o.Sandboxes[0].Ready {
		return &o.Sandboxes[0]
	}
	return nil
}

// all is every instance that lives, in no order.
func (o Observed) alive() []Container {
	var out []Container
	for _, cs := range o.Containers {
		for _, c := range cs {
			if c.State == Running || c.State == Unknown {
				out = append(out, c)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// observe asks the runtime about one pod.
func observe(ctx context.Context, c *cri.Client, uid string, seen map[string]Container) (Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	o := Observed{Containers: map[string][]Container{}}
	label := map[string]string{cri.LabelPodUID: uid}
	sandboxes, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: label}})
	if err != nil {
		return o, err
	}
	for _, s := range sandboxes.Items {
		sb := Sandbox{ID: s.Id, Ready: s.State == runtimeapi.PodSandboxState_SANDBOX_READY, Created: time.Unix(0, s.CreatedAt), Attempt: s.GetMetadata().GetAttempt()}
		if !sb.Ready {
			// A dead one has no address, and a runtime may fail to say more of it for ever.
			o.Sandboxes = append(o.Sandboxes, sb)
			continue
		}
		st, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.Id})
		if cri.IsNotFound(err) {
			continue
		}
		if status.Code(err) == codes.Unknown {
			// The runtime is well but this sandbox is not: it can still be stopped and removed.
			o.Sandboxes = append(o.Sandboxes, sb)
			continue
		}
		if err != nil {
			return o, err
		}
		if n := st.Status.GetNetwork(); n != nil && n.Ip != "" {
			sb.IPs = append(sb.IPs, n.Ip)
			for _, ip := range n.AdditionalIps {
				sb.IPs = append(sb.IPs, ip.Ip)
			}
		}
		o.Sandboxes = append(o.Sandboxes, sb)
	}
	sort.SliceStable(o.Sandboxes, func(i, j int) bool {
		if a, b := o.Sandboxes[i], o.Sandboxes[j]; a.Ready != b.Ready {
			return a.Ready
		} else {
			return a.Created.After(b.Created)
		}
	})
	containers, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: label}})
	if err != nil {
		return o, err
	}
	for _, it := range containers.Containers {
		// An exited container never changes again; no need to ask twice.
		if old, ok := seen[it.Id]; ok && old.State == Exited && it.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			o.Containers[old.Name] = append(o.Containers[old.Name], old)
			continue
		}
		st, err := c.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: it.Id})
		if cri.IsNotFound(err) {
			continue
		}
		if err != nil {
			return o, err
		}
		k := container(st.Status)
		k.SandboxID = it.PodSandboxId
		if k.ImageID == "" {
			k.ImageID = it.ImageRef
		}
		o.Containers[k.Name] = append(o.Containers[k.Name], k)
	}
	for _, cs := range o.Containers {
		sort.Slice(cs, func(i, j int) bool { return cs[i].Created.After(cs[j].Created) })
	}
	return o, nil
}

func container(s *runtimeapi.ContainerStatus) Container {
	k := Container{
		ID: s.Id, Name: s.Labels[cri.LabelContainerName], Image: s.GetImage().GetImage(), ImageID: s.ImageRef,
		Hash: s.Annotations[cri.AnnotationHash], ExitCode: s.ExitCode, Reason: s.Reason, Message: s.Message,
		Created: stamp(s.CreatedAt), Started: stamp(s.StartedAt), Finished: stamp(s.FinishedAt),
		LogPath: s.LogPath, MessagePath: s.Annotations[cri.AnnotationMessagePath],
		MessagePolicy: s.Annotations[cri.AnnotationMessagePolicy], User: s.User, Resources: s.GetResources().GetLinux(),
	}
	if k.Name == "" {
		k.Name = s.GetMetadata().GetName()
	}
	k.Restarts, _ = strconv.Atoi(s.Annotations[cri.AnnotationRestartCount])
	switch s.State {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		k.State = Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		k.State = Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		k.State = Exited
	}
	return k
}

func stamp(ns int64) time.Time {
	if ns <= 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
