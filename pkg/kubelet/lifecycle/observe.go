package lifecycle

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sort"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// looking bounds one look at a pod.
const looking = time.Minute

// begun is a container that was just started, and the sandbox it is in.
type begun struct{ id, sandbox string }

// observe asks the runtime about one pod. What cannot have changed since the last look is taken from it: how an exited container
// ended, and the addresses of a sandbox that is still ready. The calls do not wait for each other where they need not, since on a
// busy node each waits for its turn.
func observe(ctx context.Context, c *cri.Client, uid string, last Observed) (Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, looking)
	defer cancel()
	label := map[string]string{cri.LabelPodUID: uid}
	var sandboxes *runtimeapi.ListPodSandboxResponse
	var containers *runtimeapi.ListContainersResponse
	lists, lctx := errgroup.WithContext(ctx)
	lists.Go(func() (err error) {
		sandboxes, err = c.ListPodSandbox(lctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: label}})
		return err
	})
	lists.Go(func() (err error) {
		containers, err = c.ListContainers(lctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: label}})
		return err
	})
	if err := lists.Wait(); err != nil {
		return Observed{}, err
	}
	boxes, found := make([]*Sandbox, len(sandboxes.Items)), make([]*Container, len(containers.Containers))
	each, ectx := errgroup.WithContext(ctx)
	for i, s := range sandboxes.Items {
		each.Go(func() (err error) {
			boxes[i], err = sandbox(ectx, c, s, last)
			return err
		})
	}
	for i, it := range containers.Containers {
		// An exited container never changes again; no need to ask twice.
		if old := last.instance(it.Id); old != nil && old.State == Exited && it.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			found[i] = old
			continue
		}
		each.Go(func() (err error) {
			found[i], err = instance(ectx, c, it.Id, it.PodSandboxId, it.ImageRef)
			if cri.IsNotFound(err) {
				err = nil
			}
			return err
		})
	}
	if err := each.Wait(); err != nil {
		return Observed{}, err
	}
	o := Observed{Containers: map[string][]Container{}}
	for _, sb := range boxes {
		if sb != nil {
			o.Sandboxes = append(o.Sandboxes, *sb)
		}
	}
	sort.SliceStable(o.Sandboxes, func(i, j int) bool {
		if a, b := o.Sandboxes[i], o.Sandboxes[j]; a.Ready != b.Ready {
			return a.Ready
		} else {
			return a.Created.After(b.Created)
		}
	})
	for _, k := range found {
		if k != nil {
			o.Containers[k.Name] = append(o.Containers[k.Name], *k)
		}
	}
	for _, cs := range o.Containers {
		sort.Slice(cs, func(i, j int) bool { return cs[i].Created.After(cs[j].Created) })
	}
	return o, nil
}

// with is the last look and what the pod's own start has made since, of which the runtime is asked no more than how the new
// containers are.
func (o Observed) with(ctx context.Context, c *cri.Client, made *Sandbox, started []begun) (Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, looking)
	defer cancel()
	out := Observed{Sandboxes: slices.Clone(o.Sandboxes), Containers: maps.Clone(o.Containers)}
	if out.Containers == nil {
		out.Containers = map[string][]Container{}
	}
	if made != nil {
		out.Sandboxes = append([]Sandbox{*made}, slices.DeleteFunc(out.Sandboxes, func(s Sandbox) bool { return s.ID == made.ID })...)
	}
	for _, b := range started {
		k, err := instance(ctx, c, b.id, b.sandbox, "")
		if err != nil {
			return o, err
		}
		if k.ImageID == "" {
			return o, errors.New("the runtime tells a container's image in its list only")
		}
		others := slices.DeleteFunc(slices.Clone(out.Containers[k.Name]), func(x Container) bool { return x.ID == k.ID })
		out.Containers[k.Name] = append([]Container{*k}, others...)
	}
	return out, nil
}

// instance finds a container by its ID; nil when there is none.
func (o Observed) instance(id string) *Container {
	for _, cs := range o.Containers {
		for i := range cs {
			if cs[i].ID == id {
				return &cs[i]
			}
		}
	}
	return nil
}

// sandbox is one of the runtime's list, with what the list does not say; nil when it has gone meanwhile.
func sandbox(ctx context.Context, c *cri.Client, s *runtimeapi.PodSandbox, last Observed) (*Sandbox, error) {
	sb := &Sandbox{ID: s.Id, Ready: s.State == runtimeapi.PodSandboxState_SANDBOX_READY, Created: time.Unix(0, s.CreatedAt), Attempt: s.GetMetadata().GetAttempt()}
	if !sb.Ready {
		// A dead one has no address, and a runtime may fail to say more of it for ever.
		return sb, nil
	}
	for _, old := range last.Sandboxes {
		if old.ID == s.Id && old.Ready && len(old.IPs) > 0 {
			sb.IPs = old.IPs
			return sb, nil
		}
	}
	st, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.Id})
	switch {
	case cri.IsNotFound(err):
		return nil, nil
	case status.Code(err) == codes.Unknown:
		// The runtime is well but this sandbox is not: it can still be stopped and removed.
		return sb, nil
	case err != nil:
		return nil, err
	}
	sb.IPs = addresses(st.Status)
	return sb, nil
}

// addresses are a sandbox's, the main one first.
func addresses(s *runtimeapi.PodSandboxStatus) []string {
	n := s.GetNetwork()
	if n == nil || n.Ip == "" {
		return nil
	}
	out := []string{n.Ip}
	for _, ip := range n.AdditionalIps {
		out = append(out, ip.Ip)
	}
	return out
}

// instance asks how one container is; ref is its image as the runtime's list has it.
func instance(ctx context.Context, c *cri.Client, id, sandbox, ref string) (*Container, error) {
	st, err := c.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return nil, err
	}
	k := container(st.Status)
	k.SandboxID = sandbox
	if k.ImageID == "" {
		k.ImageID = ref
	}
	return &k, nil
}
