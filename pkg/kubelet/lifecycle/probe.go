package lifecycle

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Probes ask pods: their certificates are their own affair, and redirects to other hosts are not followed.
var insecureTransport = &http.Transport{
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a probe asks whether it answers, not who
	DisableKeepAlives: true,
	DialContext:       (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
}

var httpClient = &http.Client{Transport: insecureTransport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}}

// firstVerdict is what is believed of a container's instance before its first probe.
func firstVerdict(pod *v1.Pod, c *v1.Container, id string) Verdict {
	if c == nil {
		return Verdict{Started: true, Ready: true}
	}
	v := Verdict{Started: c.StartupProbe == nil, Ready: c.ReadinessProbe == nil}
	// An adopted instance keeps the readiness it was last reported with until a probe says otherwise; what was said of the one
	// before it, and may still be read, does not count.
	for _, cs := range append(append([]v1.ContainerStatus(nil), pod.Status.ContainerStatuses...), pod.Status.InitContainerStatuses...) {
		if cs.Name == c.Name && strings.HasSuffix(cs.ContainerID, "//"+id) && cs.State.Running != nil && cs.Started != nil && *cs.Started {
			v.Started = true
			v.Ready = v.Ready || cs.Ready
		}
	}
	return v
}

// probe starts the probes of what runs and stops those of what no longer does.
func (w *worker) probe(ctx context.Context, s Snapshot, jobs *sync.WaitGroup) {
	running := map[string]bool{}
	for _, c := range s.Observed.alive() {
		spec := specOf(s.Pod, c.Name)
		if spec == nil || c.State != Running {
			continue
		}
		running[c.ID] = true
		_, dying := s.Killing[c.ID]
		for kind, p := range map[string]*v1.Probe{"Startup": spec.StartupProbe, "Readiness": spec.ReadinessProbe, "Liveness": spec.LivenessProbe} {
			if p == nil || dying || s.Failure != nil || !s.Deadline.IsZero() && kind != "Readiness" {
				continue
			}
			key := c.ID + "/" + kind
			w.mu.Lock()
			if _, ok := w.probes[key]; !ok {
				pctx, cancel := context.WithCancel(ctx)
				w.probes[key] = cancel
				jobs.Go(func() { w.prober(pctx, kind, c, spec, p) })
			}
			w.mu.Unlock()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, cancel := range w.probes {
		if id, _, _ := strings.Cut(key, "/"); !running[id] {
			cancel()
			delete(w.probes, key)
		}
	}
}

// stopProbes ends the liveness and startup probes of one container (readiness goes on while it stops), or all probes.
func (w *worker) stopProbes(id *string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, cancel := range w.probes {
		if id == nil || strings.HasPrefix(key, *id) && !strings.HasSuffix(key, "Readiness") {
			cancel()
		}
		if id == nil {
			delete(w.probes, key)
		}
	}
}

// prober asks again and again until its context ends.
func (w *worker) prober(ctx context.Context, kind string, c Container, spec *v1.Container, p *v1.Probe) {
	period := time.Duration(max(p.PeriodSeconds, 1)) * time.Second
	delay := time.Duration(p.InitialDelaySeconds) * time.Second
	// Never longer than the delay itself, should the clock have gone back since the start.
	t := time.NewTimer(min(max(time.Until(c.Started.Add(delay)), 0), delay))
	defer t.Stop()
	good, bad := int32(0), int32(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		w.mu.Lock()
		v := w.verdicts[c.ID]
		pod := w.pod
		w.mu.Unlock()
		if kind == "Startup" && v.Started {
			return
		}
		if kind != "Startup" && !v.Started {
			// The startup probe decides first; be quick after it.
			t.Reset(min(period, 200*time.Millisecond))
			continue
		}
		begun := now()
		ok, text, err := w.ask(ctx, pod, spec, c.ID, p)
		if ctx.Err() != nil {
			return
		}
		w.probed(kind, ok, err, spec.Name, pod, now().Sub(begun))
		if err == nil && ok {
			good, bad = good+1, 0
			if text != "" {
				w.event(pod, v1.EventTypeWarning, "ProbeWarning", kind+" probe warning: "+text, spec.Name)
			}
		} else if err == nil {
			good, bad = 0, bad+1
			w.event(pod, v1.EventTypeWarning, "Unhealthy", kind+" probe failed: "+text, spec.Name)
		} else {
			w.event(pod, v1.EventTypeWarning, "Unhealthy", kind+" probe errored and resulted in unknown state: "+err.Error(), spec.Name)
		}
		w.judge(kind, c.ID, spec, good >= max(p.SuccessThreshold, 1), bad >= max(p.FailureThreshold, 1))
		next := period
		if kind == "Startup" && good > 0 {
			next = time.Millisecond
		}
		t.Reset(next)
	}
}

// judge turns probe results into the container's verdict and wakes the worker when it changed.
func (w *worker) judge(kind, id string, spec *v1.Container, pass, fail bool) {
	w.mu.Lock()
	v := w.verdicts[id]
	old := v
	switch {
	case kind == "Startup" && pass:
		v.Started = true
	case kind == "Startup" && fail:
		v.Kill = "Container " + spec.Name + " failed startup probe, will be restarted"
	case kind == "Readiness" && pass:
		v.Ready = true
	case kind == "Readiness" && fail:
		v.Ready = false
	case kind == "Liveness" && fail:
		v.Kill = "Container " + spec.Name + " failed liveness probe, will be restarted"
	}
	w.verdicts[id] = v
	w.mu.Unlock()
	if v != old {
		w.poke(false)
	}
}

// ask performs one probe. An error means that it could not be asked; text is the failure, or a warning, in words.
func (w *worker) ask(ctx context.Context, pod *v1.Pod, c *v1.Container, id string, p *v1.Probe) (ok bool, text string, err error) {
	timeout := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
	pctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	host := ""
	if pod.Spec.HostNetwork && len(w.m.cfg.HostIPs) > 0 {
		host = w.m.cfg.HostIPs[0]
	} else {
		w.mu.Lock()
		if sb := w.observed.ready(); sb != nil && len(sb.IPs) > 0 {
			host = sb.IPs[0]
		}
		w.mu.Unlock()
	}
	switch {
	case p.Exec != nil:
		ectx, cancel := context.WithTimeout(ctx, timeout+5*time.Second)
		defer cancel()
		env, eerr := w.environment(ectx, pod, c, []string{host})
		cmd := p.Exec.Command
		if eerr == nil {
			cmd = expandAll(cmd, env)
		}
		r, err := w.m.cfg.CRI.ExecSync(ectx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: int64(timeout / time.Second)})
		if err != nil {
			if status.Code(err) == codes.DeadlineExceeded || strings.Contains(err.Error(), "timed out") {
				return false, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(cmd, " "), timeout), nil
			}
			return false, "", err
		}
		if r.ExitCode == 0 {
			return true, "", nil
		}
		out := string(r.Stdout) + string(r.Stderr)
		return false, out[:min(len(out), 10<<10)], nil
	case p.HTTPGet != nil:
		if p.HTTPGet.Host != "" {
			host = p.HTTPGet.Host
		}
		req, err := httpRequest(pctx, p.HTTPGet, c, host, "kube-probe/1.37")
		if err != nil {
			return false, "", err
		}
		resp, err := httpClient.Do(req)
		if err != nil {
			return false, err.Error(), nil
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 10<<10))
		if err != nil {
			return false, err.Error(), nil
		}
		switch {
		case resp.StatusCode < 200 || resp.StatusCode >= 400:
			return false, fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode), nil
		case resp.StatusCode >= 300:
			return true, fmt.Sprintf("Probe terminated redirects, Response body: %s", body), nil
		}
		return true, "", nil
	case p.TCPSocket != nil:
		if p.TCPSocket.Host != "" {
			host = p.TCPSocket.Host
		}
		port, err := portOf(p.TCPSocket.Port, c)
		if err != nil {
			return false, "", err
		}
		conn, err := (&net.Dialer{}).DialContext(pctx, "tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			return false, err.Error(), nil
		}
		_ = conn.Close()
		return true, "", nil
	case p.GRPC != nil:
		return askGRPC(pctx, net.JoinHostPort(host, fmt.Sprint(p.GRPC.Port)), p.GRPC.Service, timeout)
	}
	return true, "", nil
}

func askGRPC(ctx context.Context, addr string, service *string, timeout time.Duration) (bool, string, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("kube-probe/1.37"))
	if err != nil {
		return false, "", err
	}
	defer func() { _ = conn.Close() }() // only read
	name := ""
	if service != nil {
		name = *service
	}
	r, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: name})
	switch status.Code(err) {
	case codes.OK:
		if r.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
			return true, "", nil
		}
		return false, fmt.Sprintf("service unhealthy (responded with %q)", r.GetStatus()), nil
	case codes.Unimplemented:
		return false, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", err), nil
	case codes.DeadlineExceeded:
		return false, fmt.Sprintf("timeout: health rpc did not complete within %v", timeout), nil
	}
	return false, fmt.Sprintf("error: health rpc probe failed: %v", err), nil
}
