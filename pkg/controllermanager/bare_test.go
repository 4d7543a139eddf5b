package controllermanager

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// driveLoadBalancers gives two services the two addresses of the pool, and a third one what another gives back.
func driveLoadBalancers(s *space) {
	services := s.admin.CoreV1().Services(s.ns)
	has := func(name, want string) {
		s.t.Helper()
		s.wait(name+" to have "+want, func() error {
			x, err := services.Get(s.t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			got := ""
			for _, i := range x.Status.LoadBalancer.Ingress {
				got += i.IP
			}
			for _, c := range x.Status.Conditions {
				got += " " + c.Reason
			}
			if strings.TrimSpace(got) != want {
				return fmt.Errorf("it has %q", got)
			}
			return nil
		})
	}
	for _, name := range []string{"a", "b", "c"} {
		_, err := services.Create(s.t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
		s.ok(err)
		has(name, map[string]string{"a": "192.0.2.8 Assigned", "b": "192.0.2.9 Assigned", "c": "PoolExhausted"}[name])
	}
	s.event("c", "SyncLoadBalancerFailed", "service-controller")
	s.ok(services.Delete(s.t.Context(), "a", metav1.DeleteOptions{}))
	has("c", "192.0.2.8 Assigned")
	_, err := services.Patch(s.t.Context(), "b", types.MergePatchType, []byte(`{"spec":{"type":"ClusterIP"}}`), metav1.PatchOptions{})
	s.ok(err)
	has("b", "")
	_, err = services.Create(s.t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	s.ok(err)
	has("d", "192.0.2.9 Assigned")
}

// driveLocalPath provisions a claim, and removes what is left of it.
func driveLocalPath(s *space) {
	ctx := s.t.Context()
	node := s.ns + "-disk"
	_, err := s.admin.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, Labels: map[string]string{corev1.LabelHostname: node, corev1.LabelTopologyZone: s.ns}}}, metav1.CreateOptions{})
	s.ok(err)
	_, err = s.admin.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Provisioner: "sextant.dev/local-path", VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer)}, metav1.CreateOptions{})
	s.ok(err)
	claim := s.claim("data")
	claim.Annotations = map[string]string{"volume.kubernetes.io/selected-node": node} // the scheduler chose it
	claim, err = s.admin.CoreV1().PersistentVolumeClaims(s.ns).Create(ctx, claim, metav1.CreateOptions{})
	s.ok(err)
	volume := "pvc-" + string(claim.UID)
	// done is the kubelet: the pod has run to its end.
	done := func(pod, command string) {
		s.t.Helper()
		s.wait("the pod "+pod, func() error {
			p, err := s.admin.CoreV1().Pods("kube-system").Get(ctx, pod, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if got := strings.Join(p.Spec.Containers[0].Command, " "); got != command || p.Spec.NodeName != node {
				return fmt.Errorf("%q on %s", got, p.Spec.NodeName)
			}
			p.Status.Phase = corev1.PodSucceeded
			_, err = s.admin.CoreV1().Pods("kube-system").UpdateStatus(ctx, p, metav1.UpdateOptions{})
			return err
		})
	}
	left := func(pod string) {
		s.t.Helper()
		s.wait("the pod to go", func() error {
			_, err := s.admin.CoreV1().Pods("kube-system").Get(ctx, pod, metav1.GetOptions{})
			return gone(err)
		})
	}
	done("local-path-make-"+volume, "mkdir -p -m 0777 /data/"+volume)
	s.wait("the claim to be bound", func() error {
		c, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Get(ctx, "data", metav1.GetOptions{})
		if err == nil && (c.Status.Phase != corev1.ClaimBound || c.Spec.VolumeName != volume) {
			return fmt.Errorf("%v %v", c.Spec.VolumeName, c.Status)
		}
		return err
	})
	s.event("data", "ProvisioningSucceeded", "sextant.dev/local-path")
	left("local-path-make-" + volume)
	s.ok(s.admin.CoreV1().PersistentVolumeClaims(s.ns).Delete(ctx, "data", metav1.DeleteOptions{}))
	done("local-path-remove-"+volume, "rm -rf /data/"+volume)
	s.wait("the volume to go", func() error {
		_, err := s.admin.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
		return gone(err)
	})
	left("local-path-remove-" + volume)
}
