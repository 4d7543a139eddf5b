package lifecycle

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// stopping is a runtime that also stops sandboxes.
type stopping struct{ *asked }

func (s stopping) StopPodSandbox(context.Context, *runtimeapi.StopPodSandboxRequest, ...grpc.CallOption) (*runtimeapi.StopPodSandboxResponse, error) {
	s.note("stop")
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// telling writes down, among what the runtime is asked, which phases are told.
type telling struct {
	Statuses
	*asked
}

func (t telling) Set(_ *v1.Pod, st v1.PodStatus) { t.note("told " + string(st.Phase)) }

// healthy has nothing that could be ill.
type healthy struct{ Resources }

func (healthy) Health(*v1.Pod) map[string][]v1.ResourceStatus { return nil }

// ready has every volume there.
type ready struct{ folder }

func (ready) Setup(context.Context, *v1.Pod) error { return nil }

// TestToldBeforeStopped: that a pod has ended is told before its sandbox stops, unless it holds what the next waits for.
func TestToldBeforeStopped(t *testing.T) {
	plain := []string{"told Failed", "stop"}
	after := []string{"stop", "told Failed"}
	one := resource.MustParse("1")
	for name, c := range map[string]struct {
		change func(*v1.PodSpec)
		want   []string
	}{
		"plain": {func(*v1.PodSpec) {}, plain},
		"some cpu": {func(s *v1.PodSpec) {
			s.Containers[0].Ports = []v1.ContainerPort{{ContainerPort: 80}}
			s.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceCPU: one}
		}, plain},
		"port": {func(s *v1.PodSpec) { s.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80}} }, after},
		"device of an init container": {func(s *v1.PodSpec) {
			s.InitContainers = []v1.Container{{Name: "i", Resources: v1.ResourceRequirements{Limits: v1.ResourceList{"a.io/b": one}}}}
		}, after},
		"guaranteed": {func(s *v1.PodSpec) {
			s.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceCPU: one, v1.ResourceMemory: one}
		}, after},
		"huge pages of its own": {func(s *v1.PodSpec) {
			s.Resources = &v1.ResourceRequirements{Limits: v1.ResourceList{"hugepages-2Mi": one}}
		}, after},
		"claim": {func(s *v1.PodSpec) { s.ResourceClaims = []v1.PodResourceClaim{{Name: "c"}} }, after},
		"volume's claim": {func(s *v1.PodSpec) {
			s.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{}}}}
		}, after},
	} {
		t.Run(name, func(t *testing.T) {
			a := &asked{boxes: []*runtimeapi.PodSandbox{{Id: "s"}},
				containers: []*runtimeapi.ContainerStatus{{Id: "c1", Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, ImageRef: "i", State: runtimeapi.ContainerState_CONTAINER_EXITED, ExitCode: 137}}}
			pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"}, Spec: v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, Containers: []v1.Container{{Name: "c"}}}}
			c.change(&pod.Spec)
			m := New(Config{CRI: &cri.Client{RuntimeServiceClient: stopping{a}}, Statuses: telling{asked: a}, Runtime: func() string { return "" }, Resources: healthy{}, Volumes: ready{folder{path: t.TempDir()}}, Log: slog.New(slog.DiscardHandler)})
			w := newWorker(m, pod, false)
			var jobs sync.WaitGroup
			w.step(t.Context(), &jobs)
			jobs.Wait()
			got := slices.DeleteFunc(a.calls, func(s string) bool { return s != "stop" && s != "told Failed" })
			if !slices.Equal(got, c.want) {
				t.Error(got, c.want)
			}
		})
	}
}

func (t telling) Ended(*v1.Pod)        { t.note("ended") }
func (t telling) Forget(uid types.UID) { t.note("forgot " + string(uid)) }

// TestLastWord: the API is told that a deleted pod has ended, and of one that the API has no more nothing is remembered.
func TestLastWord(t *testing.T) {
	for gone, want := range map[bool]string{false: "ended", true: "forgot u"} {
		a := &asked{}
		m := New(Config{Statuses: telling{asked: a}, Volumes: folder{path: t.TempDir()}, Log: slog.New(slog.DiscardHandler)})
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}
		w := newWorker(m, pod, true)
		w.gone = gone
		w.purge(t.Context(), pod)
		if !slices.Equal(a.calls, []string{want}) {
			t.Errorf("gone %t: %v, want %s", gone, a.calls, want)
		}
	}
}
