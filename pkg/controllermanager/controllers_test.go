package controllermanager

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// driveFlags are the flags under which every drive's controllers have work and do it soon.
var driveFlags = []string{
	"--node-monitor-grace-period=3s", "--node-monitor-period=1s", "--node-startup-grace-period=3s", "--node-eviction-rate=10",
	"--load-balancer-pool=192.0.2.8/31", "--local-path-helper-image=box", "--local-path-dir=/data", "--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16,fd00:244::/48", "--service-cluster-ip-range=10.96.0.0/16", "--controllers=*,bootstrapsigner,tokencleaner,selinux-warning-controller", "--horizontal-pod-autoscaler-sync-period=500ms",
}

// drives has one drive or more for every controller: what users do, and what must come of it.
var drives = map[string]func(*space){
	"attach": driveAttach, "ephemeral": driveEphemeral, "expansion": driveExpansion, "attributes": driveAttributes, "devices": driveDevices, "service ranges": driveServiceRanges,
	"load balancers": driveLoadBalancers, "policies": drivePolicies, "labels": driveLabels, "local path": driveLocalPath,
	"namespace": driveNamespace, "accounts": driveAccounts, "deployment": driveDeployment, "statefulset": driveStatefulSet,
	"daemonset and nodes": driveNodes, "job": driveJob, "autoscaler": driveAutoscaler, "volumes": driveVolumes, "account tokens": driveAccountTokens, "mirroring": driveMirroring, "protection": driveProtection, "certificates": driveCertificates, "forgotten requests": driveForgotten, "cron": driveCron, "replication": driveReplication, "service": driveService, "budget": driveBudget, "quota": driveQuota,
	"clusterrole": driveClusterRole, "garbage": driveGarbage, "podgc": drivePodGC, "bootstrap": driveBootstrap, "trust bundle": driveTrustBundle, "migration": driveMigration,
}

// TestControllers drives every controller once against a real apiserver, each acting as its own service account.
func TestControllers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, driveFlags...)
	c.drive(t)
	t.Run("serving", c.serving)
}

// drive runs every drive in a namespace of its own.
func (c *cluster) drive(t *testing.T) {
	t.Helper()
	if !c.crashing {
		c.observer = c.observe(t)
	}
	c.home(t)
	var mu sync.Mutex
	rests := map[string]string{}
	t.Run("each", func(t *testing.T) {
		for name, drive := range drives {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := c.space(t)
				drive(s)
				is := s.rest(name)
				mu.Lock()
				defer mu.Unlock()
				rests[strings.ReplaceAll(name, " ", "-")] = is
			})
		}
	})
	if golden.Updating() && !t.Failed() {
		writeStates(t, rests)
	}
}

// home keeps a node well until the test ends: pods that drives put on n9 would be taken for those of a node that is gone, in a
// drive that takes longer than that is waited for.
func (c *cluster) home(t *testing.T) {
	t.Helper()
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}
	_, err := c.admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n9"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{ready}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { (&space{c, t, ""}).speak(stop, "n9") })
	t.Cleanup(func() {
		close(stop)
		wg.Wait()
	})
}

// space is a namespace of a test's own.
type space struct {
	*cluster
	t  *testing.T
	ns string
}

func (c *cluster) space(t *testing.T) *space {
	t.Helper()
	ns, err := c.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &space{c, t, ns.Name}
	if c.crashing || c.silent { // the account comes late here, and a set would first say that it is missing
		s.wait("the namespace's account", func() error {
			_, err := c.admin.CoreV1().ServiceAccounts(s.ns).Get(t.Context(), "default", metav1.GetOptions{})
			return err
		})
	}
	return s
}

// ok fails the test if there was an error.
func (s *space) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) wait(what string, f func() error) {
	s.t.Helper()
	wait(s.t, what, f)
}

var appLabels = map[string]string{"app": "web"}

func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: appLabels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}}}
}

// pods answers the namespace's pods, once the default service account lets them be made.
func (s *space) pods() []corev1.Pod {
	s.t.Helper()
	list, err := s.admin.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{})
	s.ok(err)
	return list.Items
}

// play is the kubelet: every pod of the namespace gets a phase, and runs if that is the phase.
func (s *space) play(phase corev1.PodPhase, n int) {
	s.t.Helper()
	s.wait(fmt.Sprint(n, " pods"), func() error {
		var list []corev1.Pod
		for _, p := range s.pods() {
			if p.DeletionTimestamp == nil {
				list = append(list, p)
			}
		}
		if len(list) != n {
			return fmt.Errorf("there are %d pods", len(list))
		}
		for i, p := range list {
			if p.Status.Phase == phase {
				continue
			}
			p.Status.Phase = phase
			p.Status.PodIP = fmt.Sprint("10.244.0.", i+1)
			p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
			ready := corev1.ConditionFalse
			if phase == corev1.PodRunning {
				ready = corev1.ConditionTrue
			}
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()}}
			if _, err := s.admin.CoreV1().Pods(s.ns).UpdateStatus(s.t.Context(), &p, metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// event waits for an event about an object of a name, and looks who said it. Where controllers crash nobody promises events.
func (s *space) event(name, reason, source string) {
	s.t.Helper()
	if s.crashing || s.silent {
		return
	}
	s.wait("event "+reason, func() error {
		list, err := s.admin.CoreV1().Events(s.ns).List(s.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.InvolvedObject.Name == name && e.Reason == reason {
				if e.Source.Component != source {
					s.t.Fatalf("%s said %s", e.Source.Component, reason)
				}
				return nil
			}
		}
		return errors.New("there is none")
	})
}

func driveNamespace(s *space) {
	_, err := s.admin.CoreV1().ConfigMaps(s.ns).Create(s.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Finalizers: []string{"test/held"}}}, metav1.CreateOptions{})
	s.ok(err)
	s.ok(s.admin.CoreV1().Namespaces().Delete(s.t.Context(), s.ns, metav1.DeleteOptions{}))
	s.wait("what holds the namespace", func() error {
		ns, err := s.admin.CoreV1().Namespaces().Get(s.t.Context(), s.ns, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range ns.Status.Conditions {
			if c.Type == corev1.NamespaceFinalizersRemaining && c.Status == corev1.ConditionTrue && strings.Contains(c.Message, "test/held in 1 resource instances") {
				return nil
			}
		}
		return fmt.Errorf("%v", ns.Status.Conditions)
	})
	_, err = s.admin.CoreV1().ConfigMaps(s.ns).Patch(s.t.Context(), "x", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	s.ok(err)
	s.wait("the end of the namespace", func() error {
		_, err := s.admin.CoreV1().Namespaces().Get(s.t.Context(), s.ns, metav1.GetOptions{})
		return gone(err)
	})
}

func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		return errors.New("it is still there")
	}
	return err
}

// driveNodes makes two nodes and a daemon set for them, and lets one fall silent.
func driveNodes(s *space) {
	for _, name := range []string{"n1", "n2"} {
		ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}
		_, err := s.admin.CoreV1().Nodes().Create(s.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: appLabels}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{ready}}}, metav1.CreateOptions{})
		s.ok(err)
	}
	// n2 goes on speaking: with not one node that is well nothing would be given up.
	stop, silence := make(chan struct{}), make(chan struct{})
	defer close(stop)
	go s.speak(stop, "n2")
	go s.speak(silence, "n1")
	agent := template()
	agent.Spec.NodeSelector = appLabels // other tests have nodes too
	_, err := s.admin.AppsV1().DaemonSets(s.ns).Create(s.t.Context(), &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "agent"}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: appLabels}, Template: agent,
	}}, metav1.CreateOptions{})
	s.ok(err)
	s.play(corev1.PodRunning, 2)
	s.event("agent", "SuccessfulCreate", "daemonset-controller")
	s.wait("the daemon set", func() error {
		d, err := s.admin.AppsV1().DaemonSets(s.ns).Get(s.t.Context(), "agent", metav1.GetOptions{})
		if err == nil && (d.Status.NumberAvailable != 2 || d.Status.DesiredNumberScheduled != 2) {
			return fmt.Errorf("%v", d.Status)
		}
		return err
	})
	close(silence)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "leaves"}, Spec: template().Spec}
	p.Spec.NodeName, p.Spec.TerminationGracePeriodSeconds = "n1", new(int64(0))
	p.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(1))}}
	_, err = s.admin.CoreV1().Pods(s.ns).Create(s.t.Context(), p, metav1.CreateOptions{})
	s.ok(err)
	s.wait("the silent node to be given up", func() error {
		n, err := s.admin.CoreV1().Nodes().Get(s.t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(n.Spec.PodCIDRs) != 2 {
			return fmt.Errorf("its ranges are %v", n.Spec.PodCIDRs)
		}
		for _, taint := range n.Spec.Taints {
			if taint.Key == corev1.TaintNodeUnreachable && taint.Effect == corev1.TaintEffectNoExecute {
				return nil
			}
		}
		return fmt.Errorf("its taints are %v", n.Spec.Taints)
	})
	s.wait("the pod to leave", func() error {
		p, err := s.admin.CoreV1().Pods(s.ns).Get(s.t.Context(), "leaves", metav1.GetOptions{})
		if err == nil && p.DeletionTimestamp != nil { // no kubelet ends it
			return nil
		}
		return gone(err)
	})
	n, err := s.admin.CoreV1().Nodes().Get(s.t.Context(), "n2", metav1.GetOptions{})
	s.ok(err)
	for _, taint := range n.Spec.Taints {
		if taint.Key == corev1.TaintNodeUnreachable {
			s.t.Errorf("a node that speaks has the taint %v", taint)
		}
	}
}

// speak is the kubelet of a node: it says every half second that the node is well.
func (s *space) speak(stop chan struct{}, node string) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(500 * time.Millisecond):
		}
		patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
		if _, err := s.admin.CoreV1().Nodes().Patch(s.t.Context(), node, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil && s.t.Context().Err() == nil {
			s.t.Errorf("speaking as %s: %v", node, err)
			return
		}
	}
}

func driveService(s *space) {
	s.deployment(2)
	_, err := s.admin.CoreV1().Services(s.ns).Create(s.t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{Selector: appLabels, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	s.ok(err)
	s.play(corev1.PodRunning, 2)
	// Only pods that have a node are published.
	for _, p := range s.pods() {
		s.ok(s.admin.CoreV1().Pods(s.ns).Bind(s.t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: "n9"}}, metav1.CreateOptions{}))
	}
	s.wait("slices and endpoints", func() error {
		slices, err := s.admin.DiscoveryV1().EndpointSlices(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
		if err != nil {
			return err
		}
		if len(slices.Items) != 1 || len(slices.Items[0].Endpoints) != 2 {
			return fmt.Errorf("slices %v", slices.Items)
		}
		//nolint:staticcheck // it is still served, and conformance looks at it
		e, err := s.admin.CoreV1().Endpoints(s.ns).Get(s.t.Context(), "web", metav1.GetOptions{})
		if err == nil && (len(e.Subsets) != 1 || len(e.Subsets[0].Addresses) != 2) {
			return fmt.Errorf("endpoints %v", e.Subsets)
		}
		return err
	})
	s.ok(s.admin.CoreV1().Services(s.ns).Delete(s.t.Context(), "web", metav1.DeleteOptions{}))
	s.wait("the end of the slices", func() error {
		slices, err := s.admin.DiscoveryV1().EndpointSlices(s.ns).List(s.t.Context(), metav1.ListOptions{})
		if err == nil && len(slices.Items) > 0 {
			return fmt.Errorf("%d are left", len(slices.Items))
		}
		return err
	})
}

func driveBudget(s *space) {
	s.deployment(3)
	_, err := s.admin.PolicyV1().PodDisruptionBudgets(s.ns).Create(s.t.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: new(intstr.FromString("50%")), Selector: &metav1.LabelSelector{MatchLabels: appLabels},
	}}, metav1.CreateOptions{})
	s.ok(err)
	s.play(corev1.PodRunning, 3)
	s.wait("the budget", func() error {
		b, err := s.admin.PolicyV1().PodDisruptionBudgets(s.ns).Get(s.t.Context(), "web", metav1.GetOptions{})
		if err == nil && (b.Status.DisruptionsAllowed != 1 || b.Status.ExpectedPods != 3 || b.Status.DesiredHealthy != 2) {
			return fmt.Errorf("%v", b.Status)
		}
		return err
	})
}

func driveQuota(s *space) {
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
		"pods": resource.MustParse("2"), "configmaps": resource.MustParse("5"), "count/deployments.apps": resource.MustParse("3"),
	}}}
	_, err := s.admin.CoreV1().ResourceQuotas(s.ns).Create(s.t.Context(), q, metav1.CreateOptions{})
	s.ok(err)
	used := func(pods, maps, deployments string) {
		s.t.Helper()
		s.wait("the quota", func() error {
			q, err := s.admin.CoreV1().ResourceQuotas(s.ns).Get(s.t.Context(), "q", metav1.GetOptions{})
			if err != nil {
				return err
			}
			for name, want := range map[corev1.ResourceName]string{"pods": pods, "configmaps": maps, "count/deployments.apps": deployments} {
				if got := q.Status.Used[name]; got.String() != want {
					return fmt.Errorf("%v are used", q.Status.Used)
				}
			}
			return nil
		})
	}
	used("0", "1", "0") // one: kube-root-ca.crt
	s.deployment(3)
	used("2", "1", "1")
	sets, err := s.admin.AppsV1().ReplicaSets(s.ns).List(s.t.Context(), metav1.ListOptions{})
	s.ok(err)
	s.event(sets.Items[0].Name, "FailedCreate", "replicaset-controller")
	s.wait("the deployment to say so", func() error {
		d, err := s.admin.AppsV1().Deployments(s.ns).Get(s.t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue && (s.crashing || strings.Contains(c.Message, "exceeded quota")) { // a lost answer may have been the first failure, whose words stay
				return nil
			}
		}
		set, err := s.admin.AppsV1().ReplicaSets(s.ns).Get(s.t.Context(), sets.Items[0].Name, metav1.GetOptions{})
		return fmt.Errorf("%v, its set %v %v", d.Status.Conditions, set.Status, err)
	})
}

func driveGarbage(s *space) {
	s.deployment(2)
	s.play(corev1.PodRunning, 2)
	foreground := metav1.DeletePropagationForeground
	s.ok(s.admin.AppsV1().Deployments(s.ns).Delete(s.t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &foreground}))
	s.wait("the end of all", func() error {
		for _, p := range s.pods() {
			return fmt.Errorf("%s is there", p.Name)
		}
		_, err := s.admin.AppsV1().Deployments(s.ns).Get(s.t.Context(), "web", metav1.GetOptions{})
		return gone(err)
	})
}

// drivePodGC ends a pod that was deleted before it had a node, and one on a node that is out of service: no kubelet will say that they
// failed.
func drivePodGC(s *space) {
	held := func(name, node string) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{"test/held"}}, Spec: template().Spec}
		p.Spec.NodeName = node
		s.wait("a pod", func() error {
			_, err := s.admin.CoreV1().Pods(s.ns).Create(s.t.Context(), p, metav1.CreateOptions{})
			return err
		})
		s.ok(s.admin.CoreV1().Pods(s.ns).Delete(s.t.Context(), name, metav1.DeleteOptions{}))
	}
	broken := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.ns + "-broken"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}}}
	broken.Labels = map[string]string{corev1.LabelTopologyZone: s.ns}
	_, err := s.admin.CoreV1().Nodes().Create(s.t.Context(), broken, metav1.CreateOptions{})
	s.ok(err)
	held("unscheduled", "")
	held("stuck", broken.Name)
	for _, name := range []string{"unscheduled", "stuck"} {
		s.wait(name+" to have failed", func() error {
			p, err := s.admin.CoreV1().Pods(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
			if err == nil && (p.Status.Phase != corev1.PodFailed || *p.DeletionGracePeriodSeconds != 0) {
				return fmt.Errorf("it is %s, with %d s left", p.Status.Phase, *p.DeletionGracePeriodSeconds)
			}
			return err
		})
		_, err = s.admin.CoreV1().Pods(s.ns).Patch(s.t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		s.ok(err)
		s.wait(name+" to go", func() error {
			_, err := s.admin.CoreV1().Pods(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
			return gone(err)
		})
	}
}

// driveMirroring shows endpoints that a user wrote as a slice.
func driveMirroring(s *space) {
	_, err := s.admin.CoreV1().Services(s.ns).Create(s.t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "sql", Port: 5432}}}}, metav1.CreateOptions{})
	s.ok(err)
	//nolint:staticcheck // it is still served, and conformance looks at it
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "10.1.2.3"}}, Ports: []corev1.EndpointPort{{Name: "sql", Port: 5432}}}}}
	_, err = s.admin.CoreV1().Endpoints(s.ns).Create(s.t.Context(), e, metav1.CreateOptions{})
	s.ok(err)
	shows := func(want string) {
		s.t.Helper()
		s.wait("a slice with "+want, func() error {
			list, err := s.admin.DiscoveryV1().EndpointSlices(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=db"})
			if err != nil {
				return err
			}
			got := ""
			for _, x := range list.Items {
				for _, e := range x.Endpoints {
					got += e.Addresses[0]
				}
			}
			if got != want || want == "" && len(list.Items) > 0 {
				return fmt.Errorf("%d slices with %s", len(list.Items), got)
			}
			return nil
		})
	}
	shows("10.1.2.3")
	_, err = s.admin.CoreV1().Endpoints(s.ns).Patch(s.t.Context(), "db", types.MergePatchType, []byte(`{"subsets":[{"addresses":[{"ip":"10.2.3.4"}],"ports":[{"name":"sql","port":5432}]}]}`), metav1.PatchOptions{})
	s.ok(err)
	shows("10.2.3.4")
	s.ok(s.admin.CoreV1().Endpoints(s.ns).Delete(s.t.Context(), "db", metav1.DeleteOptions{}))
	shows("")
}

// driveProtection keeps a claim while a pod uses it.
func driveProtection(s *space) {
	_, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Create(s.t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "uses"}, Spec: template().Spec}
	p.Spec.NodeName = "n9"
	p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	s.wait("a pod", func() error {
		_, err := s.admin.CoreV1().Pods(s.ns).Create(s.t.Context(), p, metav1.CreateOptions{})
		return err
	})
	s.wait("the claim to be protected", func() error {
		c, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), "data", metav1.GetOptions{})
		if err == nil && len(c.Finalizers) != 1 {
			return fmt.Errorf("%v", c.Finalizers)
		}
		return err
	})
	s.ok(s.admin.CoreV1().PersistentVolumeClaims(s.ns).Delete(s.t.Context(), "data", metav1.DeleteOptions{}))
	time.Sleep(300 * time.Millisecond)
	if _, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), "data", metav1.GetOptions{}); err != nil {
		s.t.Fatalf("the claim went while a pod used it: %v", err)
	}
	s.ok(s.admin.CoreV1().Pods(s.ns).Delete(s.t.Context(), "uses", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	s.wait("the claim to go", func() error {
		_, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), "data", metav1.GetOptions{})
		return gone(err)
	})
}

// driveVolumes binds a claim to a volume, and releases the volume when the claim is gone; it cannot be deleted for its claim.
func driveVolumes(s *space) {
	core := s.admin.CoreV1()
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &s.ns, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: size},
	}}
	_, err := core.PersistentVolumeClaims(s.ns).Create(s.t.Context(), claim, metav1.CreateOptions{})
	s.ok(err)
	_, err = core.PersistentVolumes().Create(s.t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Spec: corev1.PersistentVolumeSpec{
		StorageClassName: s.ns, AccessModes: claim.Spec.AccessModes, Capacity: size, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	s.wait("the claim to be bound", func() error {
		c, err := core.PersistentVolumeClaims(s.ns).Get(s.t.Context(), "data", metav1.GetOptions{})
		if err == nil && (c.Status.Phase != corev1.ClaimBound || c.Spec.VolumeName != s.ns) {
			return fmt.Errorf("%v %v", c.Spec.VolumeName, c.Status)
		}
		return err
	})
	phase := func(want corev1.PersistentVolumePhase) {
		s.t.Helper()
		s.wait("the volume to be "+string(want), func() error {
			v, err := core.PersistentVolumes().Get(s.t.Context(), s.ns, metav1.GetOptions{})
			if err == nil && v.Status.Phase != want {
				return fmt.Errorf("it is %s", v.Status.Phase)
			}
			return err
		})
	}
	phase(corev1.VolumeBound)
	s.ok(core.PersistentVolumeClaims(s.ns).Delete(s.t.Context(), "data", metav1.DeleteOptions{}))
	phase(corev1.VolumeReleased)
	// Nobody made it, so nobody can delete it.
	_, err = core.PersistentVolumes().Patch(s.t.Context(), s.ns, types.MergePatchType, []byte(`{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`), metav1.PatchOptions{})
	s.ok(err)
	phase(corev1.VolumeFailed)
	s.ok(core.PersistentVolumes().Delete(s.t.Context(), s.ns, metav1.DeleteOptions{}))
	s.wait("the end of the volume", func() error {
		_, err := core.PersistentVolumes().Get(s.t.Context(), s.ns, metav1.GetOptions{})
		return gone(err)
	})
}
