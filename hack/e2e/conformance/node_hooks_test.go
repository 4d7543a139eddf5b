//go:build e2e

package conformance

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var nodeHooks = []behaviour{
	{name: "Container Lifecycle Hook should execute poststart exec hook properly", test: hook("post-exec", false, corev1.PodSpec{}, exec("poststart-exec"))},
	{name: "Container Lifecycle Hook should execute poststart http hook properly", test: hook("post-http", false, corev1.PodSpec{}, hookGet(corev1.URISchemeHTTP))},
	{name: "Container Lifecycle Hook should execute poststart https hook properly", test: hook("post-https", false, corev1.PodSpec{}, hookGet(corev1.URISchemeHTTPS))},
	{name: "Container Lifecycle Hook should execute prestop exec hook properly", test: hook("pre-exec", true, corev1.PodSpec{}, exec("prestop-exec"))},
	{name: "Container Lifecycle Hook should execute prestop http hook properly", test: hook("pre-http", true, corev1.PodSpec{}, hookGet(corev1.URISchemeHTTP))},
	{name: "Container Lifecycle Hook should execute prestop https hook properly", test: hook("pre-https", true, corev1.PodSpec{}, hookGet(corev1.URISchemeHTTPS))},
	{name: "Container Lifecycle Hook a sleeping prestop hook is waited for", test: hookSleeps},
	{name: "Container Lifecycle Hook a failing poststart hook kills the container", test: hookFails},
}

type handler func(server *corev1.Pod, note string) *corev1.LifecycleHandler

func exec(note string) handler {
	return func(server *corev1.Pod, _ string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "tester fetch 'http://" + server.Status.PodIP + ":8080/note?echo=" + note + "'"}}}
	}
}

func hookGet(scheme corev1.URIScheme) handler {
	return func(server *corev1.Pod, note string) *corev1.LifecycleHandler {
		port := int32(8080)
		if scheme == corev1.URISchemeHTTPS {
			port = 9090
		}
		return &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/note?echo=" + note, Host: server.Status.PodIP, Port: intPort(port), Scheme: scheme,
			HTTPHeaders: []corev1.HTTPHeader{{Name: "X-Note", Value: "header"}}}}
	}
}

// hook sees a hook reach the server: before the container is ready, or before it ends.
func hook(name string, stop bool, _ corev1.PodSpec, h handler) func(w *world) {
	return func(w *world) {
		s := w.ready(server("hook-server", []string{"-tls", "9090"}))
		p := pod(name, sleepScript, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(15)) })
		lifecycle := &corev1.Lifecycle{}
		handler := h(s, name)
		if stop {
			lifecycle.PreStop = handler
		} else {
			lifecycle.PostStart = handler
		}
		p.Spec.Containers[0].Lifecycle = lifecycle
		w.ready(p)
		if stop {
			w.remove(name)
		}
		w.until(30*time.Second, "the hook is seen", func() error {
			seen := w.sh("hook-server", "tester fetch http://127.0.0.1:8080/seen")
			return differs("heard of it", strings.Contains(seen, "echo="), true)
		})
		if handler.HTTPGet != nil {
			contains(w.sh("hook-server", "tester fetch http://127.0.0.1:8080/seen"), "echo="+name+" header")
		}
	}
}

func hookSleeps(w *world) {
	w.ready(pod("sleeps", sleepScript, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(30)) }, first(func(c *corev1.Container) {
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}}
	})))
	start := time.Now()
	w.remove("sleeps")
	if took := time.Since(start); took < 5*time.Second || took > 20*time.Second {
		fatal("gone after %s", took)
	}
}

func hookFails(w *world) {
	w.create(pod("post-fails", sleepScript, restart(corev1.RestartPolicyAlways), first(func(c *corev1.Container) {
		c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}}
	})))
	w.event(30*time.Second, "post-fails", "FailedPostStartHook", "")
	w.until(60*time.Second, "a restart", func() error { return differs("restarted", restarts(w.get("post-fails")) > 0, true) })
}
