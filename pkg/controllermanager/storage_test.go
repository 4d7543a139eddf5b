package controllermanager

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var (
	once  = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	small = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
)

func (s *space) claim(name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &s.ns, AccessModes: once, Resources: corev1.VolumeResourceRequirements{Requests: small},
	}}
}

// driver makes a claim bound to a volume of a driver, and answers the volume's name.
func (s *space) driver(name string) string {
	pv := s.ns + "-" + name
	_, err := s.admin.CoreV1().PersistentVolumes().Create(s.t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: pv}, Spec: corev1.PersistentVolumeSpec{
		StorageClassName: s.ns, AccessModes: once, Capacity: small, PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "disk.test", VolumeHandle: pv}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	_, err = s.admin.CoreV1().PersistentVolumeClaims(s.ns).Create(s.t.Context(), s.claim(name), metav1.CreateOptions{})
	s.ok(err)
	s.wait("the claim to be bound", func() error {
		c, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
		if err == nil && c.Status.Phase != corev1.ClaimBound {
			return fmt.Errorf("it is %s", c.Status.Phase)
		}
		return err
	})
	return pv
}

// on makes a pod with one volume on a node.
func (s *space) on(node, name string, v corev1.VolumeSource) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: template().Spec}
	p.Spec.NodeName, p.Spec.Volumes = node, []corev1.Volume{{Name: "data", VolumeSource: v}}
	s.wait("a pod", func() error {
		_, err := s.admin.CoreV1().Pods(s.ns).Create(s.t.Context(), p, metav1.CreateOptions{})
		return err
	})
}

func claimed(name string) corev1.VolumeSource {
	return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
}

// status patches a node's status.
func (s *space) status(node, patch string) {
	s.t.Helper()
	_, err := s.admin.CoreV1().Nodes().Patch(s.t.Context(), node, types.MergePatchType, []byte(`{"status":`+patch+`}`), metav1.PatchOptions{}, "status")
	s.ok(err)
}

func (s *space) attached(node string, want ...string) {
	s.t.Helper()
	s.wait("what "+node+" is told", func() error {
		n, err := s.admin.CoreV1().Nodes().Get(s.t.Context(), node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var got []string
		for _, v := range n.Status.VolumesAttached {
			got = append(got, string(v.Name))
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// attachment waits for an attachment of a volume to a node.
func (s *space) attachment(pv, node string) (out storagev1.VolumeAttachment) {
	s.t.Helper()
	s.wait("an attachment to "+node, func() error {
		list, err := s.admin.StorageV1().VolumeAttachments().List(s.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, a := range list.Items {
			if *a.Spec.Source.PersistentVolumeName == pv && a.Spec.NodeName == node {
				out = a
				return nil
			}
		}
		return fmt.Errorf("there are %d of others", len(list.Items))
	})
	return out
}

// driveAttach attaches a volume to the node of its pod, refuses it to a second, and moves it when the first has let go.
func driveAttach(s *space) {
	nodes := []string{s.ns + "-a", s.ns + "-b"}
	stop := make(chan struct{})
	defer close(stop)
	for _, name := range nodes {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: s.ns}, Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		_, err := s.admin.CoreV1().Nodes().Create(s.t.Context(), n, metav1.CreateOptions{})
		s.ok(err)
		go s.speak(stop, name)
	}
	pv := s.driver("data")
	name := "kubernetes.io/csi/disk.test^" + pv
	s.on(nodes[0], "first", claimed("data"))
	a := s.attachment(pv, nodes[0])
	a.Status.Attached = true // the driver's attacher
	_, err := s.admin.StorageV1().VolumeAttachments().UpdateStatus(s.t.Context(), &a, metav1.UpdateOptions{})
	s.ok(err)
	s.attached(nodes[0], name)
	s.event("first", "SuccessfulAttachVolume", "attachdetach-controller")
	s.status(nodes[0], `{"volumesInUse":["`+name+`"]}`)
	s.on(nodes[1], "second", claimed("data"))
	s.event("second", "FailedAttachVolume", "attachdetach-controller")
	s.ok(s.admin.CoreV1().Pods(s.ns).Delete(s.t.Context(), "first", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	time.Sleep(300 * time.Millisecond)
	s.attached(nodes[0], name)
	s.status(nodes[0], `{"volumesInUse":[]}`)
	s.attached(nodes[0])
	s.attachment(pv, nodes[1])
}

func driveEphemeral(s *space) {
	s.on("n9", "scratch", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: s.claim("").Spec}}})
	s.wait("its claim", func() error {
		c, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), "scratch-data", metav1.GetOptions{})
		if err == nil && (len(c.OwnerReferences) != 1 || c.OwnerReferences[0].Name != "scratch") {
			return fmt.Errorf("it is of %v", c.OwnerReferences)
		}
		return err
	})
	_, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Create(s.t.Context(), s.claim("taken-data"), metav1.CreateOptions{})
	s.ok(err)
	s.on("n9", "taken", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: s.claim("").Spec}}})
	s.event("taken", "FailedBinding", "ephemeral_volume")
	s.ok(s.admin.CoreV1().Pods(s.ns).Delete(s.t.Context(), "scratch", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	s.wait("the claim to go", func() error {
		_, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Get(s.t.Context(), "scratch-data", metav1.GetOptions{})
		return gone(err)
	})
}

func driveExpansion(s *space) {
	_, err := s.admin.StorageV1().StorageClasses().Create(s.t.Context(), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Provisioner: "disk.test", AllowVolumeExpansion: new(true)}, metav1.CreateOptions{})
	s.ok(err)
	s.driver("grows")
	s.wait("the claim to ask for more", func() error {
		_, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Patch(s.t.Context(), "grows", types.MergePatchType, []byte(`{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`), metav1.PatchOptions{})
		return err
	})
	s.event("grows", "ExternalExpanding", "volume_expand")
}

// driveAttributes keeps a class while a claim names it.
func driveAttributes(s *space) {
	classes := s.admin.StorageV1().VolumeAttributesClasses()
	_, err := classes.Create(s.t.Context(), &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, DriverName: "disk.test", Parameters: map[string]string{"iops": "9"}}, metav1.CreateOptions{})
	s.ok(err)
	c := s.claim("gold")
	c.Spec.VolumeAttributesClassName = &s.ns
	_, err = s.admin.CoreV1().PersistentVolumeClaims(s.ns).Create(s.t.Context(), c, metav1.CreateOptions{})
	s.ok(err)
	s.wait("the class to be protected", func() error {
		x, err := classes.Get(s.t.Context(), s.ns, metav1.GetOptions{})
		if err == nil && !slices.Contains(x.Finalizers, "kubernetes.io/vac-protection") {
			return fmt.Errorf("%v", x.Finalizers)
		}
		return err
	})
	s.ok(classes.Delete(s.t.Context(), s.ns, metav1.DeleteOptions{}))
	time.Sleep(300 * time.Millisecond)
	_, err = classes.Get(s.t.Context(), s.ns, metav1.GetOptions{})
	s.ok(err)
	s.ok(s.admin.CoreV1().PersistentVolumeClaims(s.ns).Delete(s.t.Context(), "gold", metav1.DeleteOptions{}))
	s.wait("the class to go", func() error {
		_, err := classes.Get(s.t.Context(), s.ns, metav1.GetOptions{})
		return gone(err)
	})
}

// driveDevices makes a claim of a template, drives its pod off a device with a taint, and takes the claim away with it.
func driveDevices(s *space) {
	api := s.admin.ResourceV1()
	ask := resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}}}}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "learns", Finalizers: []string{"test/held"}}, Spec: template().Spec}
	p.Spec.NodeName, p.Spec.TerminationGracePeriodSeconds = "n9", new(int64(0))
	p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: new("gpu")}}
	s.wait("a pod", func() error {
		_, err := s.admin.CoreV1().Pods(s.ns).Create(s.t.Context(), p, metav1.CreateOptions{})
		return err
	})
	s.event("learns", "FailedResourceClaimCreation", "resource_claim")
	_, err := api.ResourceClaimTemplates(s.ns).Create(s.t.Context(), &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.ResourceClaimTemplateSpec{Spec: ask}}, metav1.CreateOptions{})
	s.ok(err)
	var name string
	s.wait("the claim's name in the pod", func() error {
		p, err := s.admin.CoreV1().Pods(s.ns).Get(s.t.Context(), "learns", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(p.Status.ResourceClaimStatuses) != 1 {
			return fmt.Errorf("%v", p.Status)
		}
		name = *p.Status.ResourceClaimStatuses[0].ResourceClaimName
		return nil
	})
	// The scheduler allocates a device.
	s.wait("the device to be allocated", func() error {
		c, err := api.ResourceClaims(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		c.Finalizers = []string{resourcev1.Finalizer}
		if c, err = api.ResourceClaims(s.ns).Update(s.t.Context(), c, metav1.UpdateOptions{}); err != nil {
			return err
		}
		c.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "gpu", Driver: "gpu.test", Pool: s.ns, Device: "gpu0"}}}}
		_, err = api.ResourceClaims(s.ns).UpdateStatus(s.t.Context(), c, metav1.UpdateOptions{})
		return err
	})
	s.wait("the pod to be the claim's user", func() error {
		c, err := api.ResourceClaims(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
		if err == nil && (len(c.Status.ReservedFor) != 1 || c.Status.ReservedFor[0].Name != "learns") {
			return fmt.Errorf("%v", c.Status.ReservedFor)
		}
		return err
	})
	_, err = api.DeviceTaintRules().Create(s.t.Context(), &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{Pool: &s.ns}, Taint: resourcev1.DeviceTaint{Key: "repair", Effect: resourcev1.DeviceTaintEffectNoExecute},
	}}, metav1.CreateOptions{})
	s.ok(err)
	_, err = api.ResourceSlices().Create(s.t.Context(), &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Spec: resourcev1.ResourceSliceSpec{
		Driver: "gpu.test", NodeName: new("n9"), Pool: resourcev1.ResourcePool{Name: s.ns, ResourceSliceCount: 1},
		Devices: []resourcev1.Device{{Name: "gpu0", Taints: []resourcev1.DeviceTaint{{Key: "broken", Effect: resourcev1.DeviceTaintEffectNoExecute}}}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	s.event("learns", "DeviceTaintManagerEviction", "device-taint-eviction")
	s.wait("the pod to be driven off", func() error {
		p, err := s.admin.CoreV1().Pods(s.ns).Get(s.t.Context(), "learns", metav1.GetOptions{})
		if err != nil {
			return err // it stays for its finalizer
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.DisruptionTarget && c.Reason == "DeletionByDeviceTaintManager" && p.DeletionTimestamp != nil {
				return nil
			}
		}
		return fmt.Errorf("deleted at %v, %v", p.DeletionTimestamp, p.Status.Conditions)
	})
	s.wait("the rule to say that it is done", func() error {
		x, err := api.DeviceTaintRules().Get(s.t.Context(), s.ns, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range x.Status.Conditions {
			if c.Type == resourcev1.DeviceTaintConditionEvictionInProgress && c.Status == metav1.ConditionFalse && c.ObservedGeneration == x.Generation &&
				(s.crashing || s.silent || c.Reason == "Completed" && c.Message == "1 pod evicted since starting the controller.") { // who dies has counted none, and who sees the rule late goes by the slice
				return nil
			}
		}
		return fmt.Errorf("%v", x.Status.Conditions)
	})
	_, err = s.admin.CoreV1().Pods(s.ns).Patch(s.t.Context(), "learns", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	s.ok(err)
	s.wait("the claim to go", func() error {
		c, err := api.ResourceClaims(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("deleted at %v, kept by %v, for %v", c.DeletionTimestamp, c.Finalizers, c.Status.ReservedFor)
		}
		return gone(err)
	})
}

// driveServiceRanges keeps a range while an address of it is given away.
func driveServiceRanges(s *space) {
	ranges, addresses := s.admin.NetworkingV1().ServiceCIDRs(), s.admin.NetworkingV1().IPAddresses()
	ready := func(want metav1.ConditionStatus) {
		s.t.Helper()
		s.wait("the range to be ready: "+string(want), func() error {
			r, err := ranges.Get(s.t.Context(), s.ns, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if c := meta.FindStatusCondition(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady); c == nil || c.Status != want {
				return fmt.Errorf("%v", r.Status.Conditions)
			}
			return nil
		})
	}
	_, err := ranges.Create(s.t.Context(), &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.222.0.0/28"}}}, metav1.CreateOptions{})
	s.ok(err)
	ready(metav1.ConditionTrue)
	_, err = addresses.Create(s.t.Context(), &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: "10.222.0.5"}, Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: s.ns, Name: "x"}}}, metav1.CreateOptions{})
	s.ok(err)
	s.ok(ranges.Delete(s.t.Context(), s.ns, metav1.DeleteOptions{}))
	ready(metav1.ConditionFalse)
	s.ok(addresses.Delete(s.t.Context(), "10.222.0.5", metav1.DeleteOptions{}))
	// It would go in ten seconds; a range that holds all of it frees it at once.
	_, err = ranges.Create(s.t.Context(), &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: s.ns + "-wide"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.222.0.0/24"}}}, metav1.CreateOptions{})
	s.ok(err)
	s.wait("the range to go", func() error {
		_, err := ranges.Get(s.t.Context(), s.ns, metav1.GetOptions{})
		return gone(err)
	})
}
