package lifecycle

import (
	"sort"
	"strconv"
	"time"

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
