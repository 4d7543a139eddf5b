package realtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// chance makes random but valid pods.
type chance struct{ *rand.Rand }

func (c chance) pod() string {
	pick := func(from ...string) string { return from[c.IntN(len(from))] }
	scripts := []string{"sleep 600", "exit 0", "exit 1", "sleep 0.5; exit 3", "trap 'exit 0' TERM; while true; do sleep 0.1; done", "trap '' TERM; while true; do sleep 0.1; done"}
	container := func(name string) string {
		out := fmt.Sprintf(`{name: %s, command: [sh, -c, %q]`, name, pick(scripts...))
		if c.IntN(3) == 0 {
			out += `, livenessProbe: {exec: {command: [sh, -c, "exit ` + pick("0", "1") + `"]}, periodSeconds: 1}`
		}
		if c.IntN(3) == 0 {
			out += `, volumeMounts: [{name: v, mountPath: /v` + pick("", ", subPath: s") + `}]`
		}
		if c.IntN(4) == 0 {
			out += `, resources: {limits: {cpu: 50m, memory: 32Mi}}`
		}
		return out + "}"
	}
	text := fmt.Sprintf(`{restartPolicy: %s, terminationGracePeriodSeconds: %d, volumes: [{name: v, emptyDir: {medium: %q}}], containers: [%s`,
		pick("Always", "OnFailure", "Never"), c.IntN(3), pick("", "Memory"), container("a"))
	if c.IntN(2) == 0 {
		text += ", " + container("b")
	}
	text += "]"
	if c.IntN(3) == 0 {
		text += `, initContainers: [{name: i, command: [sh, -c, "exit ` + pick("0", "0", "1") + `"]}` + pick("", `, {name: s, restartPolicy: Always, command: [sleep, "600"]}`) + "]"
	}
	return text + "}"
}

// TestWFuzz lives through half a minute of bad luck: pods come and go, processes, the runtime and the kubelet are killed.
// At no moment has a container two lives, and what main checks at the end, that nothing is left, holds.
func TestWFuzz(t *testing.T) {
	s := newSpace(t)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	c := chance{rand.New(rand.NewPCG(seed, 0))}
	client, err := cri.Dial("unix://"+node.path("run/containerd.sock"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // only read
	ctx := context.Background()
	living := func() map[string][]string {
		out := map[string][]string{}
		list, err := client.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}}})
		if err != nil {
			return out // the runtime is being killed
		}
		for _, k := range list.Containers {
			key := k.Labels[cri.LabelPodName] + "/" + k.Labels[cri.LabelPodUID] + "/" + k.Labels[cri.LabelContainerName]
			out[key] = append(out[key], k.Id)
		}
		for key, ids := range out {
			if len(ids) > 1 {
				t.Errorf("%s has %d lives: %v", key, len(ids), ids)
			}
		}
		return out
	}
	var names []string
	restarts, kills := 0, 0
	for begin := time.Now(); time.Since(begin) < 25*time.Second && !t.Failed(); time.Sleep(100 * time.Millisecond) {
		alive := living()
		switch n := c.IntN(20); {
		case n < 8 && len(names) < 12:
			name := fmt.Sprintf("p%d", c.IntN(1<<30))
			s.create(name, c.pod())
			names = append(names, name)
		case n < 12 && len(names) > 0:
			i := c.IntN(len(names))
			o := metav1.DeleteOptions{}
			if c.IntN(4) == 0 {
				zero := int64(0)
				o.GracePeriodSeconds = &zero
			}
			_ = node.admin.CoreV1().Pods(s.name).Delete(ctx, names[i], o)
			names = slices.Delete(names, i, i+1)
		case n < 16:
			for _, ids := range alive {
				_ = exec.Command(node.path("run/ctr"), "-a", node.path("run/containerd.sock"), "-n", "k8s.io", "tasks", "kill", "-s", "KILL", ids[0]).Run()
				break
			}
		case n == 18 && restarts < 3:
			restarts++
			if err := node.stopKubelet(); err != nil {
				t.Fatal(err)
			}
			if err := node.startKubelet(nil); err != nil {
				t.Fatal(err)
			}
		case n == 19 && kills < 2:
			kills++
			node.killRuntime(t)
		}
	}
	living()
	// Every wanted pod settles: it runs, it ended, or it waits for its next try.
	for _, name := range names {
		s.until(name, "settled", func(p *v1.Pod) bool {
			for _, cs := range append(slices.Clone(p.Status.InitContainerStatuses), p.Status.ContainerStatuses...) {
				if w := cs.State.Waiting; w != nil && strings.Contains(w.Reason, "Error") {
					return false
				}
			}
			return p.Status.Phase != "" && p.Status.StartTime != nil
		})
	}
}

// killRuntime ends containerd without a word and starts it again.
func (m *machine) killRuntime(t *testing.T) {
	t.Helper()
	m.killed = true
	for _, d := range m.daemon {
		if filepath.Base(d.Path) == "containerd" {
			if err := d.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = d.Wait()
		}
	}
	m.daemon = slices.DeleteFunc(m.daemon, func(d *exec.Cmd) bool { return d.ProcessState != nil })
	if err := m.runtimeUp(); err != nil {
		t.Fatal(err)
	}
}
