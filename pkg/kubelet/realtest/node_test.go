package realtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStaticPods(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	manifest := func(text string) string {
		return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: %s}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "%s", command: [sh, -c, "echo %s; sleep 600"]}]}}`, s.name, image, text)
	}
	file := node.path("manifests/web.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(manifest(text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name := "web-" + nodeName
	find := func(ok func(*v1.Pod) bool) error {
		return within(patience, func() error {
			p, err := node.admin.CoreV1().Pods(s.name).Get(context.Background(), name, metav1.GetOptions{})
			if err == nil && !ok(p) {
				err = fmt.Errorf("phase %s, uid %s", p.Status.Phase, p.UID)
			}
			return err
		})
	}
	up := func(p *v1.Pod) bool { return condition(p, v1.PodReady) == v1.ConditionTrue }
	write("one")
	if err := find(up); err != nil {
		t.Fatal(err)
	}
	p := s.get(name)
	if p.Annotations[v1.MirrorPodAnnotationKey] == "" || p.Annotations["kubernetes.io/config.source"] != "file" || len(p.OwnerReferences) != 1 || p.OwnerReferences[0].Kind != "Node" {
		t.Errorf("%+v", p.ObjectMeta)
	}
	s.logged(name, "one\n")
	// Who deletes the mirror deletes a picture: it comes back and the container runs on.
	id := container(p, "c").ContainerID
	zero := int64(0)
	if err := node.admin.CoreV1().Pods(s.name).Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	if err := find(func(n *v1.Pod) bool { return n.UID != p.UID && up(n) && container(n, "c").ContainerID == id }); err != nil {
		t.Error("the mirror did not come back:", err)
	}
	write("two")
	if err := find(func(n *v1.Pod) bool { return up(n) && container(n, "c").ContainerID != id }); err != nil {
		t.Error("the change was not taken:", err)
	}
	s.logged(name, "two\n")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	err := within(patience, func() error {
		_, err := node.admin.CoreV1().Pods(s.name).Get(context.Background(), name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the mirror is still there: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestCopiedManifest puts a pod of the API into the folder as it is, UID and all: the pod runs on, the copy is told of, and
// runs when it has a UID of its own.
func TestCopiedManifest(t *testing.T) {
	s := newSpace(t)
	s.create("one", `{terminationGracePeriodSeconds: 1, containers: [{name: c, command: [sleep, "600"]}]}`)
	p := s.running("one")
	file := node.path("manifests/copied.yaml")
	write := func(uid string) {
		text := fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: copy, namespace: %s, uid: %q}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "%s", command: [sleep, "600"]}]}}`, s.name, uid, image)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(p.UID))
	defer func() { _ = os.Remove(file) }()
	if err := within(patience, func() error {
		events, err := node.admin.CoreV1().Events("default").List(context.Background(), metav1.ListOptions{FieldSelector: "reason=InvalidStaticPod"})
		if err == nil && !slices.ContainsFunc(events.Items, func(e v1.Event) bool { return strings.Contains(e.Message, "has the same uid "+string(p.UID)) }) {
			err = fmt.Errorf("no event of %d tells of it", len(events.Items))
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if now := s.get("one"); condition(now, v1.PodReady) != v1.ConditionTrue || container(now, "c").ContainerID != container(p, "c").ContainerID || container(now, "c").RestartCount != 0 {
		t.Errorf("the pod was touched: %+v", now.Status)
	}
	// A kubelet that comes back reads the folder before the API: the pod is still the API's.
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	if err := node.startKubelet(nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	if now := s.get("one"); container(now, "c").ContainerID != container(p, "c").ContainerID || now.Status.Phase != v1.PodRunning {
		t.Errorf("the pod was taken for the copy: %+v", now.Status)
	}
	write("")
	if err := within(patience, func() error {
		c, err := node.admin.CoreV1().Pods(s.name).Get(context.Background(), "copy-"+nodeName, metav1.GetOptions{})
		if err == nil && condition(c, v1.PodReady) != v1.ConditionTrue {
			err = fmt.Errorf("%+v", c.Status)
		}
		return err
	}); err != nil {
		t.Error("with a UID of its own it does not run:", err)
	}
	if now := s.get("one"); container(now, "c").ContainerID != container(p, "c").ContainerID {
		t.Error("the pod was touched")
	}
}

// cgroup reads one value of a pod's cgroup, or of one of its containers.
func (m *machine) cgroup(t *testing.T, p *v1.Pod, file, container string) string {
	t.Helper()
	controller, _, _ := strings.Cut(file, ".")
	class := strings.ToLower(string(p.Status.QOSClass))
	if p.Status.QOSClass == v1.PodQOSGuaranteed {
		class = ""
	}
	dir := filepath.Join("/sys/fs/cgroup", controller, filepath.Base(m.dir), "kubepods", class, "pod"+string(p.UID))
	if container != "" {
		for _, c := range append(slices.Clone(p.Status.InitContainerStatuses), p.Status.ContainerStatuses...) {
			if c.Name == container {
				dir = filepath.Join(dir, strings.TrimPrefix(c.ContainerID, "containerd://"))
			}
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(raw))
}

func TestResourcesAndCgroups(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("g", `{containers: [{name: c, command: [sleep, "600"], resources: {limits: {cpu: 200m, memory: 32Mi}}}]}`)
	s.create("b", `{containers: [{name: c, command: [sleep, "600"], resources: {requests: {cpu: 100m, memory: 16Mi}}}]}`)
	s.create("e", `{containers: [{name: c, command: [sleep, "600"]}]}`)
	for _, c := range []struct {
		pod, file, container, want string
		class                      v1.PodQOSClass
	}{
		{"g", "cpu.shares", "", "204", v1.PodQOSGuaranteed}, {"g", "cpu.cfs_quota_us", "", "20000", v1.PodQOSGuaranteed}, {"g", "memory.limit_in_bytes", "", "33554432", v1.PodQOSGuaranteed},
		{"g", "cpu.shares", "c", "204", v1.PodQOSGuaranteed}, {"g", "cpu.cfs_quota_us", "c", "20000", v1.PodQOSGuaranteed}, {"g", "memory.limit_in_bytes", "c", "33554432", v1.PodQOSGuaranteed},
		{"b", "cpu.shares", "", "102", v1.PodQOSBurstable}, {"b", "cpu.cfs_quota_us", "", "-1", v1.PodQOSBurstable}, {"b", "cpu.shares", "c", "102", v1.PodQOSBurstable},
		{"e", "cpu.shares", "", "2", v1.PodQOSBestEffort}, {"e", "cpu.shares", "c", "2", v1.PodQOSBestEffort},
	} {
		p := s.ready(c.pod)
		if p.Status.QOSClass != c.class {
			t.Errorf("%s is %s", c.pod, p.Status.QOSClass)
		}
		if got := node.cgroup(t, p, c.file, c.container); got != c.want {
			t.Errorf("%s %s of %q: %s, want %s", c.pod, c.file, c.container, got, c.want)
		}
	}
	s.create("oom", `{restartPolicy: Never, containers: [{name: c, command: [sh, -c, "dd if=/dev/zero of=/dev/null bs=200M"], resources: {limits: {memory: 16Mi}}}]}`)
	if c := container(s.ended("oom", v1.PodFailed), "c").State.Terminated; c.Reason != "OOMKilled" || c.ExitCode != 137 {
		t.Errorf("%+v", c)
	}
}

// TestZRestarts runs alone, as every test which is not parallel does: it takes the kubelet, and then the runtime, from under running pods.
func TestZRestarts(t *testing.T) {
	s := newSpace(t)
	s.create("p", `
volumes: [{name: v, emptyDir: {}}, {name: t, projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 600}}]}}]
containers:
- {name: c, command: [sh, -c, "echo up; touch /v/x; sleep 600"], volumeMounts: [{name: v, mountPath: /v}, {name: t, mountPath: /t}], readinessProbe: {exec: {command: [cat, /v/x]}, periodSeconds: 1}}
`)
	s.create("dies", `{restartPolicy: Never, containers: [{name: c, command: [sh, -c, "while [ ! -e /end ]; do sleep 0.1; done; exit 5"]}]}`)
	s.create("deleted", `{containers: [{name: c, command: [sleep, "600"]}]}`)
	before := s.ready("p")
	s.ready("dies")
	s.ready("deleted")
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	// Life goes on without a kubelet.
	dies := s.get("dies")
	node.ctr(t, "tasks", "exec", "--exec-id", "x", strings.TrimPrefix(container(dies, "c").ContainerID, "containerd://"), "touch", "/end")
	if err := node.admin.CoreV1().Pods(s.name).Delete(context.Background(), "deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := node.startKubelet(nil); err != nil {
		t.Fatal(err)
	}
	if c := container(s.ended("dies", v1.PodFailed), "c").State.Terminated; c.ExitCode != 5 {
		t.Errorf("%+v", c)
	}
	err := within(patience, func() error {
		_, err := node.admin.CoreV1().Pods(s.name).Get(context.Background(), "deleted", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("not deleted: %v", err)
	})
	if err != nil {
		t.Error(err)
	}
	same := func(what string) {
		t.Helper()
		after := s.ready("p")
		if a, b := container(before, "c"), container(after, "c"); a.ContainerID != b.ContainerID || b.RestartCount != 0 || after.Status.PodIP != before.Status.PodIP {
			t.Errorf("after %s: %+v", what, after.Status)
		}
		for i, c := range before.Status.Conditions {
			if d := after.Status.Conditions[i]; c.Type != d.Type || !c.LastTransitionTime.Equal(&d.LastTransitionTime) {
				t.Errorf("after %s, %s changed: %v", what, c.Type, d)
			}
		}
		s.shows("p", "x", "ls", "/v")
	}
	same("the kubelet's restart")
	node.killRuntime(t)
	same("the runtime's death")
	s.create("later", `{restartPolicy: Never, containers: [{name: c, command: [echo, later]}]}`)
	s.ended("later", v1.PodSucceeded)
}
