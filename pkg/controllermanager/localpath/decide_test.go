package localpath

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide shows the next step of every claim and of every volume, each with the pod that is named as it is.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		const dir = "/var/lib/local"
		var b strings.Builder
		pods := map[string]*corev1.Pod{}
		for _, p := range golden.Objects[corev1.Pod](t, files["pods.yaml"]) {
			pods[p.Name] = p
		}
		nodes := map[string]*corev1.Node{}
		for _, n := range golden.Objects[corev1.Node](t, files["nodes.yaml"]) {
			nodes[n.Name] = n
		}
		volumes := map[string]bool{}
		all := golden.Objects[corev1.PersistentVolume](t, files["volumes.yaml"])
		for _, v := range all {
			volumes[v.Name] = true
		}
		for _, c := range golden.Objects[corev1.PersistentVolumeClaim](t, files["claims.yaml"]) {
			s := ClaimSnapshot{Claim: c, Node: nodes[c.Annotations[selectedNote]], Volume: volumes[volumeName(c)], Pod: pods[c.Name], Dir: dir}
			for _, class := range golden.Objects[storagev1.StorageClass](t, files["classes.yaml"]) {
				if class.Name == *c.Spec.StorageClassName {
					s.Class = class
				}
			}
			b.WriteString("claim " + c.Name + "\n" + decideClaim(s).String())
		}
		for _, v := range all {
			b.WriteString("volume " + v.Name + "\n" + decideVolume(VolumeSnapshot{Volume: v, Node: nodes[hostOf(v)], Pod: pods[v.Name], Dir: dir}).String())
		}
		return b.String()
	})
}

// TestRemovesOnlyItsOwn wants no volume but one that was made here, and that nobody has, ever to be removed.
func TestRemovesOnlyItsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := &corev1.PersistentVolume{}
		v.Name = rapid.SampledFrom([]string{"pvc-00000000-0000-0000-0000-000000000001", "pvc-../etc", "..", "etc", ""}).Draw(t, "name")
		v.Annotations = map[string]string{provisionedNote: rapid.SampledFrom([]string{Provisioner, "other", ""}).Draw(t, "by")}
		v.Finalizers = rapid.SampledFrom([][]string{nil, {finalizer}}).Draw(t, "finalizers")
		v.Spec.HostPath = rapid.SampledFrom([]*corev1.HostPathVolumeSource{nil, {Path: "/"}, {Path: "/d/" + v.Name}, {Path: "/etc"}}).Draw(t, "path")
		v.Spec.PersistentVolumeReclaimPolicy = rapid.SampledFrom([]corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain}).Draw(t, "policy")
		v.Status.Phase = rapid.SampledFrom([]corev1.PersistentVolumePhase{corev1.VolumeBound, corev1.VolumeReleased, corev1.VolumeAvailable}).Draw(t, "phase")
		p := decideVolume(VolumeSnapshot{Volume: v, Node: &corev1.Node{}, Dir: "/d"})
		if p.Remove == "" {
			return
		}
		if p.Remove != "pvc-00000000-0000-0000-0000-000000000001" || v.Annotations[provisionedNote] != Provisioner || v.Spec.HostPath.Path != "/d/"+v.Name || v.Status.Phase == corev1.VolumeBound || v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
			t.Fatalf("%s goes", p.Remove)
		}
	})
}
