package volumebinder

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	provisionedNote = "pv.kubernetes.io/provisioned-by"
	migratedNote    = "pv.kubernetes.io/migrated-to"
	inTree          = "kubernetes.io/" // begins the names of provisioners that were part of Kubernetes
)

// migrated are the provisioners of old whose volumes CSI drivers have taken over, with what ends them.
var migrated = []string{"aws-ebs", "azure-disk", "azure-file", "cinder", "gce-pd", "portworx-volume", "vsphere-volume"}

// refusal says why a released volume cannot be reclaimed as it asks to be; nil if it is kept, if somebody else ends it, or if
// it is going already. Nothing here reaches what volumes are made of: their provisioners do, and they know theirs by a note.
func refusal(v *corev1.PersistentVolume) *Event {
	if v.DeletionTimestamp != nil {
		return nil
	}
	switch v.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRecycle:
		return &Event{corev1.EventTypeWarning, "VolumeFailedRecycle", "No recycler plugin found for the volume!"}
	case corev1.PersistentVolumeReclaimDelete:
		if message := undeletable(v); message != "" {
			return &Event{corev1.EventTypeWarning, "VolumeFailedDelete", message}
		}
	}
	return nil
}

// undeletable says why nobody deletes a volume; "" if its provisioner does.
func undeletable(v *corev1.PersistentVolume) string {
	by := v.Annotations[provisionedNote]
	old, isOld := strings.CutPrefix(by, inTree)
	host := v.Spec.HostPath
	switch {
	case v.Annotations[migratedNote] != "", by != "" && !isOld, slices.Contains(migrated, old):
		return ""
	case isOld:
		return "no volume plugin matched name: " + by
	case host != nil && (len(host.Path) <= len("/tmp/") || !strings.HasPrefix(host.Path, "/tmp/")):
		return "host_path deleter only supports /tmp/.+ but received provided " + host.Path
	}
	return fmt.Sprintf("error getting deleter volume plugin for volume %q: no deletable volume plugin matched", v.Name)
}
