package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// startError is a failed start with the waiting reason users see.
type startError struct {
	reason string
	err    error
	// event is the event reason, empty when one was already sent.
	event string
}

func (e *startError) Error() string { return e.err.Error() }

// told is what the event says: of an image only the reason, for the details stood in an event before it.
func (e *startError) told() string {
	switch e.reason {
	case "ErrImagePull", reasonPullBackoff, "ErrImageNeverPull", "InvalidImageName":
		return e.reason
	}
	return e.err.Error()
}

// prepareAgain is how long a pod waits whose claims could not be prepared: its driver may be starting too.
const prepareAgain = 3 * time.Second

// runtimeWait bounds one call which makes something in the runtime.
const runtimeWait = 4 * time.Minute

// making is a context for calls which make something in the runtime. A pod deleted meanwhile does not interrupt them:
// half a container leaves processes behind which nobody knows. Only the end of the kubelet does.
func (w *worker) making() (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.m.ctx, runtimeWait)
}

// start carries out a plan: the sandbox and the volumes at the same time, then containers one after the other. When ctx
// ends it does not begin anything further. It answers whether all went as planned and nothing else can have changed in the runtime than
// what it noted.
func (w *worker) start(ctx context.Context, pod *v1.Pod, o Observed, p Plan) (plain bool) {
	plain = !p.Sandbox || len(o.Sandboxes) == 0
	if p.Sandbox && len(o.Sandboxes) == 0 {
		// A runtime which lost its state has left processes behind; nobody may live beside what takes their place.
		if err := w.m.cfg.Cgroups.Destroy(w.uid); err != nil {
			w.log.Warn("ending what the runtime forgot", "err", err)
		}
	}
	volumes := make(chan error, 1)
	go func() {
		err := w.m.cfg.Cgroups.Create(pod)
		if err == nil {
			err = w.m.cfg.Volumes.Setup(ctx, pod)
		}
		volumes <- err
	}()
	sb := o.ready()
	var serr, perr error
	if p.Sandbox {
		perr = w.m.cfg.Resources.Prepare(ctx, pod)
	}
	var present func() (*runtimeapi.Image, error)
	if p.Sandbox && perr == nil {
		if len(p.Start) > 0 {
			// Whether the first image is here is asked while the sandbox is made.
			present = w.m.images.foresee(ctx, specOf(pod, p.Start[0]))
		}
		sb, serr = w.createSandbox(ctx, pod, o)
	}
	verr := <-volumes
	if ctx.Err() != nil {
		return false
	}
	if perr != nil {
		w.event(pod, v1.EventTypeWarning, "FailedPrepareDynamicResources", "Failed to prepare dynamic resources: "+perr.Error())
		w.failed("", "", "", prepareAgain)
		return false
	}
	if serr != nil {
		w.event(pod, v1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+cri.Text(serr))
		w.failed("", "", "", 0)
		return false
	}
	if verr != nil {
		w.event(pod, v1.EventTypeWarning, "FailedMount", verr.Error())
		w.failed("", "", "", 0)
		for _, name := range p.Start {
			w.failed(name, "", "", 0)
		}
		return false
	}
	w.mu.Lock()
	delete(w.retry, "")
	w.tries[""] = 0
	w.mu.Unlock()
	if p.Sandbox {
		w.mu.Lock()
		w.made = sb
		w.mu.Unlock()
		w.poke(!plain)
	}
	for i, name := range p.Start {
		if ctx.Err() != nil {
			return false
		}
		c := specOf(pod, name)
		if c == nil {
			continue
		}
		err := w.startContainer(ctx, pod, sb, c, o, present, i == len(p.Start)-1 && o.Latest(name) == nil)
		plain, present = plain && err == nil && o.Latest(name) == nil, nil
		if ctx.Err() != nil {
			return false
		}
		var se *startError
		refused, code := errors.As(err, &se), ""
		if refused {
			code = se.reason
		}
		w.m.cfg.Metrics.Started(kindOf(pod, name), code)
		if refused {
			if se.event != "" {
				w.event(pod, v1.EventTypeWarning, se.event, "Error: "+se.told(), name)
			}
			var again time.Duration
			if se.reason == reasonPullBackoff {
				again = 5 * time.Second
			}
			w.failed(name, se.reason, se.err.Error(), again)
			if isInit(pod, name) {
				return false
			}
			continue
		}
		w.mu.Lock()
		delete(w.retry, name)
		delete(w.waiting, name)
		w.tries[name] = 0
		w.mu.Unlock()
	}
	w.clean(ctx, pod)
	return plain
}

// failed notes why a container waits, and when to try again: 2 s doubling to 30 s unless after says otherwise.
func (w *worker) failed(name, reason, message string, after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if after == 0 {
		after = min(time.Second<<min(w.tries[name], 5)*2, 30*time.Second)
		w.tries[name]++
	}
	w.retry[name] = now().Add(after)
	if reason != "" {
		w.waiting[name] = v1.ContainerStateWaiting{Reason: reason, Message: message}
	}
}

func (w *worker) createSandbox(ctx context.Context, pod *v1.Pod, o Observed) (*Sandbox, error) {
	attempt := uint32(0)
	for _, s := range o.Sandboxes {
		attempt = max(attempt, s.Attempt+1)
		// Frees the name and the address of what stopped by itself.
		_, _ = w.m.cfg.CRI.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.ID})
	}
	handler := ""
	if pod.Spec.RuntimeClassName != nil && *pod.Spec.RuntimeClassName != "" {
		h, err := w.m.cfg.Objects.RuntimeHandler(ctx, *pod.Spec.RuntimeClassName)
		if err != nil {
			return nil, err
		}
		handler = h
	}
	if err := w.m.ownUsers(ctx, pod, handler); err != nil {
		return nil, err
	}
	cfg, err := w.sandboxConfig(pod, attempt)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.LogDirectory, 0o755); err != nil {
		return nil, err
	}
	mctx, cancel := w.making()
	defer cancel()
	begun := now()
	r, err := w.m.cfg.CRI.RunPodSandbox(mctx, &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: handler})
	w.m.cfg.Metrics.Sandbox(handler, pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers, now().Sub(begun), err)
	if err != nil {
		return nil, err
	}
	st, err := w.m.cfg.CRI.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: r.PodSandboxId})
	if err != nil {
		return nil, err
	}
	return &Sandbox{ID: r.PodSandboxId, Ready: true, Attempt: attempt, Created: time.Unix(0, st.Status.GetCreatedAt()), IPs: addresses(st.Status)}, nil
}

// startContainer brings one container up. present, when not nil, has asked for its image already. last: nothing follows it, so
// that the end of the job tells of it soon enough.
func (w *worker) startContainer(ctx context.Context, pod *v1.Pod, sb *Sandbox, c *v1.Container, o Observed, present func() (*runtimeapi.Image, error), last bool) error {
	image, err := w.m.images.ensure(ctx, w, pod, c, present)
	if err != nil {
		return err
	}
	volumes, err := w.imageVolumes(ctx, pod, c)
	if err != nil {
		return err
	}
	restarts := 0
	if last := o.Latest(c.Name); last != nil {
		restarts = last.Restarts + 1
		if last.State == Exited {
			w.mu.Lock()
			w.backoff[c.Name] = nextBackoff(w.backoff[c.Name], last.Finished.Sub(last.Started), w.m.cfg.MaxBackoff)
			w.mu.Unlock()
		}
	} else if n := restartsOnDisk(LogDir(w.m.cfg.LogDir, pod), c.Name); n > 0 {
		restarts = n
	}
	ips := sb.IPs
	if pod.Spec.HostNetwork {
		ips = w.m.cfg.HostIPs
	}
	cfg, err := w.containerConfig(ctx, pod, c, image, volumes, restarts, ips)
	if err != nil {
		return &startError{"CreateContainerConfigError", err, "Failed"}
	}
	scfg, err := w.sandboxConfig(pod, sb.Attempt)
	if err != nil {
		return &startError{"CreateContainerConfigError", err, "Failed"}
	}
	if err := os.MkdirAll(filepath.Join(scfg.LogDirectory, c.Name), 0o755); err != nil {
		return &startError{"CreateContainerError", err, "Failed"}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	mctx, cancel := w.making()
	defer cancel()
	r, err := w.m.cfg.CRI.CreateContainer(mctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sb.ID, Config: cfg, SandboxConfig: scfg})
	if err != nil {
		return &startError{"CreateContainerError", errors.New(cri.Text(err)), "Failed"}
	}
	w.event(pod, v1.EventTypeNormal, "Created", "Container created", c.Name)
	if _, err := w.m.cfg.CRI.StartContainer(mctx, &runtimeapi.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
		return &startError{"RunContainerError", errors.New(cri.Text(err)), "Failed"}
	}
	w.event(pod, v1.EventTypeNormal, "Started", "Container started", c.Name)
	w.link(pod, c.Name, r.ContainerId, restarts)
	w.mu.Lock()
	w.begun = append(w.begun, begun{r.ContainerId, sb.ID})
	w.mu.Unlock()
	hook := c.Lifecycle != nil && c.Lifecycle.PostStart != nil
	if hook || !last {
		w.poke(false)
	}
	if hook {
		if err := w.hook(ctx, pod, c, r.ContainerId, ips, c.Lifecycle.PostStart); err != nil {
			w.event(pod, v1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed", c.Name)
			w.kill(ctx, Kill{ID: r.ContainerId, Name: c.Name, Grace: int64(grace(pod) / time.Second), Reason: "Killing", Message: "FailedPostStartHook"}, pod)
			return &startError{"PostStartHookError", fmt.Errorf("PostStartHook failed"), ""}
		}
	}
	return nil
}

// clean removes instances older than the last two of each container, and those that were never started; the last but one serves
// logs --previous.
func (w *worker) clean(ctx context.Context, pod *v1.Pod) {
	w.mu.Lock()
	var old []Container
	for _, cs := range w.observed.Containers {
		for i, c := range cs {
			if i >= 2 && c.State == Exited || i >= 1 && c.State == Created {
				old = append(old, c)
			}
		}
	}
	w.mu.Unlock()
	for _, c := range old {
		if _, err := w.m.cfg.CRI.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID}); err == nil && c.LogPath != "" {
			_ = os.Remove(c.LogPath)
			_ = os.Remove(w.messageFile(c.Name, c.Restarts))
			w.unlink(pod, c.Name, c.ID)
		}
	}
}
