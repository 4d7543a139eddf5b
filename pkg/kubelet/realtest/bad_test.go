package realtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// signal sends one to a daemon of the machine.
func (m *machine) signal(t *testing.T, name string, sig syscall.Signal) {
	t.Helper()
	for _, d := range m.daemon {
		if filepath.Base(d.Path) == name {
			if err := d.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// nodeReady waits for the node's Ready condition and answers its message.
func nodeReady(t *testing.T, want v1.ConditionStatus) string {
	t.Helper()
	message := ""
	err := within(patience, func() error {
		n, err := node.admin.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == v1.NodeReady {
				message = c.Message
				if c.Status == want {
					return nil
				}
			}
		}
		return fmt.Errorf("the node's Ready is not %s: %s", want, message)
	})
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// TestVRuntimeHangs: while the runtime takes calls and answers none, the node says so and nothing is lost; then all goes on.
func TestVRuntimeHangs(t *testing.T) {
	s := newSpace(t)
	s.create("runs", `{containers: [{name: c, command: [sleep, "600"]}]}`)
	s.create("goes", `{containers: [{name: c, command: [sleep, "600"]}]}`)
	before := s.ready("runs")
	s.ready("goes")
	node.signal(t, "containerd", syscall.SIGSTOP)
	defer node.signal(t, "containerd", syscall.SIGCONT)
	s.create("comes", `{containers: [{name: c, command: [sleep, "600"]}]}`)
	if err := node.admin.CoreV1().Pods(s.name).Delete(context.Background(), "goes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if m := nodeReady(t, v1.ConditionFalse); !strings.Contains(m, "container runtime is down") {
		t.Errorf("the node says %q", m)
	}
	if p := s.get("runs"); p.Status.Phase != v1.PodRunning {
		t.Errorf("what runs is told to be %s", p.Status.Phase)
	}
	node.signal(t, "containerd", syscall.SIGCONT)
	nodeReady(t, v1.ConditionTrue)
	s.ready("comes")
	err := within(patience, func() error {
		if _, err := node.admin.CoreV1().Pods(s.name).Get(context.Background(), "goes", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("not deleted: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if a, b := container(before, "c"), container(s.ready("runs"), "c"); a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		t.Errorf("it did not run through: %+v", b)
	}
}

// TestVRuntimeForgets: a runtime whose tasks and sandboxes are removed behind the kubelet's back is one which lost its
// state; the pod is made anew, and what ran before does not run beside it.
func TestVRuntimeForgets(t *testing.T) {
	s := newSpace(t)
	s.create("p", `{containers: [{name: c, command: [sleep, "600"]}]}`)
	before := s.ready("p")
	// A process in the pod's cgroup which the runtime knows nothing of, as its own are when its records are gone.
	stray := stray(t, before)
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	forget(t, string(before.UID))
	if err := node.startKubelet(nil); err != nil {
		t.Fatal(err)
	}
	p := s.until("p", "made anew", func(p *v1.Pod) bool {
		return condition(p, v1.PodReady) == v1.ConditionTrue && container(p, "c").ContainerID != container(before, "c").ContainerID
	})
	if p.UID != before.UID {
		t.Error("another pod")
	}
	select {
	case <-stray:
	case <-time.After(patience):
		t.Error("what ran before still runs")
	}
}

// TestVDisk: a full disk and one which has become read-only are told of in the pod's events; when it is mended the pod runs.
func TestVDisk(t *testing.T) {
	s := newSpace(t)
	s.configMap("k", map[string]string{"a": strings.Repeat("x", 100_000)})
	dir := node.path("kubelet/pods")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := within(patience, func() error { return unix.Unmount(dir, 0) }); err != nil {
			t.Error(err)
		}
	}()
	const spec = `{volumes: [{name: v, configMap: {name: k}}], containers: [{name: c, command: [sleep, "600"], volumeMounts: [{name: v, mountPath: /v}]}]}`
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 240<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s.create("full", spec)
	s.event("full", `FailedMount: MountVolume.SetUp failed for volume "v" : `)
	if all := strings.Join(s.events("full"), "\n"); !strings.Contains(all, "no space left on device") {
		t.Error(all)
	}
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	s.ready("full")
	s.gone("full")
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|flags, "size=256k"); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	s.create("readonly", spec)
	s.event("readonly", `FailedMount: `)
	if all := strings.Join(s.events("readonly"), "\n"); !strings.Contains(all, "read-only file system") {
		t.Error(all)
	}
	remount(0)
	s.ready("readonly")
	s.gone("readonly")
}

// stray starts a process in a pod's cgroup; the channel closes when it is killed.
func stray(t *testing.T, p *v1.Pod) <-chan struct{} {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	class, base := strings.ToLower(string(p.Status.QOSClass)), filepath.Base(node.dir)
	dirs, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", base, "kubepods", class, "pod"+string(p.UID)))
	own, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", base, "kubepods", class, "pod"+string(p.UID)))
	joined := 0
	for _, dir := range append(dirs, own...) {
		if os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0o600) == nil {
			joined++
		}
	}
	if joined == 0 {
		t.Fatal("the stray is in no cgroup")
	}
	return done
}

// forget removes a pod from the runtime by force.
func forget(t *testing.T, uid string) {
	t.Helper()
	client, err := cri.Dial("unix://"+node.path("run/containerd.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // it was only asked
	ctx := context.Background()
	list, err := client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{cri.LabelPodUID: uid}}})
	if err != nil || len(list.Items) == 0 {
		t.Fatal("no sandbox: ", err)
	}
	for _, sb := range list.Items {
		_, err := client.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: sb.Id})
		if err == nil {
			_, err = client.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sb.Id})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
