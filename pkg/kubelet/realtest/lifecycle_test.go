package realtest

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
)

func TestARunToTheEnd(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	if got := s.says("hello", `{restartPolicy: Never, containers: [{name: c, command: [sh, -c, "echo hello; sleep 0.3; echo bye >&2"]}]}`); got != "hello\nbye\n" {
		t.Errorf("the log says %q", got)
	}
	p := s.get("hello")
	if c := container(p, "c").State.Terminated; c == nil || c.ExitCode != 0 || c.Reason != "Completed" || p.Status.PodIP == "" || p.Status.HostIP != nodeIP {
		t.Errorf("%+v", p.Status)
	}
	if condition(p, v1.PodReady) != v1.ConditionFalse || condition(p, v1.PodInitialized) != v1.ConditionTrue {
		t.Error(p.Status.Conditions)
	}
	s.event("hello", "Started: Container started")
	// Who carries logs away finds them by these names.
	id := strings.TrimPrefix(container(p, "c").ContainerID, "containerd://")
	if raw, err := os.ReadFile(node.path(fmt.Sprintf("containers/hello_%s_c-%s.log", s.name, id))); err != nil || !strings.Contains(string(raw), "stdout F hello\n") {
		t.Errorf("the link shows %q, %v", raw, err)
	}
	s.gone("hello")
}

func TestInitAndSidecarOrder(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `
volumes: [{name: v, emptyDir: {}}]
restartPolicy: Never
initContainers:
- {name: first, command: [sh, -c, "echo first >> /v/order"], volumeMounts: [{name: v, mountPath: /v}]}
- name: side
  restartPolicy: Always
  command: [sh, -c, "trap 'echo side-ends >> /v/order; exit 0' TERM; echo side >> /v/order; touch /up; while true; do sleep 0.1; done"]
  startupProbe: {exec: {command: [cat, /up]}, periodSeconds: 1}
  volumeMounts: [{name: v, mountPath: /v}]
- {name: second, command: [sh, -c, "echo second >> /v/order"], volumeMounts: [{name: v, mountPath: /v}]}
containers:
- {name: main, command: [sh, -c, "echo main >> /v/order; cat /v/order; sleep 1; echo main-ends >> /v/order"], volumeMounts: [{name: v, mountPath: /v}]}
`)
	p := s.ended("p", v1.PodSucceeded)
	if got := s.logs("p", &v1.PodLogOptions{Container: "main"}); got != "first\nside\nsecond\nmain\n" {
		t.Errorf("order %q", got)
	}
	if c := container(p, "side").State.Terminated; c == nil || c.ExitCode != 0 || c.FinishedAt.Before(&container(p, "main").State.Terminated.FinishedAt) {
		t.Errorf("the sidecar must end after what it serves: %+v", c)
	}
}

func TestAFailedInitContainerEndsAPod(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("never", `{restartPolicy: Never, initContainers: [{name: i, command: [sh, -c, exit 3]}], containers: [{name: c, command: [sh]}]}`)
	s.create("always", `{initContainers: [{name: i, command: [sh, -c, exit 3]}], containers: [{name: c, command: [sh]}]}`)
	p := s.ended("never", v1.PodFailed)
	if container(p, "c").State.Waiting == nil || condition(p, v1.PodInitialized) != v1.ConditionFalse {
		t.Errorf("%+v", p.Status)
	}
	p = s.until("always", "in back-off", func(p *v1.Pod) bool {
		w := container(p, "i").State.Waiting
		return w != nil && w.Reason == "CrashLoopBackOff" && container(p, "i").RestartCount > 0
	})
	if p.Status.Phase != v1.PodPending || container(p, "c").State.Waiting == nil {
		t.Errorf("%+v", p.Status)
	}
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	// The first run fails and the second does not: what is on the volume tells them apart.
	spec := func(policy string) string {
		return fmt.Sprintf(`
restartPolicy: %s
volumes: [{name: v, emptyDir: {}}]
containers: [{name: c, command: [sh, -c, "if [ -e /v/ran ]; then exit 0; fi; touch /v/ran; exit 1"], volumeMounts: [{name: v, mountPath: /v}]}]`, policy)
	}
	s.create("always", spec("Always"))
	s.create("onfailure", spec("OnFailure"))
	s.create("never", spec("Never"))
	if c := container(s.ended("never", v1.PodFailed), "c"); c.RestartCount != 0 || c.State.Terminated.ExitCode != 1 || c.State.Terminated.Reason != "Error" {
		t.Errorf("never: %+v", c)
	}
	if c := container(s.ended("onfailure", v1.PodSucceeded), "c"); c.RestartCount != 1 || c.LastTerminationState.Terminated.ExitCode != 1 {
		t.Errorf("on failure: %+v", c)
	}
	p := s.until("always", "restarted twice or waiting to be", func(p *v1.Pod) bool {
		return container(p, "c").RestartCount >= 1 && container(p, "c").State.Waiting != nil
	})
	if w := container(p, "c").State.Waiting; w.Reason != "CrashLoopBackOff" || !strings.HasPrefix(w.Message, "back-off ") || p.Status.Phase != v1.PodRunning {
		t.Errorf("always: %s %+v", p.Status.Phase, w)
	}
	s.event("always", "BackOff: Back-off restarting failed container c in pod always_")
}

func TestRestartRules(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `
restartPolicy: Never
volumes: [{name: v, emptyDir: {}}]
containers:
- name: c
  command: [sh, -c, "if [ -e /v/ran ]; then exit 7; fi; touch /v/ran; exit 42"]
  restartPolicy: Never
  restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]
  volumeMounts: [{name: v, mountPath: /v}]
`)
	if c := container(s.ended("p", v1.PodFailed), "c"); c.RestartCount != 1 || c.State.Terminated.ExitCode != 7 {
		t.Errorf("%+v", c)
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("http", `
containers:
- name: c
  command: [sh, -c, "mkdir /w; echo ok > /w/healthz; httpd -p 80 -h /w; sleep 3; rm /w/healthz; sleep 600"]
  livenessProbe: {httpGet: {path: /healthz, port: 80}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1}
  readinessProbe: {httpGet: {path: /healthz, port: 80}, periodSeconds: 1}
`)
	s.create("exec", `
containers:
- name: c
  command: [sh, -c, "touch /ok; sleep 3; rm /ok; sleep 600"]
  livenessProbe: {exec: {command: [cat, /ok]}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1}
`)
	s.create("tcp", `
containers:
- {name: c, command: [sh, -c, "sleep 1; httpd -f -p 8080"], ports: [{name: web, containerPort: 8080}],
   startupProbe: {tcpSocket: {port: web}, periodSeconds: 1, failureThreshold: 60}, livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
`)
	s.create("never", `{containers: [{name: c, command: [sleep, "600"], readinessProbe: {exec: {command: [cat, /nothing]}, periodSeconds: 1}}]}`)
	s.create("startup", `{containers: [{name: c, command: [sleep, "600"], startupProbe: {exec: {command: [cat, /nothing]}, periodSeconds: 1, failureThreshold: 2}}]}`)
	s.create("slow", `{containers: [{name: c, command: [sleep, "600"], livenessProbe: {exec: {command: [sleep, "30"]}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 2}}]}`)
	s.ready("http")
	for _, name := range []string{"http", "exec", "startup", "slow"} {
		s.until(name, "restarted", func(p *v1.Pod) bool { return container(p, "c").RestartCount > 0 })
		s.event(name, "Unhealthy: ")
	}
	s.event("http", "Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 404")
	s.event("http", "Killing: Container c failed liveness probe, will be restarted")
	s.event("slow", "Unhealthy: Liveness probe failed: command timed out")
	if c := container(s.ready("tcp"), "c"); c.RestartCount != 0 || c.Started == nil || !*c.Started {
		t.Errorf("tcp: %+v", c)
	}
	p := s.running("never")
	if c := container(p, "c"); c.Ready || c.RestartCount != 0 || condition(p, v1.PodReady) == v1.ConditionTrue {
		t.Errorf("never ready: %+v", c)
	}
}

func TestGRPCProbe(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	l, err := net.Listen("tcp", nodeIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv, hs := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, hs)
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	hs.SetServingStatus("live", grpc_health_v1.HealthCheckResponse_SERVING)
	port := l.Addr().(*net.TCPAddr).Port
	s.create("p", fmt.Sprintf(`
hostNetwork: true
containers:
- {name: c, command: [sleep, "600"], livenessProbe: {grpc: {port: %d, service: live}, periodSeconds: 1, failureThreshold: 1}, readinessProbe: {grpc: {port: %d}, periodSeconds: 1}}
`, port, port))
	p := s.ready("p")
	if p.Status.PodIP != nodeIP || container(p, "c").RestartCount != 0 {
		t.Errorf("%+v", p.Status)
	}
	hs.SetServingStatus("live", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	s.until("p", "restarted", func(p *v1.Pod) bool { return container(p, "c").RestartCount == 1 })
	hs.SetServingStatus("live", grpc_health_v1.HealthCheckResponse_SERVING)
	s.event("p", `Unhealthy: Liveness probe failed: service unhealthy (responded with "NOT_SERVING")`)
}

func TestHooksAndGrace(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("sink", `{containers: [{name: c, command: [sh, -c, "mkdir /w; touch /w/hook; httpd -f -v -p 80 -h /w"], readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}}]}`)
	s.create("bad", `{containers: [{name: c, command: [sleep, "600"], lifecycle: {postStart: {exec: {command: [false]}}}}]}`)
	s.create("sleep", `{terminationGracePeriodSeconds: 20, containers: [{name: c, command: [sh, -c, "trap 'exit 0' TERM; touch /up; while true; do sleep 0.1; done"], readinessProbe: {exec: {command: [cat, /up]}, periodSeconds: 1}, lifecycle: {preStop: {sleep: {seconds: 2}}}}]}`)
	s.create("deaf", `{terminationGracePeriodSeconds: 2, containers: [{name: c, command: [sh, -c, "trap '' TERM; touch /up; while true; do sleep 0.1; done"], readinessProbe: {exec: {command: [cat, /up]}, periodSeconds: 1}}]}`)
	s.create("kind", `{terminationGracePeriodSeconds: 60, containers: [{name: c, command: [sh, -c, "trap 'exit 0' TERM; touch /up; while true; do sleep 0.1; done"], readinessProbe: {exec: {command: [cat, /up]}, periodSeconds: 1}}]}`)
	ip := s.ready("sink").Status.PodIP
	s.create("post", `
containers:
- name: c
  command: [sh, -c, "while [ ! -e /started ]; do sleep 0.1; done; echo post; sleep 600"]
  lifecycle: {postStart: {exec: {command: [touch, /started]}}, preStop: {exec: {command: [wget, -q, -O, /dev/null, "http://`+ip+`/hook?exec"]}}}
`)
	s.create("http", `
containers:
- name: c
  command: [sleep, "600"]
  lifecycle: {preStop: {httpGet: {host: "`+ip+`", port: 80, path: /hook}}}
`)
	s.ready("post")
	s.ready("http")
	s.logged("post", "post\n")
	s.gone("post")
	s.gone("http")
	if err := within(10*time.Second, func() error {
		if got := s.logs("sink", nil); strings.Count(got, "response:200") < 2 {
			return fmt.Errorf("the sink heard of %q", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	s.event("bad", "FailedPostStartHook: ")
	for _, n := range []string{"sleep", "deaf", "kind"} {
		s.ready(n)
	}
	if took := s.gone("kind"); took > 15*time.Second {
		t.Error("a container which heeds its signal was waited for", took)
	}
	for _, n := range []string{"sleep", "deaf"} {
		if took := s.gone(n); took < 1900*time.Millisecond || took > 15*time.Second {
			t.Errorf("%s was gone after %s, want two seconds", n, took)
		}
	}
}

func TestTerminationMessages(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	all := []struct {
		name, spec, want string
		phase            v1.PodPhase
	}{
		{"file", `{restartPolicy: Never, containers: [{name: c, command: [sh, -c, "printf OK > /dev/termination-log"]}]}`, "OK", v1.PodSucceeded},
		{"path", `{restartPolicy: Never, securityContext: {runAsUser: 1000}, containers: [{name: c, command: [sh, -c, "printf DONE > /dev/custom"], terminationMessagePath: /dev/custom}]}`, "DONE", v1.PodSucceeded},
		{"logs", `{restartPolicy: Never, containers: [{name: c, command: [sh, -c, "printf DONE; exit 1"], terminationMessagePolicy: FallbackToLogsOnError}]}`, "DONE", v1.PodFailed},
		{"quiet", `{restartPolicy: Never, containers: [{name: c, command: [sh, -c, "echo DONE"], terminationMessagePolicy: FallbackToLogsOnError}]}`, "", v1.PodSucceeded},
		{"both", `{restartPolicy: Never, containers: [{name: c, command: [sh, -c, "echo LOG; printf FILE > /dev/termination-log; exit 1"], terminationMessagePolicy: FallbackToLogsOnError}]}`, "FILE", v1.PodFailed},
	}
	for _, c := range all {
		s.create(c.name, c.spec)
	}
	for _, c := range all {
		if got := container(s.ended(c.name, c.phase), "c").State.Terminated.Message; got != c.want {
			t.Errorf("%s: message %q, want %q", c.name, got, c.want)
		}
	}
}

func TestReadinessGateAndDeadline(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("gate", `{readinessGates: [{conditionType: "x.io/ok"}], containers: [{name: c, command: [sleep, "600"]}]}`)
	p := s.until("gate", "running with ready containers", func(p *v1.Pod) bool { return condition(p, v1.ContainersReady) == v1.ConditionTrue })
	if condition(p, v1.PodReady) != v1.ConditionFalse {
		t.Error("ready before its gate")
	}
	s.patch("gate", `{"status":{"conditions":[{"type":"x.io/ok","status":"True"}]}}`, "status")
	s.ready("gate")
	s.create("deadline", `{activeDeadlineSeconds: 1000, containers: [{name: c, command: [sleep, "600"]}]}`)
	s.ready("deadline")
	s.patch("deadline", `{"spec":{"activeDeadlineSeconds":2}}`)
	if p := s.ended("deadline", v1.PodFailed); p.Status.Reason != "DeadlineExceeded" {
		t.Errorf("%+v", p.Status)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	type row struct{ name, spec, reason string }
	never := []row{
		{"sysctl", `{securityContext: {sysctls: [{name: net.core.somaxconn, value: "1"}]}, containers: [{name: c}]}`, "SysctlForbidden"},
		{"cpu", `{containers: [{name: c, resources: {requests: {cpu: "1000"}}}]}`, "OutOfcpu"},
		{"memory", `{containers: [{name: c, resources: {requests: {memory: 100Ti}}}]}`, "OutOfmemory"},
		{"selector", `{nodeSelector: {tier: other}, containers: [{name: c}]}`, "NodeAffinity"},
	}
	waiting := []row{
		{"image", `{containers: [{name: c, image: "registry.sextant.local/none:1", imagePullPolicy: Never}]}`, "ErrImageNeverPull"},
		{"name", `{containers: [{name: c, image: "UPPER/case"}]}`, "InvalidImageName"},
		{"config", `{containers: [{name: c, env: [{name: A, valueFrom: {configMapKeyRef: {name: none, key: a}}}]}]}`, "CreateContainerConfigError"},
		{"root", `{containers: [{name: c, securityContext: {runAsNonRoot: true}}]}`, "CreateContainerConfigError"},
		{"command", `{containers: [{name: c, command: [/no/such]}]}`, "RunContainerError"},
	}
	for _, c := range slices.Concat(never, waiting) {
		s.create(c.name, c.spec)
	}
	for _, c := range never {
		if p := s.ended(c.name, v1.PodFailed); p.Status.Reason != c.reason {
			t.Errorf("%s: %s %s", c.name, p.Status.Reason, p.Status.Message)
		}
	}
	for _, c := range waiting {
		s.until(c.name, "waiting with "+c.reason, func(p *v1.Pod) bool {
			cs := container(p, "c")
			return cs.State.Waiting != nil && cs.State.Waiting.Reason == c.reason
		})
	}
	if m := container(s.get("root"), "c").State.Waiting.Message; !strings.HasPrefix(m, "container has runAsNonRoot and image will run as root") {
		t.Errorf("runAsNonRoot: %s", m)
	}
}

func TestEphemeralContainer(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `{shareProcessNamespace: true, containers: [{name: c, command: [sleep, "600"]}]}`)
	s.ready("p")
	s.patch("p", `{"spec":{"ephemeralContainers":[{"name":"debug","image":"`+image+`","command":["sh","-c","echo debugging; ps; sleep 600"],"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}]}}`, "ephemeralcontainers")
	p := s.until("p", "being debugged", func(p *v1.Pod) bool { return container(p, "debug").State.Running != nil })
	if container(p, "c").RestartCount != 0 {
		t.Error("the container debugged was restarted")
	}
	if err := within(patience, func() error {
		if got := s.logs("p", &v1.PodLogOptions{Container: "debug"}); !strings.Contains(got, "debugging") || !strings.Contains(got, "sleep 600") || !strings.Contains(got, "/pause") {
			return fmt.Errorf("the debugger saw %q", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestGenerationIsObserved(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `{containers: [{name: c, command: [sleep, "600"]}]}`)
	if p := s.ready("p"); p.Generation != 1 || p.Status.ObservedGeneration != 1 {
		t.Errorf("%d, observed %d", p.Generation, p.Status.ObservedGeneration)
	}
	for i := range 5 {
		s.patch("p", fmt.Sprintf(`{"spec":{"activeDeadlineSeconds":%d}}`, 5000-i))
	}
	p := s.until("p", "observed", func(p *v1.Pod) bool { return p.Generation == 6 && p.Status.ObservedGeneration == 6 })
	for _, c := range p.Status.Conditions {
		if !slices.Contains([]v1.PodConditionType{v1.PodScheduled}, c.Type) && c.ObservedGeneration != 6 {
			t.Errorf("condition %s is of generation %d", c.Type, c.ObservedGeneration)
		}
	}
}
