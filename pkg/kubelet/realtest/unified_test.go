package realtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sextant-k8s/sextant/pkg/kubelet/usage"
)

// unified reads a file of a pod's cgroup of version 2, or of one of its containers'.
func (m *machine) unified(t *testing.T, p *v1.Pod, file, name string) string {
	t.Helper()
	class := strings.ToLower(string(p.Status.QOSClass))
	if class == "guaranteed" {
		class = ""
	}
	_, id, _ := strings.Cut(container(p, name).ContainerID, "://")
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", filepath.Base(m.dir), "kubepods", class, "pod"+string(p.UID), id, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// TestUnified is about cgroups of version 2, which hosts of tests seldom have: `make guest` runs it where they are. It tries whole pods:
// the tree of classes, requests and limits, changes of size, the end of a whole container when its memory is short, eviction when
// the node's is, and users of their own.
func TestUnified(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Log("this machine has cgroups of version 1; see `make guest`")
		return
	}
	s := newSpace(t)
	sizes := func(request, limit string) string {
		return fmt.Sprintf(`{restartPolicy: Never, containers: [{name: c, command: [sleep, "600"], resources: {requests: %s, limits: %s}}]}`, request, limit)
	}
	s.create("guaranteed", sizes("{cpu: 200m, memory: 64Mi}", "{cpu: 200m, memory: 64Mi}"))
	s.create("burstable", sizes("{cpu: 100m, memory: 32Mi}", "{memory: 128Mi}"))
	s.create("besteffort", sizes("{}", "{}"))
	is := func(p *v1.Pod, name, file, want string) {
		t.Helper()
		if got := node.unified(t, p, file, name); got != want {
			t.Errorf("%s/%s of %s is %q, want %q", name, file, p.Name, got, want)
		}
	}
	g, b, e := s.ready("guaranteed"), s.ready("burstable"), s.ready("besteffort")
	if node.engine.crun != "" {
		// crun keeps "status" where runc keeps "state.json".
		_, id, _ := strings.Cut(container(g, "c").ContainerID, "://")
		if _, err := os.Stat(node.path("crun/k8s.io/" + id + "/status")); err != nil {
			t.Error("crun does not run the containers:", err)
		}
	}
	for _, name := range []string{"", "c"} {
		is(g, name, "cpu.max", "20000 100000")
		is(g, name, "memory.max", "67108864")
		is(b, name, "cpu.max", "max 100000")
		is(b, name, "memory.max", "134217728")
		is(e, name, "memory.max", "max")
		is(e, name, "cpu.weight", "1")
	}
	if heavy, light := node.unified(t, g, "cpu.weight", ""), node.unified(t, b, "cpu.weight", ""); len(heavy) < len(light) || heavy == light {
		t.Errorf("200m weigh %s, 100m weigh %s", heavy, light)
	}
	is(g, "c", "memory.oom.group", "1")
	s.patch("guaranteed", `{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"300m","memory":"96Mi"},"limits":{"cpu":"300m","memory":"96Mi"}}}]}}`, "resize")
	p := s.until("guaranteed", "resized", func(p *v1.Pod) bool {
		r := container(p, "c").Resources
		return r != nil && r.Limits.Memory().Cmp(resource.MustParse("96Mi")) == 0 && condition(p, v1.PodResizeInProgress) == "" && container(p, "c").State.Running != nil
	})
	for _, name := range []string{"", "c"} {
		is(p, name, "cpu.max", "30000 100000")
		is(p, name, "memory.max", "100663296")
	}
	if container(p, "c").RestartCount != 0 {
		t.Error("the change of size restarted the container")
	}
	// A child which eats takes its parent along.
	s.create("oom", `{restartPolicy: Never, containers: [{name: c, command: [sh, -c, "tail /dev/zero; sleep 600"], resources: {limits: {memory: 24Mi}}}]}`)
	if c := container(s.ended("oom", v1.PodFailed), "c").State.Terminated; c.Reason != "OOMKilled" || c.ExitCode != 137 {
		t.Errorf("out of memory: %+v", c)
	}
	s.create("users", `{hostUsers: false, restartPolicy: Never, volumes: [{name: v, emptyDir: {}}], containers: [{name: c, command: [sh, -c, "touch /v/x && stat -c %u /v/x && [ $(cut -c11-21 < /proc/self/uid_map) -ge 65536 ] && echo mapped"], volumeMounts: [{name: v, mountPath: /v}]}]}`)
	if node.engine.crun == "" {
		s.ended("users", v1.PodSucceeded)
		s.logged("users", "0\nmapped\n")
	} else {
		// containerd 1.6 knows nothing of users, and would run the pod with the node's.
		s.event("users", "FailedCreatePodSandBox: Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces")
		s.gone("users")
	}
	for _, name := range []string{"guaranteed", "burstable"} {
		s.gone(name)
	}
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	node.shortage = fmt.Sprint(int64(usage.Memory()["MemAvailable"]) - 200<<20)
	if err := node.startKubelet(nil); err != nil {
		t.Fatal(err)
	}
	s.create("glutton", `{restartPolicy: Never, volumes: [{name: v, emptyDir: {medium: Memory}}], containers: [{name: c, command: [sh, -c, "dd if=/dev/zero of=/v/x bs=1M count=400; sleep 600"], volumeMounts: [{name: v, mountPath: /v}]}]}`)
	ended := s.ended("glutton", v1.PodFailed)
	if ended.Status.Reason != "Evicted" || !strings.HasPrefix(ended.Status.Message, "The node was low on resource: memory.") {
		t.Errorf("%s: %s", ended.Status.Reason, ended.Status.Message)
	}
	if s.get("besteffort").Status.Phase != v1.PodRunning {
		t.Error("who uses little was evicted too")
	}
	s.gone("glutton")
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	node.shortage = ""
	if err := node.startKubelet(nil); err != nil {
		t.Fatal(err)
	}
}
