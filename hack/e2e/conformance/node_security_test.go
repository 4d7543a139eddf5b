//go:build e2e

package conformance

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var nodeSecurity = []behaviour{
	{name: "Security Context should run the container as unprivileged when false", test: func(w *world) {
		contains(w.prints(pod("unprivileged", "ip link add dummy0 type dummy || true", first(secured(corev1.SecurityContext{Privileged: ptr(false)})))), "Operation not permitted")
	}},
	{name: "Security Context should run the container with writable rootfs when readOnlyRootFilesystem=false", test: func(w *world) {
		w.prints(pod("writable", "touch checkfile", first(secured(corev1.SecurityContext{ReadOnlyRootFilesystem: ptr(false)}))))
	}},
	{name: "Security Context should run the container with readonly rootfs when readOnlyRootFilesystem=true", test: func(w *world) {
		w.create(pod("read-only", "touch checkfile", first(secured(corev1.SecurityContext{ReadOnlyRootFilesystem: ptr(true)}))))
		w.phase("read-only", corev1.PodFailed)
	}},
	{name: "Security Context should run the container with uid 65534", test: func(w *world) {
		same("uid", w.prints(pod("uid", "id -u", first(secured(corev1.SecurityContext{RunAsUser: ptr(int64(65534))})))), "65534")
	}},
	{name: "Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup", test: func(w *world) {
		contains(w.prints(pod("ids", "id", first(secured(corev1.SecurityContext{RunAsUser: ptr(int64(1001)), RunAsGroup: ptr(int64(2002))})))), "uid=1001 gid=2002")
	}},
	{name: "Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup", test: func(w *world) {
		contains(w.prints(pod("ids", "id", asUser(1001, 2002))), "uid=1001 gid=2002")
	}},
	{name: "Security Context should support pod.Spec.SecurityContext.SupplementalGroups", test: func(w *world) {
		contains(w.prints(pod("ids", "id -G", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroups: []int64{1234, 5678}}
		})), "1234 5678")
	}},
	{name: "Security Context should not allow privilege escalation when false", test: func(w *world) {
		same("no_new_privs", w.prints(pod("escalate", "grep NoNewPrivs /proc/self/status", first(secured(corev1.SecurityContext{RunAsUser: ptr(int64(1000)), AllowPrivilegeEscalation: ptr(false)})))), "NoNewPrivs:\t1")
	}},
	{name: "Security Context should allow privilege escalation when true or not explicitly set", test: func(w *world) {
		same("no_new_privs", w.prints(pod("escalate", "grep NoNewPrivs /proc/self/status", first(secured(corev1.SecurityContext{RunAsUser: ptr(int64(1000))})))), "NoNewPrivs:\t0")
	}},
	{name: "Security Context seccomp unconfined and runtime default", test: seccomp},
	{name: "Security Context an image that runs as root is refused where runAsNonRoot is asked for", test: nonRoot},
	{name: "Security Context capabilities are dropped and added", test: capabilities},
	{name: "Sysctls should support sysctls", test: sysctls},
	{name: "Sysctls should reject invalid sysctls", test: sysctlsInvalid},
	{name: "Sysctls should not launch unsafe, but not explicitly enabled sysctls on the node", test: sysctlsUnsafe},
	{name: "RuntimeClass should reject a Pod requesting a non-existent RuntimeClass", test: runtimeClassAbsent},
	{name: "RuntimeClass should reject a Pod requesting a deleted RuntimeClass", test: runtimeClassDeleted},
	{name: "RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead", test: runtimeClass(nil)},
	{name: "RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead", test: runtimeClass(resources("10m", "1Mi"))},
	{name: "RuntimeClass a handler the runtime does not have fails the sandbox", test: runtimeClassUnknownHandler},
	{name: "PrivilegedPod should enable privileged commands", test: privileged},
	{name: "Security Context pods share host PID and network when they ask for it", test: hostNamespaces},
	{name: "Security Context pods share one process namespace when they ask for it", test: sharedProcesses},
}

func secured(s corev1.SecurityContext) func(c *corev1.Container) {
	return func(c *corev1.Container) { c.SecurityContext = &s }
}

func seccomp(w *world) {
	for kind, want := range map[corev1.SeccompProfileType]string{corev1.SeccompProfileTypeUnconfined: "Seccomp:\t0", corev1.SeccompProfileTypeRuntimeDefault: "Seccomp:\t2"} {
		profile := corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: kind}}
		text := w.prints(pod("seccomp-"+strings.ToLower(string(kind)), "grep ecc /proc/self/status", first(secured(profile))))
		contains(text, want)
	}
}

func nonRoot(w *world) {
	w.create(pod("non-root", "id", first(secured(corev1.SecurityContext{RunAsNonRoot: ptr(true)}))))
	w.waits("non-root", "CreateContainerConfigError")
	w.event(10*time.Second, "non-root", "Failed", "container has runAsNonRoot and image will run as root")
	w.create(pod("non-root-0", "id", first(secured(corev1.SecurityContext{RunAsNonRoot: ptr(true), RunAsUser: ptr(int64(0))}))))
	w.event(30*time.Second, "non-root-0", "Failed", "container's runAsUser breaks non-root policy")
	same("uid", w.prints(pod("non-root-1234", "id -u", first(secured(corev1.SecurityContext{RunAsNonRoot: ptr(true), RunAsUser: ptr(int64(1234))})))), "1234")
}

func capabilities(w *world) {
	none := w.prints(pod("caps", "grep CapEff /proc/self/status", first(secured(corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}))))
	same("capabilities", none, "CapEff:\t0000000000000000")
	one := w.prints(pod("caps-one", "grep CapEff /proc/self/status", first(secured(corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}}}))))
	same("capabilities", one, "CapEff:\t0000000000001000")
}

func sysctls(w *world) {
	with := func(name, value string) edit {
		return func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: value}}}
		}
	}
	same("sysctl", w.prints(pod("sysctl", "cat /proc/sys/kernel/shm_rmid_forced", with("kernel.shm_rmid_forced", "1"))), "1")
	same("sysctl", w.prints(pod("sysctl-slash", "cat /proc/sys/net/ipv4/ip_local_port_range", with("net/ipv4/ip_local_port_range", "32770 60666"))), "32770\t60666")
}

func sysctlsInvalid(w *world) {
	_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("bad", "true", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "foo-", Value: "bar"}, {Name: "kernel.shmmax", Value: "100000000"}, {Name: "safe-and-unsafe", Value: "100000000"}, {Name: "bar..", Value: "42"}}}
	}), metav1.CreateOptions{})
	refused(err, apierrors.IsInvalid)
	contains(err.Error(), `Invalid value: "foo-"`)
	contains(err.Error(), `Invalid value: "bar.."`)
	for _, ok := range []string{`"safe-and-unsafe"`, `"kernel.shmmax"`} {
		if strings.Contains(err.Error(), ok) {
			fatal("%s is refused: %v", ok, err)
		}
	}
}

func sysctlsUnsafe(w *world) {
	w.create(pod("unsafe", "true", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "10000"}}}
	}))
	p := w.phase("unsafe", corev1.PodFailed)
	same("reason", p.Status.Reason, "SysctlForbidden")
	w.event(10*time.Second, "unsafe", "SysctlForbidden", "")
}

func (w *world) runtimeClass(handler string, overhead corev1.ResourceList) string {
	rc := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: w.ns}, Handler: handler}
	if overhead != nil {
		rc.Overhead = &nodev1.Overhead{PodFixed: overhead}
	}
	must(api.NodeV1().RuntimeClasses().Create(ctx, rc, metav1.CreateOptions{}))
	w.Cleanup(func() { _ = api.NodeV1().RuntimeClasses().Delete(ctx, w.ns, metav1.DeleteOptions{}) })
	return w.ns
}

func runtimeClassAbsent(w *world) {
	_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("rc", "true", func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr(w.ns + "-nonexistent") }), metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	contains(err.Error(), fmt.Sprintf(`pod rejected: RuntimeClass "%s-nonexistent" not found`, w.ns))
}

func runtimeClassDeleted(w *world) {
	name := w.runtimeClass("runc", nil)
	done(api.NodeV1().RuntimeClasses().Delete(ctx, name, metav1.DeleteOptions{}))
	w.until(15*time.Second, "refused", func() error {
		_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("rc", "true", func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr(name) }), metav1.CreateOptions{DryRun: []string{"All"}})
		return differs("forbidden", apierrors.IsForbidden(err), true)
	})
}

func runtimeClass(overhead corev1.ResourceList) func(w *world) {
	return func(w *world) {
		name := w.runtimeClass("runc", overhead)
		w.create(pod("rc", "true", func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr(name) }))
		p := w.phase("rc", corev1.PodSucceeded)
		if overhead != nil {
			same("cpu overhead", p.Spec.Overhead.Cpu().String(), "10m")
			same("memory overhead", p.Spec.Overhead.Memory().String(), "1Mi")
		}
	}
}

func runtimeClassUnknownHandler(w *world) {
	name := w.runtimeClass("no-such-handler", nil)
	w.create(pod("rc", "true", func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr(name) }))
	w.event(30*time.Second, "rc", "FailedCreatePodSandBox", "no-such-handler")
}

func privileged(w *world) {
	w.prints(pod("privileged", "ip link add dummy1 type bridge && ip link del dummy1", first(secured(corev1.SecurityContext{Privileged: ptr(true)}))))
	w.create(pod("not", "ip link add dummy1 type bridge"))
	w.phase("not", corev1.PodFailed)
}

func hostNamespaces(w *world) {
	contains(w.prints(pod("pid", "ps", func(p *corev1.Pod) { p.Spec.HostPID = true })), "kubelet")
	p := w.create(pod("net", "ip addr", func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
	w.phase(p.Name, corev1.PodSucceeded)
	contains(w.log("net", "c"), w.get("net").Status.HostIP)
	same("pod IP", w.get("net").Status.PodIP, w.get("net").Status.HostIP)
}

func sharedProcesses(w *world) {
	w.ready(pod("shared", "sleep 4321", func(p *corev1.Pod) {
		p.Spec.ShareProcessNamespace = ptr(true)
		p.Spec.Containers = append(p.Spec.Containers, box("d", "sleep 1234"))
	}))
	text := must(w.exec("shared", "d", "ps"))
	contains(text, "sleep 4321")
	contains(text, "pause")
}
