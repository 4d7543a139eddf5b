package lifecycle

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// startKill stops one container in its own goroutine; a second with less grace overtakes the first.
func (w *worker) startKill(ctx context.Context, jobs *sync.WaitGroup, k Kill, pod *v1.Pod) {
	w.mu.Lock()
	_, again := w.killing[k.ID]
	w.killing[k.ID] = now().Add(time.Duration(k.Grace) * time.Second)
	w.mu.Unlock()
	w.stopProbes(&k.ID)
	jobs.Go(func() {
		if again {
			w.stop(ctx, k.ID, k.Grace)
		} else {
			w.kill(ctx, k, pod)
		}
		w.mu.Lock()
		w.stopped, w.dirty = append(w.stopped, k.ID), true
		w.mu.Unlock()
		w.poke(true)
	})
}

// kill runs the preStop hook and stops the container, both within the grace.
func (w *worker) kill(ctx context.Context, k Kill, pod *v1.Pod) {
	w.event(pod, v1.EventTypeNormal, k.Reason, k.Message, k.Name)
	left := k.Grace
	c := specOf(pod, k.Name)
	if c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil && k.Grace > 0 {
		begin := now()
		hctx, cancel := context.WithTimeout(ctx, time.Duration(k.Grace)*time.Second)
		w.mu.Lock()
		var ips []string
		if sb := w.observed.ready(); sb != nil {
			ips = sb.IPs
		}
		w.mu.Unlock()
		if err := w.hook(hctx, pod, c, k.ID, ips, c.Lifecycle.PreStop); err != nil && ctx.Err() == nil {
			w.event(pod, v1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed", k.Name)
		}
		cancel()
		left -= int64(now().Sub(begin) / time.Second)
		left = max(left, 2)
	}
	w.stop(ctx, k.ID, left)
}

func (w *worker) stop(ctx context.Context, id string, grace int64) {
	sctx, cancel := context.WithTimeout(ctx, time.Duration(grace)*time.Second+2*time.Minute)
	defer cancel()
	if _, err := w.m.cfg.CRI.StopContainer(sctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: grace}); err != nil && ctx.Err() == nil {
		w.log.Warn("stopping a container", "container", id, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// hook runs one lifecycle handler to its end.
func (w *worker) hook(ctx context.Context, pod *v1.Pod, c *v1.Container, id string, ips []string, h *v1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		r, err := w.m.cfg.CRI.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: h.Exec.Command})
		if err == nil && r.ExitCode != 0 {
			err = fmt.Errorf("command '%s' exited with %d: %s", strings.Join(h.Exec.Command, " "), r.ExitCode, r.Stderr)
		}
		return err
	case h.HTTPGet != nil:
		host := h.HTTPGet.Host
		if host == "" && len(ips) > 0 {
			host = ips[0]
		}
		req, err := httpRequest(ctx, h.HTTPGet, c, host, "kube-lifecycle/1.37")
		if err != nil {
			return err
		}
		resp, err := httpClient.Do(req)
		if err != nil && req.URL.Scheme == "https" && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
			// Servers written when the scheme was not heeded still answer; who asks they are not told.
			plain := req.Clone(ctx)
			plain.URL.Scheme = "http"
			plain.Header.Del("Authorization")
			if resp, err = httpClient.Do(plain); err == nil {
				w.m.cfg.Metrics.Fallback()
				w.event(pod, v1.EventTypeWarning, "LifecycleHTTPFallback", fmt.Sprintf("request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", req.URL.Host), c.Name)
			}
		}
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, _ = io.CopyN(io.Discard, resp.Body, 10<<10)
		if resp.StatusCode >= http.StatusBadRequest {
			return fmt.Errorf("HTTP probe failed with statuscode: %d", resp.StatusCode)
		}
		return nil
	case h.Sleep != nil:
		t := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
		case <-w.exited(ctx, id):
		}
		w.m.cfg.Metrics.Slept()
		return nil
	}
	return nil
}

// exited closes when the container no longer runs.
func (w *worker) exited(ctx context.Context, id string) <-chan struct{} {
	out := make(chan struct{})
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			w.mu.Lock()
			c, ok := w.seen[id]
			w.mu.Unlock()
			if ok && c.State == Exited {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return out
}

// httpRequest is the GET of a probe or a hook.
func httpRequest(ctx context.Context, g *v1.HTTPGetAction, c *v1.Container, host, agent string) (*http.Request, error) {
	port, err := portOf(g.Port, c)
	if err != nil {
		return nil, err
	}
	scheme := strings.ToLower(string(g.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	path := g.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, fmt.Sprint(port))+path, nil)
	if err != nil {
		return nil, err
	}
	for _, h := range g.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		} else {
			req.Header.Add(h.Name, h.Value)
		}
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", agent)
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "*/*")
	}
	return req, nil
}

// portOf resolves a number or the name of one of the container's ports.
func portOf(p intstr.IntOrString, c *v1.Container) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, cp := range c.Ports {
		if cp.Name == p.StrVal {
			return int(cp.ContainerPort), nil
		}
	}
	if n := p.IntValue(); n > 0 {
		return n, nil
	}
	return 0, fmt.Errorf("couldn't find port: %q in container %q", p.StrVal, c.Name)
}
