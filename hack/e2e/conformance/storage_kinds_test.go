//go:build e2e

package conformance

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const volumeManifest = `{"spec":{"capacity":{"storage":"1Gi"},"accessModes":["ReadWriteOnce"],"storageClassName":"$NAME","persistentVolumeReclaimPolicy":"Retain","csi":{"driver":"e2e.example.com","volumeHandle":"$NAME"}}}`

var storageKinds = []behaviour{
	{name: "CSIInlineVolumes should run through the lifecycle of a CSIDriver", test: operations(kind{name: "CSIDriver", resource: "storage.k8s.io/v1 csidrivers", manifest: `{"spec":{"attachRequired":false}}`})},
	{name: "CSINodes should run through the lifecycle of a csinode", test: operations(kind{name: "CSINode", resource: "storage.k8s.io/v1 csinodes", manifest: `{"spec":{"drivers":[]}}`})},
	{name: "CSIStorageCapacity should support CSIStorageCapacities API operations", test: operations(kind{name: "CSIStorageCapacity", resource: "storage.k8s.io/v1 csistoragecapacities", namespaced: true, manifest: `{"storageClassName":"x","capacity":"1Gi"}`})},
	{name: "StorageClasses should run through the lifecycle of a StorageClass", test: operations(kind{name: "StorageClass", resource: "storage.k8s.io/v1 storageclasses", manifest: `{"provisioner":"e2e.example.com"}`})},
	{name: "VolumeAttributesClass should run through the lifecycle of a VolumeAttributesClass", test: operations(kind{name: "VolumeAttributesClass", resource: "storage.k8s.io/v1 volumeattributesclasses", manifest: `{"driverName":"e2e.example.com","parameters":{"a":"b"}}`})},
	{name: "VolumeAttachment should run through the lifecycle of a VolumeAttachment and its status", test: operations(kind{name: "VolumeAttachment", resource: "storage.k8s.io/v1 volumeattachments", manifest: `{"spec":{"attacher":"e2e.example.com","nodeName":"no-such","source":{"persistentVolumeName":"$NAME"}}}`,
		status: `{"status":{"attached":true}}`, statusPath: "status.attached", statusValue: "true"})},
	{name: "PersistentVolumes should run through the lifecycle of a PV", test: operations(kind{name: "PersistentVolume", resource: "v1 persistentvolumes", manifest: volumeManifest, status: `{"status":{"reason":"E2E patchStatus","message":"StatusPatched"}}`, statusPath: "status.message", statusValue: "StatusPatched"})},
	{name: "PersistentVolumes should run through the lifecycle of a PVC", test: operations(kind{name: "PersistentVolumeClaim", resource: "v1 persistentvolumeclaims", namespaced: true, manifest: `{"spec":{"accessModes":["ReadWriteOnce"],"storageClassName":"none-such","resources":{"requests":{"storage":"1Gi"}}}}`,
		status: `{"status":{"conditions":[{"type":"StatusPatched","status":"True","reason":"E2E","message":"Set from e2e test"}]}}`, statusPath: "status.conditions.0.type", statusValue: "StatusPatched"})},
	{name: "CSIInlineVolumes should support CSIVolumeSource in Pod API", test: csiInline},
	{name: "PersistentVolumes bind to claims and are released", test: claimBinds},
	{name: "PersistentVolumes a pod reads what another wrote to its claim", test: claimUsed},
}

func csiInline(w *world) {
	must(api.StorageV1().CSIDrivers().Create(ctx, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "inline-" + w.ns},
		Spec: storagev1.CSIDriverSpec{VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}}}, metav1.CreateOptions{}))
	w.Cleanup(func() { _ = api.StorageV1().CSIDrivers().Delete(ctx, "inline-"+w.ns, metav1.DeleteOptions{}) })
	w.create(pod("inline", "true", volume("v", corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "inline-" + w.ns}})))
	pods := api.CoreV1().Pods(w.ns)
	must(pods.Patch(ctx, "inline", types.MergePatchType, []byte(`{"metadata":{"labels":{"inline":"patched"}}}`), metav1.PatchOptions{}))
	same("listed", len(must(pods.List(ctx, metav1.ListOptions{LabelSelector: "inline=patched"})).Items), 1)
	same("driver", w.get("inline").Spec.Volumes[0].CSI.Driver, "inline-"+w.ns)
	w.remove("inline")
}

var gigabyte = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}

// claim makes a volume on a node's disk and a claim for it, both of a class of the row's own.
func (w *world) claim(policy corev1.PersistentVolumeReclaimPolicy) {
	w.Helper()
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: w.ns}, Spec: corev1.PersistentVolumeSpec{
		Capacity: gigabyte, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		StorageClassName: w.ns, PersistentVolumeReclaimPolicy: policy,
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp/conformance-" + w.ns, Type: ptr(corev1.HostPathDirectoryOrCreate)}}}}
	must(api.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{}))
	w.Cleanup(func() { _ = api.CoreV1().PersistentVolumes().Delete(ctx, w.ns, metav1.DeleteOptions{}) })
	must(api.CoreV1().PersistentVolumeClaims(w.ns).Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "claim"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr(w.ns),
		Resources: corev1.VolumeResourceRequirements{Requests: gigabyte}}}, metav1.CreateOptions{}))
	w.until(30*time.Second, "the claim is bound", func() error {
		c := must(api.CoreV1().PersistentVolumeClaims(w.ns).Get(ctx, "claim", metav1.GetOptions{}))
		return differs("phase", c.Status.Phase, corev1.ClaimBound)
	})
}

func claimBinds(w *world) {
	w.claim(corev1.PersistentVolumeReclaimRetain)
	w.until(30*time.Second, "the volume is bound", func() error {
		return differs("phase", must(api.CoreV1().PersistentVolumes().Get(ctx, w.ns, metav1.GetOptions{})).Status.Phase, corev1.VolumeBound)
	})
	done(api.CoreV1().PersistentVolumeClaims(w.ns).Delete(ctx, "claim", metav1.DeleteOptions{}))
	w.until(30*time.Second, "the volume is released", func() error {
		return differs("phase", must(api.CoreV1().PersistentVolumes().Get(ctx, w.ns, metav1.GetOptions{})).Status.Phase, corev1.VolumeReleased)
	})
	done(api.CoreV1().PersistentVolumes().Delete(ctx, w.ns, metav1.DeleteOptions{}))
	w.until(30*time.Second, "the volume is gone", func() error {
		_, err := api.CoreV1().PersistentVolumes().Get(ctx, w.ns, metav1.GetOptions{})
		return absent(err)
	})
}

func claimUsed(w *world) {
	w.claim(corev1.PersistentVolumeReclaimRetain)
	source := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}
	w.prints(pod("writes", "echo kept >/etc/v/f", volume("v", source)))
	node := w.get("writes").Spec.NodeName
	w.ready(pod("reads", "cat /etc/v/f; "+sleepScript, volume("v", source), func(p *corev1.Pod) { p.Spec.NodeName = node }))
	same("file", w.sh("reads", "cat /etc/v/f"), "kept")
	done(api.CoreV1().PersistentVolumeClaims(w.ns).Delete(ctx, "claim", metav1.DeleteOptions{}))
	c, err := api.CoreV1().PersistentVolumeClaims(w.ns).Get(ctx, "claim", metav1.GetOptions{})
	if err != nil || c.DeletionTimestamp == nil {
		fatal("a claim in use went away: %v", err)
	}
	w.sh("reads", "rm /etc/v/f")
	w.remove("reads")
	w.remove("writes")
	w.until(30*time.Second, "the claim is gone", func() error {
		_, err := api.CoreV1().PersistentVolumeClaims(w.ns).Get(ctx, "claim", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("still there: %w", err)
	})
	parent := corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}
	w.prints(pod("clean", "rmdir /etc/v/conformance-"+w.ns, volume("v", parent), func(p *corev1.Pod) { p.Spec.NodeName = node }))
}
