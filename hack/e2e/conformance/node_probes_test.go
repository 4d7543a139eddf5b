//go:build e2e

package conformance

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var nodeProbes = []behaviour{
	{name: "Probing container with readiness probe should not be ready before initial delay and never restart", slow: true, test: probeInitialDelay},
	{name: "Probing container with readiness probe that fails should never be ready and never restart", test: probeNeverReady},
	{name: "Probing container should be restarted with a exec liveness probe", test: probeRestarts("liveness-exec", live(execProbe("cat", "/tmp/health")), "echo ok >/tmp/health; sleep 5; rm -f /tmp/health; sleep 600", nil)},
	{name: "Probing container should *not* be restarted with a exec liveness probe", test: probeStays("stay-exec", live(execProbe("cat", "/tmp/health")), "echo ok >/tmp/health; sleep 600", nil)},
	{name: "Probing container should be restarted with a /healthz http liveness probe", test: probeRestarts("liveness-http", live(httpGet("/healthz", 8080)), "", []string{"-fail-after", "8s"})},
	{name: "Probing container should *not* be restarted with a /healthz http liveness probe", test: probeStays("stay-http", live(httpGet("/hostname", 8080)), "", []string{"-fail-after", "2s"})},
	{name: "Probing container should *not* be restarted with a tcp:8080 liveness probe", test: probeStays("stay-tcp", live(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}), "", []string{"-fail-after", "2s"})},
	{name: "Probing container should *not* be restarted with a GRPC liveness probe", test: probeStays("stay-grpc", live(grpcProbe(5000)), "", []string{"-grpc", "5000"})},
	{name: "Probing container should be restarted with a GRPC liveness probe", test: probeRestarts("liveness-grpc", live(grpcProbe(2333)), "", []string{"-grpc", "5000"})},
	{name: "Probing container should be restarted with an exec liveness probe with timeout", test: probeRestarts("liveness-timeout", live(execProbe("sh", "-c", "sleep 10")), "sleep 600", nil)},
	{name: "Probing container should be restarted with a local redirect http liveness probe", test: probeRestarts("liveness-redirect", live(httpGet("/redirect?to=%2Fhealthz", 8080)), "", []string{"-fail-after", "8s"})},
	{name: "Probing container should *not* be restarted with a non-local redirect http liveness probe", test: probeRedirectAway},
	{name: "Probing container should have monotonically increasing restart count", slow: true, test: probeMonotone},
	{name: "Probing container should be ready immediately after startupProbe succeeds", test: probeStartup},
	{name: "Probing container should be restarted by a startup probe that fails", test: probeRestarts("startup-fails", func(c *corev1.Container) {
		c.StartupProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 3, ProbeHandler: execProbe("false")}
	}, "sleep 600", nil)},
}

func httpGet(path string, port int32) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(port)}}
}

func execProbe(command ...string) corev1.ProbeHandler {
	return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}}
}

func grpcProbe(port int32) corev1.ProbeHandler {
	return corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port}}
}

func intPort(port int32) intstr.IntOrString { return intstr.FromInt32(port) }

// live is a liveness probe that waits as the suite's do.
func live(h corev1.ProbeHandler) func(c *corev1.Container) {
	return func(c *corev1.Container) {
		c.LivenessProbe = &corev1.Probe{ProbeHandler: h, InitialDelaySeconds: 3, PeriodSeconds: 2, TimeoutSeconds: 1, FailureThreshold: 1}
	}
}

// probed is a pod that runs a script, or the test server where there is none.
func probed(name string, probe func(c *corev1.Container), script string, args []string) *corev1.Pod {
	p := pod(name, script, restart(corev1.RestartPolicyAlways))
	if script == "" {
		p = server(name, args, restart(corev1.RestartPolicyAlways))
		p.Spec.Containers[0].ReadinessProbe = nil
	}
	probe(&p.Spec.Containers[0])
	return p
}

func restarts(p *corev1.Pod) int32 {
	n := int32(0)
	for _, s := range p.Status.ContainerStatuses {
		n += s.RestartCount
	}
	return n
}

func probeRestarts(name string, probe func(c *corev1.Container), script string, args []string) func(w *world) {
	return func(w *world) {
		w.create(probed(name, probe, script, args))
		w.until(60*time.Second, "a restart", func() error {
			if restarts(w.get(name)) < 1 {
				return errGone
			}
			return nil
		})
		w.event(10*time.Second, name, "Unhealthy", "probe failed")
		w.event(10*time.Second, name, "Killing", "will be restarted")
	}
}

// patient gives answers five seconds to come: of who is not to be restarted it is not asked how fast a machine with much to do is.
func patient(probe func(c *corev1.Container)) func(c *corev1.Container) {
	return func(c *corev1.Container) {
		probe(c)
		c.LivenessProbe.TimeoutSeconds = 5
	}
}

func probeStays(name string, probe func(c *corev1.Container), script string, args []string) func(w *world) {
	return func(w *world) {
		w.ready(probed(name, patient(probe), script, args))
		w.holds(12*time.Second, "no restart", func() error { return differs("restarts", restarts(w.get(name)), 0) })
	}
}

func probeInitialDelay(w *world) {
	w.create(probed("delay", func(c *corev1.Container) {
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: httpGet("/hostname", 8080), InitialDelaySeconds: 30}
	}, "", nil))
	p := w.isReady("delay")
	started := p.Status.ContainerStatuses[0].State.Running.StartedAt.Time
	at := condition(p, corev1.PodReady).LastTransitionTime.Time
	if took := at.Sub(started); took < 29*time.Second || took > 60*time.Second {
		fatal("ready %s after its start", took)
	}
	same("restarts", restarts(p), 0)
}

func probeNeverReady(w *world) {
	w.create(probed("never", func(c *corev1.Container) {
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: execProbe("false"), InitialDelaySeconds: 1, PeriodSeconds: 1}
	}, "sleep 600", nil))
	w.phase("never", corev1.PodRunning)
	w.holds(10*time.Second, "never ready", func() error {
		p := w.get("never")
		if err := differs("ready", ready(p), false); err != nil {
			return err
		}
		return differs("restarts", restarts(p), 0)
	})
	p := w.get("never")
	if s := p.Status.ContainerStatuses[0].Started; s == nil || !*s {
		fatal("a container without a startup probe counts as started: %v", s)
	}
}

func probeRedirectAway(w *world) {
	w.ready(probed("away", patient(live(httpGet("/redirect?to=http%3A%2F%2F0.0.0.0%2F", 8080))), "", nil))
	w.event(30*time.Second, "away", "ProbeWarning", "Probe terminated redirects")
	same("restarts", restarts(w.get("away")), 0)
}

func probeMonotone(w *world) {
	w.create(probed("monotone", live(httpGet("/healthz", 8080)), "", []string{"-fail-after", "5s"}))
	last := int32(0)
	w.until(5*time.Minute, "five restarts", func() error {
		now := restarts(w.get("monotone"))
		if now < last {
			fatal("restarts fell from %d to %d", last, now)
		}
		last = now
		if now < 5 {
			return differs("restarts", now, 5)
		}
		return nil
	})
}

func probeStartup(w *world) {
	w.create(probed("startup", func(c *corev1.Container) {
		c.StartupProbe = &corev1.Probe{ProbeHandler: execProbe("test", "-e", "/tmp/started"), PeriodSeconds: 1, FailureThreshold: 60}
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: execProbe("true"), PeriodSeconds: 60}
	}, "sleep 5; touch /tmp/started; sleep 600", nil))
	p := w.isReady("startup")
	started := p.Status.ContainerStatuses[0].State.Running.StartedAt.Time
	if took := condition(p, corev1.PodReady).LastTransitionTime.Sub(started); took < 4*time.Second || took > 15*time.Second {
		fatal("ready %s after its start", took)
	}
}
