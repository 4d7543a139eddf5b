//go:build e2e

package conformance

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var nodeVolumes = []behaviour{
	{name: "Volumes should be of their host path's kind, read-only where asked, and seen by the group", test: volumesAsked},
}

func volumesAsked(w *world) {
	dir := corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/none/such", Type: ptr(corev1.HostPathDirectory)}}
	w.create(pod("no-dir", "true", volume("v", dir)))
	w.event(60*time.Second, "no-dir", "FailedMount", "hostPath type check failed")
	w.configMap("m", map[string]string{"k": "v"})
	text := w.prints(pod("modes", `touch /etc/r/x 2>&1; touch /etc/m/x 2>&1; stat -c %g:%a /etc/g; cat /etc/g/made 2>&1; touch /etc/g/made; stat -c %g /etc/g/made`,
		func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(4321)), RunAsUser: ptr(int64(1000)), FSGroupChangePolicy: ptr(corev1.FSGroupChangeOnRootMismatch)}
		},
		volume("r", emptyDir(""), func(m *corev1.VolumeMount) { m.ReadOnly = true }), volume("g", emptyDir("")), volume("m", filesOf{}.source("m", nil, nil, nil))))
	contains(text, "/etc/r/x: Read-only file system")
	contains(text, "/etc/m/x: Read-only file system")
	contains(text, "4321:2777")
	same("group of what is made", strings.HasSuffix(text, "\n4321"), true)
}
