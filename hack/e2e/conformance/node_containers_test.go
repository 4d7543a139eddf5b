//go:build e2e

package conformance

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var nodeContainers = []behaviour{
	{name: "Container Runtime should report termination message as empty when pod succeeds and FallbackToLogsOnError", test: ends("echo -n ignored", corev1.TerminationMessageFallbackToLogsOnError, "", corev1.PodSucceeded)},
	{name: "Container Runtime should report termination message from file when pod succeeds and FallbackToLogsOnError", test: ends("echo -n OK >/dev/termination-log", corev1.TerminationMessageFallbackToLogsOnError, "OK", corev1.PodSucceeded)},
	{name: "Container Runtime should report termination message from log output if FallbackToLogsOnError", test: ends("echo -n DONE; exit 1", corev1.TerminationMessageFallbackToLogsOnError, "DONE", corev1.PodFailed)},
	{name: "Container Runtime should report termination message if TerminationMessagePath is set as non-root user and at a non-default path", test: endsElsewhere},
	{name: "Container Runtime when starting a container that exits should run with the expected status", test: exitStatus},
	{name: "Containers should use the image defaults if command and args are blank", test: imageDefaults},
	{name: "Containers should be able to override the image's default arguments", test: imageCommand(nil, []string{"-version"}, "CoreDNS")},
	{name: "Containers should be able to override the image's default command", test: imageCommand([]string{"/coredns", "-version"}, nil, "CoreDNS")},
	{name: "Containers should be able to override the image's default command and arguments", test: imageCommand([]string{"/coredns"}, []string{"-version"}, "CoreDNS")},
	{name: "Kubelet when scheduling a busybox command in a pod should print the output to logs", test: func(w *world) { same("log", w.prints(pod("log", "echo Hello World; sleep 1")), "Hello World") }},
	{name: "Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason", test: failsWithReason},
	{name: "Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete", test: failsDeleted},
	{name: "Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts", test: hostAliases},
	{name: "Kubelet when scheduling a read only busybox container should not write to root filesystem", test: readOnlyRoot},
	{name: "KubeletManagedEtcHosts should test kubelet managed /etc/hosts file", test: etcHosts},
	{name: "InitContainer should invoke init containers on a RestartNever pod", test: initContainers(corev1.RestartPolicyNever)},
	{name: "InitContainer should invoke init containers on a RestartAlways pod", test: initContainers(corev1.RestartPolicyAlways)},
	{name: "InitContainer should not start app containers if init containers fail on a RestartAlways pod", test: initFailsAlways},
	{name: "InitContainer should not start app containers and fail the pod if init containers fail on a RestartNever pod", test: initFailsNever},
	{name: "DNS should support configurable pod DNS nameservers", test: podDNS},
	{name: "Networking pods have the hostname and domain they ask for", test: podHostname},
	{name: "ImageVolume should succeed with pod", test: imageVolume},
	{name: "Sidecar containers start before and end after the others", test: sidecars},
}

func ends(script string, policy corev1.TerminationMessagePolicy, want string, phase corev1.PodPhase) func(w *world) {
	return func(w *world) {
		w.create(pod("ends", script, first(func(c *corev1.Container) {
			c.TerminationMessagePath, c.TerminationMessagePolicy = "/dev/termination-log", policy
		})))
		p := w.phase("ends", phase)
		same("message", p.Status.ContainerStatuses[0].State.Terminated.Message, want)
	}
}

func endsElsewhere(w *world) {
	w.create(pod("elsewhere", "echo -n DONE >/dev/termination-custom-log", first(func(c *corev1.Container) {
		c.TerminationMessagePath, c.TerminationMessagePolicy = "/dev/termination-custom-log", corev1.TerminationMessageReadFile
		c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr(int64(1000))}
	})))
	p := w.phase("elsewhere", corev1.PodSucceeded)
	same("message", p.Status.ContainerStatuses[0].State.Terminated.Message, "DONE")
}

func exitStatus(w *world) {
	// The third start goes on; before that each ends with 1.
	script := `echo x >>/etc/count/n; n=$(wc -l </etc/count/n); if [ $n -ge 3 ]; then %s; fi; exit 1`
	for _, c := range []struct {
		policy corev1.RestartPolicy
		then   string
		phase  corev1.PodPhase
		count  int32
		ready  bool
	}{
		{corev1.RestartPolicyAlways, "sleep 600", corev1.PodRunning, 2, true},
		{corev1.RestartPolicyOnFailure, "exit 0", corev1.PodSucceeded, 2, false},
		{corev1.RestartPolicyNever, "exit 0", corev1.PodFailed, 0, false},
	} {
		name := "exit-" + strings.ToLower(string(c.policy))
		w.create(pod(name, fmt.Sprintf(script, c.then), restart(c.policy), volume("count", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})))
		w.until(2*startLimit, name, func() error {
			p := w.get(name)
			if err := differs("restarts", restarts(p), c.count); err != nil {
				return err
			}
			if err := differs("ready", ready(p), c.ready); err != nil {
				return err
			}
			return differs("phase", p.Status.Phase, c.phase)
		})
		s := w.get(name).Status.ContainerStatuses[0].State
		if c.phase == corev1.PodRunning != (s.Running != nil) || (c.phase != corev1.PodRunning) != (s.Terminated != nil) {
			fatal("state %v", s)
		}
	}
}

func imageDefaults(w *world) {
	w.create(pod("defaults", "", first(func(c *corev1.Container) { c.Command = nil; c.Stdin = true })))
	w.isReady("defaults")
	contains(must(w.exec("defaults", "", "cat", "/proc/1/cmdline")), "sh")
}

func imageCommand(command, args []string, want string) func(w *world) {
	return func(w *world) {
		contains(w.prints(pod("command", "", first(func(c *corev1.Container) { c.Image, c.Command, c.Args = coredns, command, args }))), want)
	}
}

func failsWithReason(w *world) {
	w.create(pod("fails", "", restart(corev1.RestartPolicyAlways), first(func(c *corev1.Container) { c.Command = []string{"/bin/false"} })))
	w.until(startLimit, "a reason", func() error {
		s := w.get("fails").Status.ContainerStatuses
		if len(s) != 1 || s[0].State.Terminated == nil && s[0].LastTerminationState.Terminated == nil {
			return errGone
		}
		t := s[0].State.Terminated
		if t == nil {
			t = s[0].LastTerminationState.Terminated
		}
		if t.ExitCode == 0 || t.Reason == "" {
			fatal("exit code %d, reason %q", t.ExitCode, t.Reason)
		}
		return nil
	})
}

func failsDeleted(w *world) {
	w.create(pod("fails", "", restart(corev1.RestartPolicyAlways), first(func(c *corev1.Container) { c.Command = []string{"/bin/false"} })))
	w.remove("fails")
}

func hostAliases(w *world) {
	text := w.prints(pod("aliases", "cat /etc/hosts", func(p *corev1.Pod) {
		p.Spec.HostAliases = []corev1.HostAlias{{IP: "123.45.67.89", Hostnames: []string{"foo", "bar"}}}
	}))
	contains(text, "# Kubernetes-managed hosts file.")
	contains(text, "123.45.67.89\tfoo\tbar")
	contains(text, "# Entries added by HostAliases.")
}

func readOnlyRoot(w *world) {
	text := w.prints(pod("read-only", "echo test > /file; sleep 1; true", first(func(c *corev1.Container) {
		c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr(true)}
	})))
	contains(text, "Read-only file system")
}

func etcHosts(w *world) {
	own := corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc/hosts", Type: ptr(corev1.HostPathFile)}}
	build := func(name string, hostNetwork bool) *corev1.Pod {
		p := pod(name, sleepScript, func(p *corev1.Pod) {
			p.Spec.HostNetwork = hostNetwork
			p.Spec.SecurityContext = &corev1.PodSecurityContext{}
			p.Spec.Containers = append(p.Spec.Containers, box("b", sleepScript))
		})
		p.Spec.Volumes = []corev1.Volume{{Name: "own", VolumeSource: own}}
		third := box("own", sleepScript)
		third.VolumeMounts = []corev1.VolumeMount{{Name: "own", MountPath: "/etc/hosts"}}
		p.Spec.Containers = append(p.Spec.Containers, third)
		for i := range p.Spec.Containers {
			p.Spec.Containers[i].VolumeMounts = append(p.Spec.Containers[i].VolumeMounts, corev1.VolumeMount{Name: "own", MountPath: "/etc/hosts-original"})
		}
		return p
	}
	const mark = "# Kubernetes-managed hosts file"
	w.ready(build("pod-net", false))
	for _, c := range []string{"c", "b"} {
		contains(must(w.exec("pod-net", c, "cat", "/etc/hosts")), mark)
	}
	if text := must(w.exec("pod-net", "own", "cat", "/etc/hosts")); strings.Contains(text, mark) {
		fatal("the container's own mount is hidden: %s", text)
	}
	w.ready(build("host-net", true))
	for _, c := range []string{"c", "own"} {
		hosts, original := must(w.exec("host-net", c, "cat", "/etc/hosts")), must(w.exec("host-net", c, "cat", "/etc/hosts-original"))
		contains(hosts, strings.TrimSpace(original))
	}
}

func initContainers(policy corev1.RestartPolicy) func(w *world) {
	return func(w *world) {
		follow := must(api.CoreV1().Pods(w.ns).Watch(ctx, metav1.ListOptions{LabelSelector: "name=init"}))
		defer follow.Stop()
		script := "true"
		if policy == corev1.RestartPolicyAlways {
			script = sleepScript
		}
		w.create(pod("init", script, restart(policy), func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{box("init1", "true"), box("init2", "true")}
		}))
		if policy == corev1.RestartPolicyNever {
			w.phase("init", corev1.PodSucceeded)
		} else {
			w.isReady("init")
		}
		p := w.get("init")
		c := condition(p, corev1.PodInitialized)
		if c == nil || c.Status != corev1.ConditionTrue {
			fatal("initialized: %v", c)
		}
		same("init statuses", len(p.Status.InitContainerStatuses), 2)
		for _, s := range p.Status.InitContainerStatuses {
			if !s.Ready || s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 {
				fatal("init status %v", s)
			}
		}
	}
}

func initFailsAlways(w *world) {
	w.create(pod("init-fails", sleepScript, restart(corev1.RestartPolicyAlways), func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{box("init1", "false"), box("init2", "true")}
	}))
	w.until(2*startLimit, "three restarts of the first", func() error {
		p := w.get("init-fails")
		if len(p.Status.InitContainerStatuses) != 2 {
			return errGone
		}
		one, two, app := p.Status.InitContainerStatuses[0], p.Status.InitContainerStatuses[1], p.Status.ContainerStatuses[0]
		if two.State.Waiting == nil || two.State.Waiting.Reason != "PodInitializing" || app.State.Waiting == nil || app.State.Waiting.Reason != "PodInitializing" {
			fatal("second %v, app %v", two.State, app.State)
		}
		same("phase", p.Status.Phase, corev1.PodPending)
		if one.RestartCount < 2 {
			return differs("restarts", one.RestartCount, 2)
		}
		return nil
	})
	c := condition(w.get("init-fails"), corev1.PodInitialized)
	same("initialized", c.Status, corev1.ConditionFalse)
	same("reason", c.Reason, "ContainersNotInitialized")
	same("message", c.Message, "containers with incomplete status: [init1 init2]")
}

func initFailsNever(w *world) {
	w.create(pod("init-never", "true", func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{box("init1", "true"), box("init2", "false")}
	}))
	p := w.phase("init-never", corev1.PodFailed)
	c := condition(p, corev1.PodInitialized)
	same("initialized", c.Status, corev1.ConditionFalse)
	same("reason", c.Reason, "ContainersNotInitialized")
	same("message", c.Message, "containers with incomplete status: [init2]")
	if s := p.Status.ContainerStatuses[0].State; s.Waiting == nil || s.Waiting.Reason != "PodInitializing" {
		fatal("app container %v", s)
	}
}

func podDNS(w *world) {
	text := w.prints(pod("dns", "cat /etc/resolv.conf", func(p *corev1.Pod) {
		p.Spec.DNSPolicy = corev1.DNSNone
		p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"resolv.conf.local"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("2")}}}
	}))
	contains(text, "nameserver 1.1.1.1")
	contains(text, "search resolv.conf.local")
	contains(text, "options ndots:2")
	text = w.prints(pod("dns-first", "cat /etc/resolv.conf"))
	contains(text, "nameserver 10.96.0.10")
	contains(text, "search "+w.ns+".svc.cluster.local svc.cluster.local cluster.local")
	contains(text, "options ndots:5")
}

func podHostname(w *world) {
	text := w.prints(pod("named", "hostname; hostname -f; cat /etc/hosts", func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "host-x", "sub-y" }))
	contains(text, "host-x\nhost-x.sub-y."+w.ns+".svc.cluster.local")
	same("hostname", w.prints(pod("plain", "hostname")), "plain")
	same("hostname", w.prints(pod("fqdn", "hostname", func(p *corev1.Pod) {
		p.Spec.Hostname, p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = "a", "b", ptr(true)
	})), "a.b."+w.ns+".svc.cluster.local")
}

func imageVolume(w *world) {
	text := w.prints(pod("image-volume", "ls /etc/img /etc/sub; echo x >/etc/img/file && echo writable; true",
		volume("img", corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: pauseImage, PullPolicy: corev1.PullIfNotPresent}}),
		volume("sub", corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: image, PullPolicy: corev1.PullIfNotPresent}}, func(m *corev1.VolumeMount) { m.SubPath = "bin" })))
	contains(text, "pause")
	contains(text, "busybox")
	if strings.Contains(text, "writable") {
		fatal("an image volume can be written: %s", text)
	}
}

func sidecars(w *world) {
	p := pod("sidecar", "for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /etc/shared/up ] && exit 0; sleep 0.2; done; exit 1")
	side := box("side", "touch /etc/shared/up; trap 'exit 0' TERM; while :; do sleep 1; done")
	side.RestartPolicy = ptr(corev1.ContainerRestartPolicyAlways)
	side.StartupProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: execProbe("test", "-e", "/etc/shared/up")}
	side.VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: "/etc/shared"}}
	p.Spec.InitContainers = []corev1.Container{side}
	volume("shared", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})(p)
	w.create(p)
	p = w.phase("sidecar", corev1.PodSucceeded)
	w.until(10*time.Second, "the sidecar ended", func() error {
		p = w.get("sidecar")
		return differs("terminated", p.Status.InitContainerStatuses[0].State.Terminated != nil, true)
	})
	same("restarts", p.Status.InitContainerStatuses[0].RestartCount, 0)
}
