//go:build e2e

package conformance

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// startLimit is how long a pod may take to start or end on a busy machine.
const startLimit = 90 * time.Second

type edit func(p *corev1.Pod)

// pod is a pod of one container that runs a shell script once.
func pod(name, script string, edits ...edit) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: ptr(int64(1)),
			Containers:                    []corev1.Container{box("c", script)},
		},
	}
	for _, e := range edits {
		e(p)
	}
	return p
}

// box is a container that runs a shell script.
func box(name, script string) corev1.Container {
	return corev1.Container{Name: name, Image: image, Command: []string{"sh", "-c", script}, ImagePullPolicy: corev1.PullIfNotPresent}
}

// server is a pod that runs the test server.
func server(name string, args []string, edits ...edit) *corev1.Pod {
	p := pod(name, "")
	p.Spec.Containers[0].Command = append([]string{"tester", "serve"}, args...)
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: httpGet("/hostname", 8080)}
	for _, e := range edits {
		e(p)
	}
	return p
}

// first is an edit of the first container.
func first(f func(c *corev1.Container)) edit {
	return func(p *corev1.Pod) { f(&p.Spec.Containers[0]) }
}

func restart(policy corev1.RestartPolicy) edit {
	return func(p *corev1.Pod) { p.Spec.RestartPolicy = policy }
}

func (w *world) create(p *corev1.Pod) *corev1.Pod {
	w.Helper()
	return must(api.CoreV1().Pods(w.ns).Create(ctx, p, metav1.CreateOptions{}))
}

func (w *world) get(name string) *corev1.Pod {
	w.Helper()
	return must(api.CoreV1().Pods(w.ns).Get(ctx, name, metav1.GetOptions{}))
}

// part reads a pod through one of its subresources.
func (w *world) part(name, subresource string) *corev1.Pod {
	w.Helper()
	p := &corev1.Pod{}
	done(api.CoreV1().RESTClient().Get().Namespace(w.ns).Resource("pods").Name(name).SubResource(subresource).Do(ctx).Into(p))
	return p
}

// phase waits for the pod to reach it; a pod that ended otherwise ends the row.
func (w *world) phase(name string, want corev1.PodPhase) *corev1.Pod {
	w.Helper()
	var p *corev1.Pod
	w.until(startLimit, "pod "+name+" "+string(want), func() error {
		p = w.get(name)
		if ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed; ended && p.Status.Phase != want {
			fatal("pod %s is %s, want %s: %s", name, p.Status.Phase, want, w.log(name, ""))
		}
		return differs("phase", p.Status.Phase, want)
	})
	return p
}

// prints runs a pod to its good end and answers what its first container said.
func (w *world) prints(p *corev1.Pod) string {
	w.Helper()
	p = w.create(p)
	w.phase(p.Name, corev1.PodSucceeded)
	return w.log(p.Name, p.Spec.Containers[0].Name)
}

// ready starts a pod and answers it when it is ready.
func (w *world) ready(p *corev1.Pod) *corev1.Pod {
	w.Helper()
	return w.isReady(w.create(p).Name)
}

func (w *world) isReady(name string) *corev1.Pod {
	w.Helper()
	var p *corev1.Pod
	w.until(startLimit, "pod "+name+" ready", func() error {
		p = w.get(name)
		if p.Status.Phase == corev1.PodFailed {
			fatal("pod %s failed", name)
		}
		return differs("ready", ready(p), true)
	})
	return p
}

// waits waits until the pod's first container waits for a reason.
func (w *world) waits(name, reason string) {
	w.Helper()
	w.until(startLimit, name+" waits", func() error {
		s := w.get(name).Status.ContainerStatuses
		if len(s) == 0 || s[0].State.Waiting == nil {
			return errGone
		}
		return differs("reason", s[0].State.Waiting.Reason, reason)
	})
}

func ready(p *corev1.Pod) bool {
	c := condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

func condition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

func (w *world) log(name, container string) string {
	w.Helper()
	raw := must(api.CoreV1().Pods(w.ns).GetLogs(name, &corev1.PodLogOptions{Container: container}).DoRaw(ctx))
	return strings.TrimSpace(string(raw))
}

// says waits until a container's log holds a text.
func (w *world) says(name, container, text string, limit time.Duration) {
	w.Helper()
	w.until(limit, fmt.Sprintf("%q in the log of %s/%s", text, name, container), func() error {
		raw, err := api.CoreV1().Pods(w.ns).GetLogs(name, &corev1.PodLogOptions{Container: container}).DoRaw(ctx)
		if err == nil && !strings.Contains(string(raw), text) {
			err = fmt.Errorf("it says %q", tail(string(raw)))
		}
		return err
	})
}

func tail(text string) string { return text[max(0, len(text)-300):] }

// exec runs a command in a pod's container and answers what it says, without the last line end.
func (w *world) exec(name, container string, command ...string) (string, error) {
	req := api.CoreV1().RESTClient().Post().Resource("pods").Namespace(w.ns).Name(name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	e, err := remotecommand.NewWebSocketExecutor(config, "GET", req.URL().String())
	if err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	if err := e.StreamWithContext(limited, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}); err != nil {
		return strings.TrimSpace(out.String()), fmt.Errorf("%v: %w: %s", command, err, errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// sh is exec of a script in the first container; its failure ends the row.
func (w *world) sh(name, script string) string {
	w.Helper()
	return must(w.exec(name, "", "sh", "-c", script))
}

// remove deletes a pod and waits until it is gone.
func (w *world) remove(name string) {
	w.Helper()
	done(api.CoreV1().Pods(w.ns).Delete(ctx, name, metav1.DeleteOptions{}))
	w.podGone(name)
}

func (w *world) podGone(name string) {
	w.Helper()
	w.until(startLimit, "pod "+name+" gone", func() error {
		_, err := api.CoreV1().Pods(w.ns).Get(ctx, name, metav1.GetOptions{})
		return absent(err)
	})
}

// absent is nil when the error says that something is not there.
func absent(err error) error {
	if err == nil {
		return fmt.Errorf("still there")
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// event waits for an event about an object.
func (w *world) event(limit time.Duration, about, reason, text string) {
	w.Helper()
	w.until(limit, fmt.Sprintf("event %s of %s", reason, about), func() error {
		list, err := api.CoreV1().Events(w.ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + about})
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Reason == reason && strings.Contains(e.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("%d others", len(list.Items))
	})
}

// volume adds a volume and mounts it in every container at /etc/<name>.
func volume(name string, source corev1.VolumeSource, mounts ...func(m *corev1.VolumeMount)) edit {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		for i := range p.Spec.Containers {
			m := corev1.VolumeMount{Name: name, MountPath: "/etc/" + name}
			for _, f := range mounts {
				f(&m)
			}
			p.Spec.Containers[i].VolumeMounts = append(p.Spec.Containers[i].VolumeMounts, m)
		}
	}
}

func env(name string, from *corev1.EnvVarSource) edit {
	return first(func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: name, ValueFrom: from}) })
}

func setenv(name, value string) edit {
	return first(func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: value}) })
}

func asUser(uid, gid int64) edit {
	return func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &uid}
		if gid > 0 {
			p.Spec.SecurityContext.RunAsGroup = &gid
		}
	}
}
