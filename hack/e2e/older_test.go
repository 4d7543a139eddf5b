//go:build !e2e

package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// younger are kinds and versions that an apiserver of release 1.34 serves in no way that our daemons would find by default.
var younger = []string{
	"resource.k8s.io/v1/devicetaintrules", "storagemigration.k8s.io/v1", "scheduling.k8s.io/v1beta1", "scheduling.k8s.io/v1alpha1",
	"certificates.k8s.io/v1/clustertrustbundles", "certificates.k8s.io/v1/podcertificaterequests", "certificates.k8s.io/v1beta1",
	"admissionregistration.k8s.io/v1/mutatingadmissionpolicies", "admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings",
}

// devices are what one of release 1.33 lacks besides.
var devices = []string{"resource.k8s.io/v1", "resource.k8s.io/v1beta1", "resource.k8s.io/v1beta2"}

// loud are lines of a log that somebody would be called for.
var loud = regexp.MustCompile(`(?m)^(.* level=(WARN|ERROR) .*|[EF]\d{4} .*)$`)

// TestOlderServer: the scheduler and the controller-manager do what can be done beside an apiserver that lacks what is
// younger than they, or that somebody turned off, and do not complain all the time.
func TestOlderServer(t *testing.T) {
	for name, lacks := range map[string][]string{"1.34": younger, "1.33": append(devices, younger...)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, "--runtime-config="+strings.Join(lacks, "=false,")+"=false")
			manager := p.run(daemon(t, "controller-manager"), "--kubeconfig", p.config, "--bind-address", "127.0.0.1", "--secure-port", freePort(t))
			scheduler := p.scheduler()
			works(t, p)
			time.Sleep(2 * time.Second) // a watch that is refused is tried again within a second
			for _, cmd := range []*exec.Cmd{manager, scheduler} {
				_ = cmd.Process.Kill() // it may have ended, which is told below
				_ = cmd.Wait()
				if said := loud.FindString(cmd.Stderr.(fmt.Stringer).String()); said != "" {
					t.Errorf("%s: %s", cmd.Path, said)
				}
			}
		})
	}
}

// works sees that pods of a deployment get their node, that what is owned goes with its owner, and that a namespace goes.
func works(t *testing.T, p *plane) {
	t.Helper()
	ctx := t.Context()
	room := v1.ResourceList{"cpu": resource.MustParse("32"), "memory": resource.MustParse("64Gi"), "pods": resource.MustParse("10")}
	_, err := p.client.CoreV1().Nodes().Create(ctx, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Status: v1.NodeStatus{Capacity: room, Allocatable: room,
		Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const ns = "older"
	if _, err := p.client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "web"}
	_, err = p.client.AppsV1().Deployments(ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "x"}}}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.within(30*time.Second, "the pods have a node", func() error {
		pods, err := p.client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=node"})
		if err == nil && len(pods.Items) != 2 {
			err = fmt.Errorf("%d have", len(pods.Items))
		}
		return err
	})
	if err := p.client.AppsV1().Deployments(ns).Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}); err != nil {
		t.Fatal(err)
	}
	p.within(30*time.Second, "the pods go with their owner", func() error {
		pods, err := p.client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		for i := range pods.Items {
			if pods.Items[i].DeletionTimestamp == nil {
				return fmt.Errorf("%s stays", pods.Items[i].Name)
			}
			// There is no kubelet to say that it has ended.
			if err := p.client.CoreV1().Pods(ns).Delete(ctx, pods.Items[i].Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
				return err
			}
		}
		return err
	})
	if err := p.client.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.within(30*time.Second, "the namespace goes", func() error {
		_, err := p.client.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	})
}
