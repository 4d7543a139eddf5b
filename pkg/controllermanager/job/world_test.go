package job

import (
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world plays everybody else: the apiserver and the kubelets.
type world struct {
	now    time.Time
	job    *batchv1.Job
	pods   []*corev1.Pod
	made   int
	memory Memory
}

func newWorld(j *batchv1.Job) *world {
	return &world{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), job: j}
}

// turn lets the job decide once, and does what it plans; "" says that it had nothing to do.
func (w *world) turn() (string, Plan) {
	var seen []*corev1.Pod
	for _, p := range w.pods {
		seen = append(seen, p.DeepCopy())
	}
	p := decide(Snapshot{Job: w.job.DeepCopy(), Pods: seen, Settled: true, Memory: w.memory, Now: w.now})
	w.memory = p.Memory
	if p.Status != nil {
		w.job.Status = *p.Status
	}
	for _, x := range append(slices.Clone(p.Free), p.Drop...) {
		w.pod(x.Name).Finalizers = nil
	}
	for _, x := range append(slices.Clone(p.Drop), p.End...) {
		w.delete(x.Name)
	}
	for _, b := range p.Create {
		w.made++
		made := newPod(w.job, b)
		made.Name = fmt.Sprint(w.job.Name, "-", w.made)
		if b.Index >= 0 {
			made.Name = fmt.Sprint(w.job.Name, "-", b.Index, "-", w.made)
		}
		made.UID, made.CreationTimestamp, made.Status.Phase = types.UID("u"+fmt.Sprint(w.made)), metav1.NewTime(w.now), corev1.PodPending
		w.pods = append(w.pods, made)
	}
	w.sweep()
	return p.String(), p
}

func (w *world) pod(name string) *corev1.Pod {
	for _, p := range w.pods {
		if p.Name == name {
			return p
		}
	}
	return &corev1.Pod{} // it is gone
}

func (w *world) delete(name string) {
	p := w.pod(name)
	if p.DeletionTimestamp == nil {
		at := metav1.NewTime(w.now)
		p.DeletionTimestamp = &at
	}
}

// sweep lets go of deleted pods that have ended and that nobody holds.
func (w *world) sweep() {
	w.pods = slices.DeleteFunc(w.pods, func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil && over(p) && !holds(p) })
}

// start lets every pending pod run.
func (w *world) start() {
	for _, p := range w.pods {
		if p.Status.Phase == corev1.PodPending && p.DeletionTimestamp == nil {
			p.Spec.NodeName, p.Status.Phase = "n1", corev1.PodRunning
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
	}
}

// end ends a pod with an exit code.
func (w *world) end(p *corev1.Pod, code int32) {
	p.Status.Phase = corev1.PodSucceeded
	if code != 0 {
		p.Status.Phase = corev1.PodFailed
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.NewTime(w.now)}}}}
}

// reap lets every pod that is being deleted end.
func (w *world) reap() {
	for _, p := range w.pods {
		if p.DeletionTimestamp != nil && !over(p) {
			w.end(p, 143)
		}
	}
	w.sweep()
}

func (w *world) String() string {
	var b strings.Builder
	for _, p := range w.pods {
		fmt.Fprintf(&b, "%s %s", p.Name, p.Status.Phase)
		if p.DeletionTimestamp != nil {
			b.WriteString(" terminating")
		}
		if holds(p) {
			b.WriteString(" held")
		}
		b.WriteString("\n")
	}
	return b.String()
}
