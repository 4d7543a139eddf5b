package realtest

import (
	"context"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRuntimeHandlers runs a pod by the handler its class names, and refuses one whose class nobody has.
func TestRuntimeHandlers(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	ctx := context.Background()
	class := func(name, handler string) string {
		name = s.name + "-" + name
		c := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Handler: handler, Overhead: &nodev1.Overhead{PodFixed: v1.ResourceList{"memory": resource.MustParse("8Mi")}}}
		if _, err := node.admin.NodeV1().RuntimeClasses().Create(ctx, c, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = node.admin.NodeV1().RuntimeClasses().Delete(ctx, name, metav1.DeleteOptions{}) })
		return name
	}
	n, err := node.admin.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil || !slices.ContainsFunc(n.Status.RuntimeHandlers, func(h v1.NodeRuntimeHandler) bool { return h.Name == "runc" }) {
		t.Error("the node does not tell of its handlers:", n.Status.RuntimeHandlers, err)
	}
	spec := "{runtimeClassName: " + class("named", "runc") + `, terminationGracePeriodSeconds: 5, volumes: [{name: v, emptyDir: {}}], initContainers: [{name: i, command: [sh, -c, "echo hello > /v/f"], volumeMounts: [{name: v, mountPath: /v}]}],
containers: [{name: c, command: [sh, -c, "trap 'exit 7' TERM; cat /v/f; sleep 600 & wait"], volumeMounts: [{name: v, mountPath: /v}], resources: {limits: {memory: 32Mi, cpu: 200m}}, readinessProbe: {exec: {command: [test, -f, /v/f]}, periodSeconds: 1}}]}`
	p := s.create("named", spec)
	s.ready("named")
	s.shows("named", "hello", "cat", "/v/f")
	if q := p.Spec.Overhead["memory"]; q.String() != "8Mi" {
		t.Errorf("the overhead is %v", p.Spec.Overhead)
	}
	s.gone("named")
	s.create("nobody", "{runtimeClassName: "+class("nobody", "nobody")+`, containers: [{name: c, command: [sleep, "600"]}]}`)
	s.event("nobody", "FailedCreatePodSandBox: Failed to create pod sandbox: ")
	s.gone("nobody")
}
