package realtest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"golang.org/x/sys/unix"
)

const driverName = "folders.sextant.local"

// calls are what the driver was asked, as "method volume code".
func (m *machine) calls() string {
	raw, _ := os.ReadFile(m.path("csi.log"))
	return string(raw)
}

func (m *machine) asked(t *testing.T, want string, times int) {
	t.Helper()
	if err := within(patience, func() error {
		if n := strings.Count(m.calls(), want+"\n"); n != times {
			return fmt.Errorf("%q was asked %d times, want %d:\n%s", want, n, times, m.calls())
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// blockDevice is any device of the machine with blocks; nothing is read from it.
func blockDevice(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir("/sys/block")
	if err != nil || len(entries) == 0 {
		t.Fatal("the machine has no block device: ", err)
	}
	raw, err := os.ReadFile(filepath.Join("/sys/block", entries[0].Name(), "dev"))
	if err != nil {
		t.Fatal(err)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(raw), "%d:%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	path := node.path("device")
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil {
		t.Fatal(err)
	}
	return path
}

// bound makes a claim with a volume behind it, attached.
func (m *machine) bound(t *testing.T, s *space, name string, pv *v1.PersistentVolume) {
	t.Helper()
	ctx, q := context.Background(), v1.ResourceList{"storage": resource.MustParse("1Gi")}
	modes := []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}
	claim, err := m.admin.CoreV1().PersistentVolumeClaims(s.name).Create(ctx, &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PersistentVolumeClaimSpec{VolumeName: name + "-pv", VolumeMode: pv.Spec.VolumeMode,
		AccessModes: modes, Resources: v1.VolumeResourceRequirements{Requests: q}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claim.Status.Phase, claim.Status.Capacity = v1.ClaimBound, q
	if _, err := m.admin.CoreV1().PersistentVolumeClaims(s.name).UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	pv.Name, pv.Spec.Capacity, pv.Spec.AccessModes, pv.Spec.ClaimRef = name+"-pv", q, modes, &v1.ObjectReference{Namespace: s.name, Name: name, UID: claim.UID}
	if _, err := m.admin.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("csi-%x", sha256.Sum256([]byte(pv.Spec.CSI.VolumeHandle+driverName+nodeName)))
	va, err := m.admin.StorageV1().VolumeAttachments().Create(ctx, &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: id}, Spec: storagev1.VolumeAttachmentSpec{Attacher: driverName, NodeName: nodeName, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv.Name}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	va.Status.Attached = true
	if _, err := m.admin.StorageV1().VolumeAttachments().UpdateStatus(ctx, va, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestXVolumeDriver takes a driver's volumes through attach, stage, publish and back, over a restart of the kubelet.
func TestXVolumeDriver(t *testing.T) {
	ctx := context.Background()
	s := newSpace(t)
	binary := node.path("csi-driver")
	build := exec.Command("go", "build", "-o", binary, "./hack/csi")
	build.Dir = repoRoot
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the driver: %v: %s", err, out)
	}
	data := node.path("csi-data")
	if err := os.MkdirAll(filepath.Join(data, "vol1"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := node.start("csi", binary, "-node", "folder-node", "-root", node.path("kubelet"), "-data", data, "-max-volumes", "7"); err != nil {
		t.Fatal(err)
	}
	if err := within(patience, func() error {
		n, err := node.admin.StorageV1().CSINodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err == nil && (len(n.Spec.Drivers) != 1 || n.Spec.Drivers[0].NodeID != "folder-node" || n.Spec.Drivers[0].Allocatable == nil || *n.Spec.Drivers[0].Allocatable.Count != 7) {
			err = fmt.Errorf("%+v", n.Spec)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	node.asked(t, "registered true ", 1)
	yes := true
	policy := storagev1.FileFSGroupPolicy
	if _, err := node.admin.StorageV1().CSIDrivers().Create(ctx, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: driverName}, Spec: storagev1.CSIDriverSpec{PodInfoOnMount: &yes, AttachRequired: &yes, FSGroupPolicy: &policy,
		VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	if got := s.says("inline", `{restartPolicy: Never, volumes: [{name: v, csi: {driver: `+driverName+`}}], containers: [{name: c, command: [cat, /v/pod], volumeMounts: [{name: v, mountPath: /v}]}]}`); got != "inline" {
		t.Errorf("the driver was not told of the pod: %q", got)
	}
	s.gone("inline")

	q := resource.MustParse("1Gi")
	claim, err := node.admin.CoreV1().PersistentVolumeClaims(s.name).Create(ctx, &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "claim"}, Spec: v1.PersistentVolumeClaimSpec{VolumeName: "csi-pv",
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{"storage": q}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claim.Status.Phase, claim.Status.Capacity = v1.ClaimBound, v1.ResourceList{"storage": q}
	claim.Status.Conditions = []v1.PersistentVolumeClaimCondition{{Type: v1.PersistentVolumeClaimFileSystemResizePending, Status: v1.ConditionTrue}}
	claim.Status.AllocatedResourceStatuses = map[v1.ResourceName]v1.ClaimResourceStatus{"storage": v1.PersistentVolumeClaimNodeResizePending}
	if _, err := node.admin.CoreV1().PersistentVolumeClaims(s.name).UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := node.admin.CoreV1().PersistentVolumes().Create(ctx, &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "csi-pv"}, Spec: v1.PersistentVolumeSpec{Capacity: v1.ResourceList{"storage": q}, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		ClaimRef: &v1.ObjectReference{Namespace: s.name, Name: "claim", UID: claim.UID}, PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: "vol1"}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	spec := `{securityContext: {fsGroup: 4242}, volumes: [{name: v, persistentVolumeClaim: {claimName: claim}}], containers: [{name: c, command: [sh, -c, "echo $HOSTNAME >> /v/f; sleep 600"], volumeMounts: [{name: v, mountPath: /v}, {name: v, mountPath: /sub, subPath: s}]}]}`
	s.create("one", spec)
	s.event("one", `FailedMount: MountVolume.SetUp failed for volume "v" : volume csi-pv: not attached yet`)
	name := fmt.Sprintf("csi-%x", sha256.Sum256([]byte("vol1"+driverName+nodeName)))
	pv := "csi-pv"
	va, err := node.admin.StorageV1().VolumeAttachments().Create(ctx, &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.VolumeAttachmentSpec{Attacher: driverName, NodeName: nodeName, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	va.Status.Attached = true
	if _, err := node.admin.StorageV1().VolumeAttachments().UpdateStatus(ctx, va, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.ready("one")
	s.create("two", spec)
	s.ready("two")
	s.shows("two", "one\ntwo", "cat", "/v/f")
	s.shows("two", "4242", "stat", "-c", "%g", "/v/f")
	if err := within(patience, func() error {
		n, err := node.admin.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err == nil && (!slices.Contains(n.Status.VolumesInUse, v1.UniqueVolumeName("kubernetes.io/csi/"+driverName+"^vol1")) || !strings.Contains(n.Annotations["csi.volume.kubernetes.io/nodeid"], "folder-node")) {
			err = fmt.Errorf("in use %v, annotations %v", n.Status.VolumesInUse, n.Annotations)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	// The driver's figures are the volume's.
	if err := within(patience, func() error {
		raw, err := node.admin.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/" + nodeName + "/proxy/stats/summary").DoRaw(ctx)
		if err == nil && !strings.Contains(strings.Join(strings.Fields(string(raw)), ""), `"capacityBytes":1073741824,"usedBytes":268435456,"inodesFree":90,"inodes":100,"inodesUsed":10`) {
			err = fmt.Errorf("%s", raw)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	// The control plane has given the volume more: the driver takes it while the pods run, and the claim says so.
	resize := func(size string) {
		t.Helper()
		body := fmt.Sprintf(`{"spec": {"capacity": {"storage": %q}}}`, size)
		if _, err := node.admin.CoreV1().PersistentVolumes().Patch(ctx, "csi-pv", types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	claimIs := func(ok func(*v1.PersistentVolumeClaim) bool) {
		t.Helper()
		if err := within(patience, func() error {
			c, err := node.admin.CoreV1().PersistentVolumeClaims(s.name).Get(ctx, "claim", metav1.GetOptions{})
			if err == nil && !ok(c) {
				err = fmt.Errorf("%+v", c.Status)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	resize("2Gi")
	claimIs(func(c *v1.PersistentVolumeClaim) bool {
		return c.Status.Capacity.Storage().String() == "2Gi" && len(c.Status.Conditions) == 0 && len(c.Status.AllocatedResourceStatuses) == 0
	})
	s.shows("two", "2147483648", "cat", "/v/size")
	resize("2Ti")
	claimIs(func(c *v1.PersistentVolumeClaim) bool {
		return c.Status.Capacity.Storage().String() == "2Gi" && c.Status.AllocatedResourceStatuses["storage"] == v1.PersistentVolumeClaimNodeResizeInfeasible
	})
	s.event("", `VolumeResizeFailed: NodeExpandVolume failed for volume "v"`) // of whichever pod asked first
	s.gone("one")
	node.asked(t, "NodeUnstageVolume vol1 OK", 0)
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	if err := node.startKubelet(nil); err != nil {
		t.Fatal(err)
	}
	s.shows("two", "one\ntwo", "cat", "/v/f")
	s.gone("two")
	node.asked(t, "NodePublishVolume vol1 OK", 2)
	node.asked(t, "NodeUnpublishVolume vol1 OK", 2)
	node.asked(t, "NodeUnstageVolume vol1 OK", 1)
	// A volume may be a device, which the container gets as such.
	device := blockDevice(t)
	block := v1.PersistentVolumeBlock
	node.bound(t, s, "raw", &v1.PersistentVolume{Spec: v1.PersistentVolumeSpec{VolumeMode: &block, PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: "raw1", VolumeAttributes: map[string]string{"device": device}}}}})
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		t.Fatal(err)
	}
	if got := s.says("raw", `{restartPolicy: Never, volumes: [{name: v, persistentVolumeClaim: {claimName: raw}}], containers: [{name: c, command: [sh, -c, "test -b /dev/x && stat -c '%t %T' /dev/x"], volumeDevices: [{name: v, devicePath: /dev/x}]}]}`); got != fmt.Sprintf("%x %x\n", unix.Major(st.Rdev), unix.Minor(st.Rdev)) {
		t.Errorf("the device is %q", got)
	}
	s.gone("raw")
	node.asked(t, "NodeUnpublishVolume raw1 OK", 1)
	node.asked(t, "NodeUnstageVolume raw1 OK", 1)
	if raw, err := os.ReadFile(filepath.Join(data, "vol1/f")); err != nil || string(raw) != "one\ntwo\n" {
		t.Errorf("the volume itself: %q %v", raw, err)
	}
}
