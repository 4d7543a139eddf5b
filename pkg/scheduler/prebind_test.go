package scheduler

import (
	"context"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/component-helpers/storage/volume"
)

// bindings has the fake API take bindings, and answers how many it took.
func bindings(client *fake.Clientset) *int {
	n := new(int)
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		*n++
		return true, a.(clienttesting.CreateAction).GetObject(), nil
	})
	return n
}

func aClaim(name, class string) *v1.PersistentVolumeClaim {
	return &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "uid-c"}, Spec: v1.PersistentVolumeClaimSpec{
		StorageClassName: &class, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{"storage": resource.MustParse("1Gi")}}}}
}

// aPodWithClaim sets a scheduler up with node a, a class that waits, and a pod that uses claim c.
func aPodWithClaim(t *testing.T, provisioner string) (*Scheduler, *fake.Clientset, *int) {
	t.Helper()
	s, client, _ := shell(t)
	bound := bindings(client)
	s.nodeSeen("a", aNode("a", "4"))
	mode := storagev1.VolumeBindingWaitForFirstConsumer
	s.table.Storage.SetClass("late", &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Provisioner: provisioner, VolumeBindingMode: &mode})
	claim := aClaim("c", "late")
	s.table.Storage.SetClaim("default/c", claim)
	if err := client.Tracker().Add(claim); err != nil {
		t.Fatal(err)
	}
	p := aPod("p", "1", 0)
	p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
	see(t, s, p)
	return s, client, bound
}

// eventually waits for what a goroutine of the scheduler does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatal("waited in vain for", what)
}

func TestAVolumeIsBoundFirst(t *testing.T) {
	s, client, bound := aPodWithClaim(t, "kubernetes.io/no-provisioner")
	pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: v1.PersistentVolumeSpec{StorageClassName: "late",
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, Capacity: v1.ResourceList{"storage": resource.MustParse("2Gi")}},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeAvailable}}
	s.table.Storage.SetVolume("pv", pv)
	if err := client.Tracker().Add(pv); err != nil {
		t.Fatal(err)
	}
	if !s.one(context.Background()) {
		t.Fatal("nothing was decided")
	}
	eventually(t, "the volume's claim", func() bool {
		got, err := client.CoreV1().PersistentVolumes().Get(t.Context(), "pv", metav1.GetOptions{})
		return err == nil && got.Spec.ClaimRef != nil && got.Spec.ClaimRef.Name == "c"
	})
	if *bound != 0 {
		t.Error("the pod was bound before its volume")
	}
	done := aClaim("c", "late")
	done.Spec.VolumeName, done.Annotations = "pv", map[string]string{volume.AnnBindCompleted: "yes"}
	s.locked(func(time.Time) {
		s.table.Storage.SetClaim("default/c", done)
		s.storageMoved()
	})
	s.group.Wait()
	if *bound != 1 {
		t.Errorf("bound %d times", *bound)
	}
}

func TestAProvisionerThatGivesUp(t *testing.T) {
	s, client, bound := aPodWithClaim(t, "csi.x.io")
	if !s.one(context.Background()) {
		t.Fatal("nothing was decided")
	}
	var chosen *v1.PersistentVolumeClaim
	eventually(t, "the node on the claim", func() bool {
		got, err := client.CoreV1().PersistentVolumeClaims("default").Get(t.Context(), "c", metav1.GetOptions{})
		chosen = got
		return err == nil && got.Annotations[volume.AnnSelectedNode] == "a"
	})
	tell := func(c *v1.PersistentVolumeClaim) {
		s.locked(func(time.Time) {
			s.table.Storage.SetClaim("default/c", c)
			s.storageMoved()
		})
		time.Sleep(20 * time.Millisecond)
	}
	tell(chosen)
	tell(aClaim("c", "late")) // the annotation is gone: no volume can be made on a
	s.group.Wait()
	last := s.explained["default/p"]
	if _, pods := s.table.Len(); pods != 0 || *bound != 0 || !strings.Contains(last.Message, "selectedNode annotation reset") || s.queue.delay.Len() != 1 {
		t.Errorf("%d pods stand, bound %d times, said %q, %d in back-off", pods, *bound, last.Message, s.queue.delay.Len())
	}
}

func TestADeviceIsAllocatedAndReserved(t *testing.T) {
	s, client, _ := shell(t)
	bound := bindings(client)
	s.nodeSeen("a", aNode("a", "4"))
	s.table.Devices.SetClass("gpu", &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}})
	s.table.Devices.SetSlice("s", &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: resourcev1.ResourceSliceSpec{
		Driver: "gpu.x.io", NodeName: new("a"), Pool: resourcev1.ResourcePool{Name: "a", Generation: 1, ResourceSliceCount: 1}, Devices: []resourcev1.Device{{Name: "g0"}}}})
	for _, name := range []string{"one", "two"} {
		claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "uid"}, Spec: resourcev1.ResourceClaimSpec{
			Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{
				DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}}}}}}
		if err := client.Tracker().Add(claim); err != nil {
			t.Fatal(err)
		}
		s.table.Devices.SetClaim("default/"+name, claim)
		p := aPod(name, "1", 0)
		p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "g", ResourceClaimName: &name}}
		see(t, s, p)
	}
	for range 2 {
		if !s.one(context.Background()) {
			t.Fatal("nothing was decided")
		}
	}
	s.group.Wait()
	claim, err := client.ResourceV1().ResourceClaims("default").Get(t.Context(), "one", metav1.GetOptions{})
	if err != nil || claim.Status.Allocation == nil || claim.Status.Allocation.Devices.Results[0].Device != "g0" || len(claim.Finalizers) != 1 ||
		len(claim.Status.ReservedFor) != 1 || claim.Status.ReservedFor[0].Name != "one" {
		t.Errorf("claim %+v, %v", claim, err)
	}
	// There is one device, and it is given away before the API server knows.
	if last := s.explained["default/two"]; *bound != 1 || !strings.HasPrefix(last.Message, "0/1 nodes are available: 1 cannot allocate all claims.") {
		t.Errorf("bound %d pods; of the second: %q", *bound, last.Message)
	}
}

func TestANodeThatIsGone(t *testing.T) {
	s, client, _ := shell(t)
	bound := bindings(client)
	s.nodeSeen("a", aNode("a", "4"))
	see(t, s, aPod("p", "1", 0))
	s.slots = make(chan struct{}) // hold the binding back
	go s.one(context.Background())
	eventually(t, "the decision", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.assumed) == 1
	})
	s.locked(func(time.Time) { s.nodeSeen("a", nil) })
	<-s.slots
	eventually(t, "the undoing", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.assumed) == 0 && s.queue.delay.Len() == 1
	})
	if *bound != 0 {
		t.Error("bound to a node that is gone")
	}
}

func TestAPodThatIsGone(t *testing.T) {
	s, client, _ := shell(t)
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewNotFound(v1.Resource("pods"), "p")
	})
	s.nodeSeen("a", aNode("a", "4"))
	see(t, s, aPod("p", "1", 0))
	s.one(context.Background())
	s.group.Wait()
	if s.queue.find("default/p") != nil || len(s.assumed) != 0 {
		t.Error("a pod that is gone is still known")
	}
}

// A device that must be attached first: the pod is bound when the driver says that it is, and looks elsewhere when it says it cannot be.
func TestADeviceIsMadeReadyFirst(t *testing.T) {
	for _, says := range []string{"attached", "failed", "nothing"} {
		t.Run(says, func(t *testing.T) {
			s, client, _ := shell(t)
			bound := bindings(client)
			s.config.profiles[v1.DefaultSchedulerName].DeviceBindTimeout = map[bool]time.Duration{true: 50 * time.Millisecond, false: time.Minute}[says == "nothing"]
			s.nodeSeen("a", aNode("a", "4"))
			s.table.Devices.SetClass("fabric", &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "fabric"}})
			s.table.Devices.SetSlice("s", &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: resourcev1.ResourceSliceSpec{
				Driver: "x.io", AllNodes: new(true), Pool: resourcev1.ResourcePool{Name: "f", Generation: 1, ResourceSliceCount: 1},
				Devices: []resourcev1.Device{{Name: "f0", BindsToNode: new(true), BindingConditions: []string{"attached"}, BindingFailureConditions: []string{"failed"}}}}})
			claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "uid"}, Spec: resourcev1.ResourceClaimSpec{
				Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{
					DeviceClassName: "fabric", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}}}}}}
			if err := client.Tracker().Add(claim); err != nil {
				t.Fatal(err)
			}
			s.table.Devices.SetClaim("default/c", claim)
			p := aPod("p", "1", 0)
			p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "g", ResourceClaimName: new("c")}}
			see(t, s, p)
			if !s.one(context.Background()) {
				t.Fatal("nothing was decided")
			}
			get := func() *resourcev1.ResourceClaim {
				got, err := client.ResourceV1().ResourceClaims("default").Get(t.Context(), "c", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			eventually(t, "the allocation", func() bool { return get().Status.Allocation != nil || says == "nothing" })
			if says != "nothing" {
				got := get()
				if got.Status.Allocation.AllocationTimestamp == nil || got.Status.Allocation.NodeSelector == nil || *bound != 0 {
					t.Errorf("allocation %+v, bound %d times", got.Status.Allocation, *bound)
				}
				got.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: "x.io", Pool: "f", Device: "f0", Conditions: []metav1.Condition{{Type: says, Status: metav1.ConditionTrue}}}}
				s.locked(func(time.Time) {
					s.table.Devices.SetClaim("default/c", got)
					s.storageMoved()
				})
			}
			s.group.Wait()
			kept := get().Status.Allocation != nil && len(get().Status.ReservedFor) == 1
			if good := says == "attached"; (*bound == 1) != good || kept != good || (s.queue.delay.Len() == 0) != good {
				t.Errorf("bound %d times, allocation kept %v, %d in back-off: %q", *bound, kept, s.queue.delay.Len(), s.explained["default/p"].Message)
			}
		})
	}
}

// A pod's extended resource that a device class serves is claimed for it; the claim goes when the binding fails.
func TestAnExtendedResourceIsClaimed(t *testing.T) {
	for _, fails := range []bool{false, true} {
		s, client, _ := shell(t)
		bound := bindings(client)
		if fails {
			client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewInternalError(context.DeadlineExceeded)
			})
		}
		s.nodeSeen("a", aNode("a", "4"))
		s.table.Devices.SetClass("gpu", &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: new("x.io/gpu")}})
		s.table.Devices.SetSlice("s", &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: resourcev1.ResourceSliceSpec{
			Driver: "gpu.x.io", NodeName: new("a"), Pool: resourcev1.ResourcePool{Name: "a", Generation: 1, ResourceSliceCount: 1}, Devices: []resourcev1.Device{{Name: "g0"}}}})
		p := aPod("p", "1", 0)
		p.Spec.Containers[0].Resources.Requests["x.io/gpu"] = resource.MustParse("1")
		if err := client.Tracker().Add(p); err != nil {
			t.Fatal(err)
		}
		see(t, s, p)
		if !s.one(context.Background()) {
			t.Fatal("nothing was decided")
		}
		s.group.Wait()
		list, err := client.ResourceV1().ResourceClaims("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if fails {
			if len(list.Items) != 0 || *bound != 0 || s.queue.delay.Len() != 1 {
				t.Errorf("%d claims are left, bound %d times, %d in back-off", len(list.Items), *bound, s.queue.delay.Len())
			}
			continue
		}
		got, err := client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		st := got.Status.ExtendedResourceClaimStatus
		if len(list.Items) != 1 || *bound != 1 || st == nil || st.ResourceClaimName != list.Items[0].Name || st.RequestMappings[0].RequestName != "container-0-request-1" {
			t.Fatalf("claims %+v, bound %d times, status %+v: %s", list.Items, *bound, st, s.explained["default/p"].Message)
		}
		if c := list.Items[0]; c.Status.Allocation.Devices.Results[0].Device != "g0" || c.Status.ReservedFor[0].Name != "p" || c.GenerateName != "p-extended-resources-" {
			t.Errorf("claim %+v", c)
		}
	}
}
