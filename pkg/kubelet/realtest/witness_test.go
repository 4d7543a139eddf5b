package realtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// witness watches pods in the API and containers in the runtime, and complains of what must never be.
type witness struct {
	t     *testing.T
	space string
	cri   *cri.Client

	mu   sync.Mutex
	pods map[string]*life
	// said keeps a complaint from being made twice.
	said map[string]bool
}

// life is what was seen of a pod so far.
type life struct {
	pod *v1.Pod
	// dead is when the API was first told that nothing of it runs; forced is that it was deleted without grace.
	dead   time.Time
	forced bool
	// once are the instances seen of containers which must not run again, by name.
	once map[string]string
}

func newWitness(t *testing.T, space string) *witness {
	t.Helper()
	client, err := cri.Dial("unix://"+node.path("run/containerd.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{t: t, space: space, cri: client, pods: map[string]*life{}, said: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	events, err := node.admin.CoreV1().Pods(space).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range events.ResultChan() {
			if p, ok := e.Object.(*v1.Pod); ok {
				w.sees(p, e.Type == watch.Deleted)
			} else if ctx.Err() == nil {
				t.Errorf("the watch ended: %+v", e.Object)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = client.Close()
	})
	return w
}

// complain fails the test, with the pod's whole spec.
func (w *witness) complainLocked(p *v1.Pod, format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	if key := string(p.UID) + text; !w.said[key] {
		w.said[key] = true
		w.t.Errorf("pod %s %s: %s", p.Name, p.UID, text)
	}
}

func rank(p v1.PodPhase) int {
	switch p {
	case v1.PodRunning:
		return 1
	case v1.PodSucceeded, v1.PodFailed:
		return 2
	}
	return 0
}

func statusesOf(p *v1.Pod) []v1.ContainerStatus {
	var out []v1.ContainerStatus
	for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		out = append(out, list...)
	}
	return out
}

// sees compares what the API says with what it said before.
func (w *witness) sees(p *v1.Pod, deleted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.pods[string(p.UID)]
	if l == nil {
		l = &life{pod: p, once: map[string]string{}}
		w.pods[string(p.UID)] = l
	}
	old := l.pod
	l.pod = p
	if a, b := old.Status.Phase, p.Status.Phase; rank(b) < rank(a) || rank(a) == 2 && a != b {
		w.complainLocked(p, "its phase went from %s to %s", a, b)
	}
	if a, b := old.Status.StartTime, p.Status.StartTime; a != nil && !a.Equal(b) {
		w.complainLocked(p, "its start went from %s to %s", a, b)
	}
	for _, cs := range statusesOf(p) {
		if before := container(old, cs.Name); cs.RestartCount < before.RestartCount {
			w.complainLocked(p, "the restarts of %s went from %d to %d", cs.Name, before.RestartCount, cs.RestartCount)
		}
		if rank(p.Status.Phase) == 2 && cs.State.Running != nil {
			w.complainLocked(p, "it is %s while %s runs", p.Status.Phase, cs.Name)
		}
		if condition(p, v1.PodReady) == v1.ConditionTrue && !cs.Ready && container(&v1.Pod{Status: v1.PodStatus{ContainerStatuses: p.Status.ContainerStatuses}}, cs.Name).Name != "" {
			w.complainLocked(p, "it is ready while %s is not", cs.Name)
		}
	}
	if l.dead.IsZero() && (deleted && !l.forced || rank(p.Status.Phase) == 2) {
		l.dead = time.Now()
	}
}

// forces tells that a pod is deleted without grace: the API forgets it before the node does.
func (w *witness) forces(uid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.pods[uid]; l != nil {
		l.forced = true
	}
}

// look asks the runtime what runs and answers the containers by pod UID and name.
func (w *witness) look() map[string]string {
	asked := time.Now()
	out := map[string]string{}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := w.cri.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		return out // the runtime is being killed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range list.Containers {
		uid, name := k.Labels[cri.LabelPodUID], k.Labels[cri.LabelContainerName]
		l := w.pods[uid]
		if l == nil || k.Labels[cri.LabelPodNamespace] != w.space {
			continue
		}
		key := uid + "/" + name
		if out[key] != "" {
			w.complainLocked(l.pod, "%s has two lives: %s and %s", name, out[key], k.Id)
		}
		out[key] = k.Id
		// What was dead before the runtime was asked must not be told to live.
		if !l.dead.IsZero() && l.dead.Before(asked) && !l.forced {
			w.complainLocked(l.pod, "%s runs though the pod is %s", name, l.pod.Status.Phase)
		}
		if mustRunOnce(l.pod, name) {
			if first := l.once[name]; first != "" && first != k.Id {
				w.complainLocked(l.pod, "%s, which must not be restarted, ran as %s and as %s", name, first, k.Id)
			}
			l.once[name] = k.Id
		}
	}
	for key := range out {
		uid, name, _ := strings.Cut(key, "/")
		l := w.pods[uid]
		for _, c := range l.pod.Spec.InitContainers {
			if c.Name == name && c.RestartPolicy == nil && (out[uid+"/a"] != "" || out[uid+"/b"] != "") {
				w.complainLocked(l.pod, "init container %s runs beside those it initializes", name)
			}
		}
	}
	return out
}

// mustRunOnce tells of main containers which no policy starts again, and no other container's rules.
func mustRunOnce(p *v1.Pod, name string) bool {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if slices.ContainsFunc(c.RestartPolicyRules, func(r v1.ContainerRestartRule) bool {
			return r.Action == v1.ContainerRestartRuleActionRestartAllContainers
		}) {
			return false
		}
	}
	for _, c := range p.Spec.Containers {
		if c.Name == name {
			return p.Spec.RestartPolicy == v1.RestartPolicyNever && c.RestartPolicy == nil
		}
	}
	return false
}

// sandboxes complains of pods with two that are ready.
func (w *witness) sandboxes() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := w.cri.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}}})
	if err != nil {
		return // the runtime is being killed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[string]string{}
	for _, s := range list.Items {
		uid := s.GetMetadata().GetUid()
		if l := w.pods[uid]; l != nil && seen[uid] != "" {
			w.complainLocked(l.pod, "it has two sandboxes: %s and %s", seen[uid], s.Id)
		}
		seen[uid] = s.Id
	}
}

// remains is what the runtime still knows of the space's pods.
func (w *witness) remains() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	label := map[string]string{cri.LabelPodNamespace: w.space}
	containers, err := w.cri.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: label}})
	if err != nil {
		return err
	}
	boxes, err := w.cri.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: label}})
	if err != nil {
		return err
	}
	var what []string
	for _, k := range containers.Containers {
		what = append(what, fmt.Sprintf("container %s of %s %s", k.Id, k.Labels[cri.LabelPodName], k.Labels[cri.LabelPodUID]))
	}
	for _, s := range boxes.Items {
		what = append(what, fmt.Sprintf("sandbox %s of %s %s", s.Id, s.GetMetadata().GetName(), s.GetMetadata().GetUid()))
	}
	if len(what) > 0 {
		return fmt.Errorf("the runtime still has:\n  %s", strings.Join(what, "\n  "))
	}
	return nil
}
