package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// full is how many pods a node may have.
	full = 110
	// deaths are how many containers end, in turn, to see how soon that is told.
	deaths = 10
)

// fullNode fills the node, lets it stand idle, ends containers, starts the kubelet again beneath all pods, and empties the node.
func fullNode(b *bench, p *plane, n *node, seen <-chan event, bare *runtimeClient, ours, floor runner) error {
	start := func(r runner, prefix string, until func() error) (cost, error) {
		return meter(1, r.daemon, []*daemon{r.runtime}, func() error {
			// The runtime itself is not asked for more at once than the machine can do.
			err := parallel(full, atOnce, func(i int) error { return r.start(fmt.Sprintf("%s-%d", prefix, i)) })()
			if err == nil && until != nil {
				err = until()
			}
			return err
		})
	}
	began, err := start(ours, "full", func() error {
		return wait(seen, full, 4*time.Minute, func(e event) bool { return e.Object.Status.Phase == "Running" })
	})
	if err != nil {
		return fmt.Errorf("filling the node: %w", err)
	}
	standing := n.kubelet.rss()
	time.Sleep(10 * time.Second)
	const idle = 10 * time.Second
	before := n.kubelet.cpu()
	time.Sleep(idle)
	used := float64(n.kubelet.cpu()-before) / float64(idle) * 100
	b.add(row{Work: fmt.Sprintf("idle, %d pods", full), Value: fmt.Sprintf("%.2f%% core, %s", used, mb(n.kubelet.rss())), Goal: "1% core"})
	b.size(fmt.Sprintf("RSS, %d pods just started", full), standing, "50 MB")
	told, known, err := endings(bare, seen)
	if err != nil {
		return err
	}
	b.add(row{Work: "container exit -> status seen by a watcher (floor: the runtime's own event)", Ours: cost{Wall: told}, Floor: cost{Wall: known}, By: byWall, Goal: "100ms"})
	back, err := restart(b, p, n, seen, bare)
	if err != nil {
		return err
	}
	b.add(row{Work: fmt.Sprintf("kubelet start -> an exit meanwhile is told, %d pods", full), Ours: cost{Wall: back}, Goal: "2s"})
	begun := time.Now()
	err = errors.Join(parallel(full, atOnce, func(i int) error { return ours.end(fmt.Sprintf("full-%d", i)) })(),
		wait(seen, full, 4*time.Minute, func(e event) bool { return e.Type == "DELETED" }))
	if err != nil {
		return fmt.Errorf("emptying the node: %w", err)
	}
	ended := time.Since(begun)
	if err := await("nothing left of the pods", 20*time.Second, func() error { return remains(b, bare) }); err != nil {
		return err
	}
	base, err := start(floor, "full-bare", nil)
	if err != nil {
		return err
	}
	begun = time.Now()
	if err := parallel(full, atOnce, func(i int) error { return floor.end(fmt.Sprintf("full-bare-%d", i)) })(); err != nil {
		return err
	}
	b.add(row{Work: fmt.Sprintf("%d pods create -> Running, until all", full), Ours: began, Floor: base, By: byWall, Goal: "1.2x"})
	b.add(row{Work: fmt.Sprintf("%d pods delete -> nothing left, until all", full), Ours: cost{Wall: ended}, Floor: cost{Wall: time.Since(begun)}, By: byWall})
	return nil
}

// instances are the containers the runtime has, by their pods' names.
func (c *runtimeClient) instances() (map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	list, err := c.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, k := range list.Containers {
		name := k.Labels["io.kubernetes.pod.name"]
		if out[name] != "" {
			return nil, fmt.Errorf("pod %s has two containers", name)
		}
		out[name] = k.Id
	}
	return out, nil
}

// kill ends a container's process as the kernel would.
func (c *runtimeClient) kill(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	st, err := c.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return err
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(st.Info["info"]), &info); err != nil || info.Pid <= 1 {
		return fmt.Errorf("the process of container %s: %d, %w", id, info.Pid, err)
	}
	return unix.Kill(info.Pid, unix.SIGKILL)
}

// endings is how long it takes until the API tells of a container's end, and until the runtime does: the medians of several.
func endings(bare *runtimeClient, seen <-chan event) (told, known time.Duration, err error) {
	all, err := bare.instances()
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := bare.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return 0, 0, err
	}
	stopped := make(chan time.Time, full)
	go func() {
		for {
			e, err := stream.Recv()
			if err != nil {
				return // it was cancelled, or nothing is told any more
			}
			if e.ContainerEventType == cri.ContainerEventType_CONTAINER_STOPPED_EVENT && e.ContainerId != e.GetPodSandboxStatus().GetId() {
				stopped <- time.Now()
			}
		}
	}()
	var ours, theirs []time.Duration
	for i := range deaths {
		name := fmt.Sprintf("full-%d", i)
		if err := bare.kill(all[name]); err != nil {
			return 0, 0, err
		}
		begun := time.Now()
		if err := failed(seen, name); err != nil {
			return 0, 0, fmt.Errorf("the end of a container: %w", err)
		}
		ours = append(ours, time.Since(begun))
		select {
		case at := <-stopped:
			theirs = append(theirs, at.Sub(begun))
		case <-time.After(time.Minute):
			return 0, 0, errors.New("the runtime did not tell of a container's end")
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	return ours[deaths/2], theirs[deaths/2], nil
}

// failed waits until the API tells that a pod has.
func failed(seen <-chan event, name string) error {
	return wait(seen, 1, time.Minute, func(e event) bool { return e.Object.Metadata.Name == name && e.Object.Status.Phase == "Failed" })
}

// restart starts the kubelet again and answers how long it takes until it tells what happened meanwhile. No container may feel it.
func restart(b *bench, p *plane, n *node, seen <-chan event, bare *runtimeClient) (time.Duration, error) {
	before, err := bare.instances()
	if err != nil {
		return 0, err
	}
	n.kubelet.stop()
	name := fmt.Sprintf("full-%d", full-1)
	if err := bare.kill(before[name]); err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := n.startKubelet(b, p); err != nil {
		return 0, err
	}
	if err := failed(seen, name); err != nil {
		return 0, fmt.Errorf("the kubelet is not back: %w\n%s", err, n.kubelet.tail())
	}
	took := time.Since(begun)
	time.Sleep(3 * time.Second)
	after, err := bare.instances()
	if err != nil {
		return 0, err
	}
	for name, id := range before {
		if after[name] != id {
			return 0, fmt.Errorf("pod %s was container %s before the kubelet's restart and %q after it", name, id, after[name])
		}
	}
	return took, nil
}

// remains is what is left of pods: containers, sandboxes, mounts, cgroups, folders, network namespaces.
func remains(b *bench, bare *runtimeClient) error {
	var what []string
	all, err := bare.instances()
	if err != nil {
		return err
	}
	for name := range all {
		what = append(what, "container of "+name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	boxes, err := bare.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	for _, s := range boxes.Items {
		what = append(what, "sandbox "+s.Id)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, b.dir) && (strings.Contains(line, "/kubelet/pods/") || strings.Contains(line, "/netns/") || strings.Contains(line, "/rootfs ")) {
			what = append(what, "mount "+line)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/%s/kubepods/*/pod*", "/sys/fs/cgroup/%s/kubepods/*/pod*"} {
		found, _ := filepath.Glob(fmt.Sprintf(pattern, b.cgroup)) // the pattern is a good one
		what = append(what, found...)
	}
	for _, pattern := range []string{"kubelet/pods/*", "podlogs/*_*_*", "ipam/*/*.*.*.*"} {
		found, _ := filepath.Glob(filepath.Join(b.dir, pattern)) // the pattern is a good one
		what = append(what, found...)
	}
	if len(what) > 0 {
		return fmt.Errorf("%d things, such as %s", len(what), what[0])
	}
	return nil
}
