package realtest

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"sigs.k8s.io/yaml"
)

// patience is how long a test waits for what should happen soon on a busy machine.
const patience = 60 * time.Second

// space is one test's namespace.
type space struct {
	t    *testing.T
	name string
}

// newSpace makes the namespace and the account pods run as; what is in it goes when the test ends.
func newSpace(t *testing.T) *space {
	t.Helper()
	name := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "-"), "-")
	s := &space{t, name[:min(len(name), 60)]}
	ctx := context.Background()
	_, err := node.admin.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name}}, metav1.CreateOptions{})
	if err == nil {
		_, err = node.admin.CoreV1().ServiceAccounts(s.name).Create(ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.explain()
		}
		grace := int64(0)
		pods, _ := node.admin.CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{})
		for _, p := range pods.Items {
			g := int64(1)
			if p.Annotations[v1.MirrorPodAnnotationKey] != "" {
				g = grace
			}
			_ = node.admin.CoreV1().Pods(s.name).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &g})
		}
	})
	return s
}

// explain says what a failed test's pods were like.
func (s *space) explain() {
	pods, err := node.admin.CoreV1().Pods(s.name).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		s.t.Log(err)
		return
	}
	for _, p := range pods.Items {
		raw, _ := yaml.Marshal(p.Status)
		s.t.Logf("pod %s:\n%s", p.Name, raw)
	}
	for _, e := range s.events("") {
		s.t.Log("event:", e)
	}
}

// pod reads a pod from YAML: its spec only when it does not begin with apiVersion. What no test cares about is filled in.
func (s *space) pod(name, spec string) *v1.Pod {
	s.t.Helper()
	p := &v1.Pod{}
	var err error
	if strings.HasPrefix(strings.TrimSpace(spec), "metadata:") {
		err = yaml.UnmarshalStrict([]byte(spec), p)
	} else {
		err = yaml.UnmarshalStrict([]byte(spec), &p.Spec)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	p.Name, p.Namespace = name, s.name
	if p.Spec.NodeName == "" {
		p.Spec.NodeName = nodeName
	}
	if p.Spec.AutomountServiceAccountToken == nil {
		no := false
		p.Spec.AutomountServiceAccountToken = &no
	}
	if p.Spec.TerminationGracePeriodSeconds == nil {
		grace := int64(1)
		p.Spec.TerminationGracePeriodSeconds = &grace
	}
	for _, list := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if list[i].Image == "" {
				list[i].Image = image
			}
		}
	}
	return p
}

func (s *space) create(name, spec string) *v1.Pod {
	s.t.Helper()
	p, err := node.admin.CoreV1().Pods(s.name).Create(context.Background(), s.pod(name, spec), metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *space) get(name string) *v1.Pod {
	s.t.Helper()
	p, err := node.admin.CoreV1().Pods(s.name).Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// until waits for a pod to be as asked, and sees every state it goes through.
func (s *space) until(name, what string, ok func(*v1.Pod) bool) *v1.Pod {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ctx.Err() == nil {
		w, err := node.admin.CoreV1().Pods(s.name).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		for e := range w.ResultChan() {
			p, is := e.Object.(*v1.Pod)
			if e.Type == watch.Deleted {
				s.t.Fatalf("pod %s was deleted before it was %s", name, what)
			}
			if is && ok(p) {
				w.Stop()
				return p
			}
		}
	}
	s.t.Fatalf("pod %s is not %s", name, what)
	return nil
}

func (s *space) ready(name string) *v1.Pod {
	s.t.Helper()
	return s.until(name, "ready", func(p *v1.Pod) bool { return condition(p, v1.PodReady) == v1.ConditionTrue })
}

func (s *space) running(name string) *v1.Pod {
	s.t.Helper()
	return s.until(name, "running", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodRunning })
}

// ended waits for the pod to end in the given phase.
func (s *space) ended(name string, phase v1.PodPhase) *v1.Pod {
	s.t.Helper()
	p := s.until(name, "ended", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed })
	if p.Status.Phase != phase {
		s.t.Fatalf("pod %s ended as %s (%s: %s), want %s; it said %q", name, p.Status.Phase, p.Status.Reason, p.Status.Message, phase, s.logs(name, nil))
	}
	return p
}

// gone deletes the pod with its own grace and waits until the API has no such object.
func (s *space) gone(name string) time.Duration {
	s.t.Helper()
	begin := time.Now()
	if err := node.admin.CoreV1().Pods(s.name).Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
	err := within(patience, func() error {
		_, err := node.admin.CoreV1().Pods(s.name).Get(context.Background(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("pod %s is still there (%v)", name, err)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return time.Since(begin)
}

// says runs the command in one container to its end and answers what it printed.
func (s *space) says(name, spec string) string {
	s.t.Helper()
	s.create(name, spec)
	s.ended(name, v1.PodSucceeded)
	return s.logs(name, nil)
}

func (s *space) logs(name string, o *v1.PodLogOptions) string {
	if o == nil {
		o = &v1.PodLogOptions{}
	}
	raw, err := node.admin.CoreV1().Pods(s.name).GetLogs(name, o).DoRaw(context.Background())
	if err != nil {
		return "error: " + err.Error() + string(raw)
	}
	return string(raw)
}

// logged waits until a pod's log is exactly as wanted.
func (s *space) logged(name, want string) {
	s.t.Helper()
	got := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = s.logs(name, nil); got == want {
			return
		}
	}
	s.t.Errorf("the log of %s is %q, want %q", name, got, want)
}

// exec runs a command in a running container through the API and answers its output.
func (s *space) exec(pod, container string, command ...string) (string, error) {
	req := node.admin.CoreV1().RESTClient().Post().Resource("pods").Namespace(s.name).Name(pod).SubResource("exec").
		VersionedParams(&v1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	e, err := remotecommand.NewWebSocketExecutor(node.rest, "GET", req.URL().String())
	if err != nil {
		return "", err
	}
	var out strings.Builder
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: io.Discard})
	return out.String(), err
}

// shows waits until a command in a running container prints what is wanted.
func (s *space) shows(pod, want string, command ...string) {
	s.t.Helper()
	got, err := "", error(nil)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if got, err = s.exec(pod, "c", command...); err == nil && strings.TrimSpace(got) == want {
			return
		}
	}
	s.t.Fatalf("%v in %s printed %q (%v), want %q", command, pod, got, err, want)
}

// events are the namespace's, as "reason: message", of one pod or of all.
func (s *space) events(pod string) []string {
	list, err := node.admin.CoreV1().Events(s.name).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, e := range list.Items {
		if pod == "" || e.InvolvedObject.Name == pod {
			out = append(out, e.Reason+": "+e.Message)
		}
	}
	return out
}

// event waits for one whose text begins with what is wanted.
func (s *space) event(pod, prefix string) {
	s.t.Helper()
	err := within(patience, func() error {
		for _, e := range s.events(pod) {
			if strings.HasPrefix(e, prefix) {
				return nil
			}
		}
		return fmt.Errorf("no event %q of pod %s", prefix, pod)
	})
	if err != nil {
		s.t.Error(err)
	}
}

func condition(p *v1.Pod, t v1.PodConditionType) v1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c.Status
		}
	}
	return ""
}

// container is the status of one, of any kind.
func container(p *v1.Pod, name string) v1.ContainerStatus {
	for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for _, c := range list {
			if c.Name == name {
				return c
			}
		}
	}
	return v1.ContainerStatus{}
}

// patch changes a pod, or a subresource of it, by a strategic merge patch.
func (s *space) patch(name, body string, sub ...string) *v1.Pod {
	s.t.Helper()
	p, err := node.admin.CoreV1().Pods(s.name).Patch(context.Background(), name, types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{}, sub...)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}
