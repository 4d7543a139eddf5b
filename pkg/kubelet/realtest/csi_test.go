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
	claim.Status.Phase = v1.ClaimBound
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
	if raw, err := os.ReadFile(filepath.Join(data, "vol1/f")); err != nil || string(raw) != "one\ntwo\n" {
		t.Errorf("the volume itself: %q %v", raw, err)
	}
}
