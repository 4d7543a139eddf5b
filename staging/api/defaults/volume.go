package defaults

import corev1 "k8s.io/api/core/v1"

// tokenSeconds is how long a projected token is asked to live.
const tokenSeconds = 3600

func volume(v *corev1.Volume) {
	s := &v.VolumeSource
	if *s == (corev1.VolumeSource{}) {
		s.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	switch {
	case s.Secret != nil:
		set(&s.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	case s.ConfigMap != nil:
		set(&s.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	case s.DownwardAPI != nil:
		set(&s.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		files(s.DownwardAPI.Items)
	case s.Projected != nil:
		set(&s.Projected.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
		for i := range s.Projected.Sources {
			src := &s.Projected.Sources[i]
			if src.ServiceAccountToken != nil {
				set(&src.ServiceAccountToken.ExpirationSeconds, int64(tokenSeconds))
			}
			if src.DownwardAPI != nil {
				files(src.DownwardAPI.Items)
			}
		}
	case s.HostPath != nil:
		set(&s.HostPath.Type, corev1.HostPathUnset)
	case s.ISCSI != nil:
		fill(&s.ISCSI.ISCSIInterface, "default")
	case s.RBD != nil:
		fill(&s.RBD.RBDPool, "rbd")
		fill(&s.RBD.RadosUser, "admin")
		fill(&s.RBD.Keyring, "/etc/ceph/keyring")
	case s.AzureDisk != nil:
		set(&s.AzureDisk.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		set(&s.AzureDisk.Kind, corev1.AzureSharedBlobDisk)
		set(&s.AzureDisk.FSType, "ext4")
		set(&s.AzureDisk.ReadOnly, false)
	case s.ScaleIO != nil:
		fill(&s.ScaleIO.StorageMode, "ThinProvisioned")
		fill(&s.ScaleIO.FSType, "xfs")
	case s.Ephemeral != nil && s.Ephemeral.VolumeClaimTemplate != nil:
		claim(&s.Ephemeral.VolumeClaimTemplate.Spec)
	case s.Image != nil && s.Image.PullPolicy == "":
		s.Image.PullPolicy = corev1.PullIfNotPresent
		if latest(s.Image.Reference) {
			s.Image.PullPolicy = corev1.PullAlways
		}
	}
}

func files(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		if items[i].FieldRef != nil {
			fill(&items[i].FieldRef.APIVersion, "v1")
		}
	}
}

func claim(s *corev1.PersistentVolumeClaimSpec) {
	set(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
}

// PersistentVolumeClaim fills in a claim.
func PersistentVolumeClaim(c *corev1.PersistentVolumeClaim) {
	fill(&c.Status.Phase, corev1.ClaimPending)
	claim(&c.Spec)
}

// PersistentVolume fills in a volume.
func PersistentVolume(v *corev1.PersistentVolume) {
	fill(&v.Status.Phase, corev1.VolumePending)
	fill(&v.Spec.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimRetain)
	set(&v.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
	if v.Spec.HostPath != nil {
		set(&v.Spec.HostPath.Type, corev1.HostPathUnset)
	}
}
