package realtest

import (
	"fmt"
	"math/rand/v2"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// chance makes random but valid pods. The same seed makes the same pods.
type chance struct{ *rand.Rand }

// in is true once in n times.
func (c chance) in(n int) bool { return c.IntN(n) == 0 }

func pick[T any](c chance, from ...T) T { return from[c.IntN(len(from))] }

func ptr[T any](v T) *T { return &v }

// scripts are lives of containers: long, short, failing, heeding their signal, deaf to it, with children, with last words.
var scripts = []string{
	"sleep 600", "sleep 600", "exit 0", "exit 1", "exit 42", "sleep 0.5; exit 3", "sleep 1; exit 42",
	"trap 'exit 0' TERM; while true; do sleep 0.1; done",
	"trap '' TERM; while true; do sleep 0.1; done",
	"sleep 600 & sleep 600 & wait",
	"(setsid sleep 600 &); exit 0",
	"printf bye > /dev/termination-log; exit 2",
	"for i in 1 2 3 4 5 6 7 8; do echo line $i; done; exit 9",
	"httpd -f -p 80 || sleep 600",
	"tail /dev/zero",
}

func (c chance) probe(pod *v1.PodSpec) *v1.Probe {
	p := &v1.Probe{PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: int32(1 + c.IntN(3)), InitialDelaySeconds: int32(c.IntN(2))}
	switch c.IntN(6) {
	case 0:
		p.TCPSocket = &v1.TCPSocketAction{Port: intstr.FromInt32(pick[int32](c, 80, 81))}
	case 1:
		p.HTTPGet = &v1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(pick[int32](c, 80, 81))}
	case 2:
		p.GRPC = &v1.GRPCAction{Port: 80}
	default:
		p.Exec = &v1.ExecAction{Command: []string{"sh", "-c", pick(c, "exit 0", "exit 0", "exit 0", "exit 1", "sleep 2", "exit $(($(date +%s) % 2))")}}
	}
	if pod.HostNetwork && p.Exec == nil {
		p.HTTPGet, p.GRPC, p.TCPSocket = nil, nil, &v1.TCPSocketAction{Port: intstr.FromInt32(10250)}
	}
	return p
}

func (c chance) handler(pod *v1.PodSpec) *v1.LifecycleHandler {
	switch c.IntN(5) {
	case 0:
		return &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: min(int64(c.IntN(3)), max(*pod.TerminationGracePeriodSeconds-1, 0))}}
	case 1:
		return &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80)}}
	case 2:
		return &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"false"}}}
	}
	return &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"sh", "-c", pick(c, "true", "sleep 0.3", "sleep 5")}}}
}

// sizes are a request and a limit, or nothing.
func (c chance) sizes() v1.ResourceRequirements {
	switch c.IntN(4) {
	case 0:
		same := v1.ResourceList{v1.ResourceCPU: resource.MustParse("20m"), v1.ResourceMemory: resource.MustParse("24Mi")}
		return v1.ResourceRequirements{Requests: same, Limits: same}
	case 1:
		return v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("5m")},
			Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m"), v1.ResourceMemory: resource.MustParse("32Mi")}}
	}
	// Whoever grows without bound must meet one.
	return v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("40Mi")}}
}

func (c chance) container(pod *v1.PodSpec, name string) v1.Container {
	k := v1.Container{Name: name, Image: image, Command: []string{"sh", "-c", pick(c, scripts...)}, Resources: c.sizes()}
	if c.in(4) {
		k.LivenessProbe = c.probe(pod)
		if c.in(3) {
			k.LivenessProbe.TerminationGracePeriodSeconds = ptr(int64(1))
		}
	}
	if c.in(4) {
		k.ReadinessProbe = c.probe(pod)
	}
	if c.in(6) {
		k.StartupProbe = c.probe(pod)
	}
	if c.in(4) {
		k.Lifecycle = &v1.Lifecycle{}
		if c.in(2) {
			k.Lifecycle.PostStart = c.handler(pod)
		}
		if c.in(2) {
			k.Lifecycle.PreStop = c.handler(pod)
		}
		if c.in(4) {
			k.Lifecycle.StopSignal = ptr(v1.SIGUSR1)
		}
	}
	for _, v := range pod.Volumes {
		if c.in(2) {
			m := v1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name}
			if v.EmptyDir != nil && c.in(2) {
				m.SubPath = "s/t"
			}
			m.ReadOnly = v.EmptyDir == nil
			k.VolumeMounts = append(k.VolumeMounts, m)
		}
	}
	switch c.IntN(8) {
	case 0:
		k.SecurityContext = &v1.SecurityContext{RunAsUser: ptr(int64(1000)), ReadOnlyRootFilesystem: ptr(true)}
	case 1:
		k.SecurityContext = &v1.SecurityContext{Capabilities: &v1.Capabilities{Drop: []v1.Capability{"ALL"}}, AllowPrivilegeEscalation: ptr(false)}
	}
	if c.in(5) {
		k.TerminationMessagePolicy = v1.TerminationMessageFallbackToLogsOnError
	}
	if c.in(4) {
		k.ResizePolicy = []v1.ContainerResizePolicy{{ResourceName: v1.ResourceMemory, RestartPolicy: pick(c, v1.NotRequired, v1.RestartContainer)}}
		if pod.RestartPolicy == v1.RestartPolicyNever {
			k.ResizePolicy = nil
		}
	}
	if c.in(6) {
		k.EnvFrom = []v1.EnvFromSource{{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: pick(c, "cm", "late")}, Optional: ptr(c.in(2))}}}
	}
	k.TTY = c.in(10)
	return k
}

// rules gives a container a restart policy of its own.
func (c chance) rules(k *v1.Container) {
	if !c.in(4) {
		return
	}
	k.RestartPolicy = ptr(pick(c, v1.ContainerRestartPolicyNever, v1.ContainerRestartPolicyOnFailure, v1.ContainerRestartPolicyAlways))
	if *k.RestartPolicy != v1.ContainerRestartPolicyAlways || c.in(2) {
		k.RestartPolicyRules = []v1.ContainerRestartRule{{Action: pick(c, v1.ContainerRestartRuleActionRestart, v1.ContainerRestartRuleActionRestartAllContainers),
			ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: pick(c, v1.ContainerRestartRuleOnExitCodesOpIn, v1.ContainerRestartRuleOnExitCodesOpNotIn), Values: []int32{42, 3}}}}
	}
}

func (c chance) volumes() []v1.Volume {
	local := v1.LocalObjectReference{Name: pick(c, "cm", "cm", "cm", "late")}
	all := []v1.Volume{
		{Name: "empty", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		{Name: "mem", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory, SizeLimit: resource.NewQuantity(1<<20, resource.BinarySI)}}},
		{Name: "cm", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: local, Optional: ptr(c.in(2))}}},
		{Name: "sec", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "sec", DefaultMode: ptr(int32(0o400))}}},
		{Name: "down", VolumeSource: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{{Path: "a/n", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
		{Name: "proj", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
			{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}}, {Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: "sec"}}}}}}},
		{Name: "host", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: node.path("host"), Type: ptr(v1.HostPathDirectoryOrCreate)}}},
		{Name: "img", VolumeSource: v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: image}}},
	}
	var out []v1.Volume
	for _, v := range all {
		if c.in(4) {
			out = append(out, v)
		}
	}
	return out
}

// spec is a pod which the API takes.
func (c chance) spec() v1.PodSpec {
	pod := v1.PodSpec{
		OS: &v1.PodOS{Name: v1.Linux}, RestartPolicy: pick(c, v1.RestartPolicyAlways, v1.RestartPolicyOnFailure, v1.RestartPolicyNever),
		TerminationGracePeriodSeconds: ptr(int64(c.IntN(4))), Volumes: c.volumes(), AutomountServiceAccountToken: ptr(c.in(4)), SecurityContext: &v1.PodSecurityContext{},
	}
	switch c.IntN(12) {
	case 0:
		pod.HostNetwork = true
	case 1:
		pod.ShareProcessNamespace = ptr(true)
	case 2:
		pod.HostPID = true
	case 3:
		pod.HostUsers = ptr(false)
	case 4:
		pod.Hostname, pod.Subdomain, pod.SetHostnameAsFQDN = "web", "sub", ptr(true)
	case 5:
		pod.SecurityContext.FSGroup = ptr(int64(7))
	}
	if c.in(6) {
		pod.ActiveDeadlineSeconds = ptr(int64(2 + c.IntN(15)))
	}
	if c.in(8) {
		pod.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "fuzz/gate"}}
	}
	for i := range c.IntN(3) {
		if !c.in(2) {
			continue
		}
		k := c.container(&pod, fmt.Sprintf("init%d", i))
		if k.RestartPolicy = nil; c.in(2) {
			k.RestartPolicy = ptr(v1.ContainerRestartPolicyAlways)
		} else {
			k.Command[2] = pick(c, "exit 0", "exit 0", "sleep 0.3", "exit 1", "sleep 2")
			k.LivenessProbe, k.ReadinessProbe, k.StartupProbe, k.Lifecycle, k.ResizePolicy = nil, nil, nil, nil, nil
		}
		pod.InitContainers = append(pod.InitContainers, k)
	}
	for i := range 1 + c.IntN(2) {
		k := c.container(&pod, string(rune('a'+i)))
		c.rules(&k)
		pod.Containers = append(pod.Containers, k)
	}
	if c.in(10) {
		// As much as four containers ask for at most.
		pod.Resources = &v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m"), v1.ResourceMemory: resource.MustParse("160Mi")},
			Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse("500m"), v1.ResourceMemory: resource.MustParse("256Mi")}}
	}
	return pod
}

// pod is one with a spec, and labels which volumes show.
func (c chance) pod(space, name string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: name, Labels: map[string]string{"fuzz": "0"}}, Spec: c.spec()}
	p.Spec.NodeName = nodeName
	return p
}
