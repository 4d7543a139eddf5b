package validate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var accessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod}

// PersistentVolume answers what is wrong with a volume.
func PersistentVolume(v *corev1.PersistentVolume) field.ErrorList {
	errs := validation.ValidateObjectMeta(&v.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	return append(errs, volumeSpec(&v.Spec, v.Name, false, field.NewPath("spec"))...)
}

// PersistentVolumeUpdate answers what is wrong with a volume in the place of old: where its bytes are, how they are read
// and from which nodes never changes.
func PersistentVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	errs := append(common(&v.ObjectMeta, &old.ObjectMeta, false), PersistentVolume(v)...)
	errs = append(errs, PersistentVolume(v)...)
	// How secrets are reached for growing a volume may be told later than the rest.
	is := v.Spec.PersistentVolumeSource
	if is.CSI != nil && old.Spec.CSI != nil {
		csi := *is.CSI
		if old.Spec.CSI.ControllerExpandSecretRef == nil {
			csi.ControllerExpandSecretRef = nil
		}
		if old.Spec.CSI.NodeExpandSecretRef == nil {
			csi.NodeExpandSecretRef = nil
		}
		is.CSI = &csi
	}
	if !equality.Semantic.DeepEqual(is, old.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"), "spec.persistentvolumesource is immutable after creation"))
	}
	errs = append(errs, validation.ValidateImmutableField(v.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if old.Spec.NodeAffinity != nil && !equality.Semantic.DeepEqual(unrenamed(v.Spec.NodeAffinity, old.Spec.NodeAffinity), old.Spec.NodeAffinity) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), v.Spec.NodeAffinity, "field is immutable, except for updating from beta label to GA"))
	}
	return errs
}

var renamedLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	"beta.kubernetes.io/os": corev1.LabelOSStable, "beta.kubernetes.io/arch": corev1.LabelArchStable, corev1.LabelInstanceType: corev1.LabelInstanceTypeStable,
}

// unrenamed is an affinity in which labels that have today's names have the names that they had in old. One that has no name
// any more counts as renamed, as upstream has it: it is refused for that alone.
func unrenamed(a, old *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	a = a.DeepCopy()
	if a == nil || a.Required == nil || old.Required == nil {
		return a
	}
	for i := range a.Required.NodeSelectorTerms[:min(len(a.Required.NodeSelectorTerms), len(old.Required.NodeSelectorTerms))] {
		is, was := a.Required.NodeSelectorTerms[i].MatchExpressions, old.Required.NodeSelectorTerms[i].MatchExpressions
		for j := range is[:min(len(is), len(was))] {
			if renamedLabels[was[j].Key] == is[j].Key {
				is[j].Key = was[j].Key
			}
		}
	}
	return a
}

// volumeSpec checks a volume; one that stands in another object has no class, claim or affinity of its own.
func volumeSpec(s *corev1.PersistentVolumeSpec, name string, inline bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.AccessModes) == 0 {
		errs = append(errs, field.Required(at.Child("accessModes"), ""))
	}
	errs = append(errs, modesOf(s.AccessModes, at.Child("accessModes"))...)
	if !inline {
		if len(s.Capacity) == 0 {
			errs = append(errs, field.Required(at.Child("capacity"), ""))
		}
		if q, ok := s.Capacity[corev1.ResourceStorage]; !ok || len(s.Capacity) > 1 {
			errs = append(errs, field.NotSupported(at.Child("capacity"), s.Capacity, []corev1.ResourceName{corev1.ResourceStorage}))
		} else if q.Sign() <= 0 {
			errs = append(errs, field.Invalid(at.Child("capacity").Key(string(corev1.ResourceStorage)), q.String(), "must be greater than zero"))
		}
	}
	if p := s.PersistentVolumeReclaimPolicy; p != "" && !inline {
		errs = append(errs, among(at.Child("persistentVolumeReclaimPolicy"), p, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)...)
	}
	if a := s.NodeAffinity; a != nil {
		p := at.Child("nodeAffinity")
		if inline {
			errs = append(errs, field.Forbidden(p, "may not be specified in the context of inline volumes"))
		} else if a.Required == nil {
			errs = append(errs, field.Required(p.Child("required"), "must specify required node constraints"))
		} else {
			errs = append(errs, nodeSelector(a.Required, p.Child("required"))...)
		}
	}
	errs = append(errs, volumePlace(s, name, at)...)
	if s.HostPath != nil && s.HostPath.Path == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(at.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	if c := s.StorageClassName; c != "" {
		errs = append(errs, wrong(at.Child("storageClassName"), c, validation.NameIsDNSSubdomain(c, false))...)
	}
	if m := s.VolumeMode; m != nil {
		errs = append(errs, among(at.Child("volumeMode"), *m, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	if c := s.VolumeAttributesClassName; c != nil {
		p := at.Child("volumeAttributesClassName")
		if *c == "" {
			errs = append(errs, field.Required(p, "an empty string is disallowed"))
		} else {
			errs = append(errs, wrong(p, *c, validation.NameIsDNSSubdomain(*c, false))...)
		}
		if s.CSI == nil {
			errs = append(errs, field.Required(at.Child("csi"), "has to be specified when using volumeAttributesClassName"))
		}
	}
	return errs
}

func modesOf(modes []corev1.PersistentVolumeAccessMode, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	alone := false
	for _, m := range modes {
		errs = append(errs, among(at, m, accessModes...)...)
		alone = alone || m == corev1.ReadWriteOncePod
	}
	if alone && len(modes) > 1 {
		errs = append(errs, field.Forbidden(at, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

// volumePlace checks where a volume's bytes are.
func volumePlace(s *corev1.PersistentVolumeSpec, name string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	n := 0
	source := func(is bool, name string, check func(*field.Path) field.ErrorList) {
		if !is {
			return
		}
		p := at.Child(name)
		if n++; n > 1 {
			errs = append(errs, field.Forbidden(p, "may not specify more than 1 volume type"))
			return
		}
		errs = append(errs, check(p)...)
	}
	source(s.HostPath != nil, "hostPath", func(p *field.Path) field.ErrorList { return hostPath(s.HostPath, p) })
	source(s.GCEPersistentDisk != nil, "gcePersistentDisk", func(p *field.Path) field.ErrorList { return required(s.GCEPersistentDisk.PDName, p.Child("pdName")) })
	source(s.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(p *field.Path) field.ErrorList {
		return required(s.AWSElasticBlockStore.VolumeID, p.Child("volumeID"))
	})
	source(s.NFS != nil, "nfs", func(p *field.Path) field.ErrorList { return nfs(s.NFS, p) })
	source(s.ISCSI != nil, "iscsi", func(p *field.Path) field.ErrorList {
		return append(required(s.ISCSI.TargetPortal, p.Child("targetPortal")), required(s.ISCSI.IQN, p.Child("iqn"))...)
	})
	source(s.Local != nil, "local", func(p *field.Path) field.ErrorList {
		errs := required(s.Local.Path, p.Child("path"))
		if s.Local.Path != "" {
			errs = append(errs, upward(s.Local.Path, p.Child("path"))...)
		}
		if s.NodeAffinity == nil {
			errs = append(errs, field.Required(at.Child("nodeAffinity"), "Local volume requires node affinity"))
		}
		return errs
	})
	source(s.CSI != nil, "csi", func(p *field.Path) field.ErrorList { return csiPlace(s.CSI, p) })
	// The drivers of plugins that no kubelet has any more are taken as they come.
	if s.RBD != nil || s.Cinder != nil || s.CephFS != nil || s.Flocker != nil || s.FC != nil || s.AzureFile != nil || s.VsphereVolume != nil ||
		s.Quobyte != nil || s.AzureDisk != nil || s.PhotonPersistentDisk != nil || s.PortworxVolume != nil || s.ScaleIO != nil || s.StorageOS != nil ||
		s.FlexVolume != nil || s.Glusterfs != nil {
		n++
	}
	if n == 0 {
		errs = append(errs, field.Required(at, "must specify a volume type"))
	}
	return errs
}

func csiPlace(c *corev1.CSIPersistentVolumeSource, at *field.Path) field.ErrorList {
	errs := driverName(c.Driver, at.Child("driver"))
	errs = append(errs, required(c.VolumeHandle, at.Child("volumeHandle"))...)
	for _, s := range []struct {
		name string
		ref  *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", c.ControllerPublishSecretRef}, {"controllerExpandSecretRef", c.ControllerExpandSecretRef},
		{"nodePublishSecretRef", c.NodePublishSecretRef}, {"nodeStageSecretRef", c.NodeStageSecretRef}, {"nodeExpandSecretRef", c.NodeExpandSecretRef},
	} {
		if s.ref == nil {
			continue
		}
		p := at.Child(s.name)
		errs = append(errs, required(s.ref.Name, p.Child("name"))...)
		if s.ref.Namespace == "" {
			errs = append(errs, field.Required(p.Child("namespace"), ""))
		} else {
			errs = append(errs, wrong(p.Child("namespace"), s.ref.Namespace, utilvalidation.IsDNS1123Label(s.ref.Namespace))...)
		}
	}
	return errs
}

// PersistentVolumeClaim answers what is wrong with a claim.
func PersistentVolumeClaim(c *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := validation.ValidateObjectMeta(&c.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata)
	return append(errs, claimSpec(&c.Spec, field.NewPath("spec"))...)
}

func claimSpec(s *corev1.PersistentVolumeClaimSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.AccessModes) == 0 {
		errs = append(errs, field.Required(at.Child("accessModes"), "at least 1 access mode is required"))
	}
	if s.Selector != nil {
		errs = append(errs, labelSelector(s.Selector, at.Child("selector"))...)
	}
	errs = append(errs, modesOf(s.AccessModes, at.Child("accessModes"))...)
	p := at.Child("resources").Key(string(corev1.ResourceStorage))
	if q, ok := s.Resources.Requests[corev1.ResourceStorage]; !ok {
		errs = append(errs, field.Required(p, ""))
	} else if q.Sign() <= 0 {
		errs = append(errs, field.Invalid(p, q.String(), "must be greater than zero"))
	}
	if c := s.StorageClassName; c != nil && *c != "" {
		errs = append(errs, wrong(at.Child("storageClassName"), *c, validation.NameIsDNSSubdomain(*c, false))...)
	}
	if m := s.VolumeMode; m != nil {
		errs = append(errs, among(at.Child("volumeMode"), *m, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	if d := s.DataSource; d != nil {
		errs = append(errs, contents(d.APIGroup, d.Kind, d.Name, at.Child("dataSource"))...)
	}
	if d := s.DataSourceRef; d != nil {
		errs = append(errs, contents(d.APIGroup, d.Kind, d.Name, at.Child("dataSourceRef"))...)
		if d.Namespace != nil && *d.Namespace != "" {
			errs = append(errs, wrong(at.Child("dataSourceRef", "namespace"), *d.Namespace, validation.ValidateNamespaceName(*d.Namespace, false))...)
			if s.DataSource != nil {
				errs = append(errs, field.Invalid(at, at.Child("dataSource"), "may not be specified when dataSourceRef.namespace is specified"))
			}
		} else if s.DataSource != nil {
			same := corev1.TypedLocalObjectReference{APIGroup: d.APIGroup, Kind: d.Kind, Name: d.Name}
			if !equality.Semantic.DeepEqual(&same, s.DataSource) {
				errs = append(errs, field.Invalid(at, at.Child("dataSource"), "must match dataSourceRef"))
			}
		}
	}
	if c := s.VolumeAttributesClassName; c != nil && *c != "" {
		errs = append(errs, wrong(at.Child("volumeAttributesClassName"), *c, validation.NameIsDNSSubdomain(*c, false))...)
	}
	return errs
}

// contents checks what a claim's volume is filled from.
func contents(group *string, kind, name string, at *field.Path) field.ErrorList {
	errs := append(required(name, at.Child("name")), required(kind, at.Child("kind"))...)
	g := ""
	if group != nil {
		g = *group
	}
	if g == "" && kind != "PersistentVolumeClaim" {
		errs = append(errs, field.Invalid(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
	}
	return errs
}

// PersistentVolumeClaimUpdate answers what is wrong with a claim in the place of old: it is settled when made, but for its
// binding once, its class if it named none, and, once bound, its size and attributes class.
func PersistentVolumeClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	at := field.NewPath("spec")
	errs := append(common(&c.ObjectMeta, &old.ObjectMeta, true), PersistentVolumeClaim(c)...)
	rest, was := c.Spec, old.Spec
	if was.VolumeName == "" {
		rest.VolumeName = ""
	}
	if was.StorageClassName == nil {
		rest.StorageClassName = nil
	}
	if old.Status.Phase == corev1.ClaimBound {
		rest.Resources.Requests, rest.VolumeAttributesClassName = was.Resources.Requests, was.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(rest, was) {
		errs = append(errs, field.Forbidden(at, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"))
	}
	size, asked, before := old.Status.Capacity[corev1.ResourceStorage], c.Spec.Resources.Requests[corev1.ResourceStorage], was.Resources.Requests[corev1.ResourceStorage]
	if asked.Cmp(before) < 0 && asked.Cmp(size) <= 0 {
		errs = append(errs, field.Forbidden(at.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	return append(errs, validation.ValidateImmutableField(c.Spec.VolumeMode, was.VolumeMode, field.NewPath("volumeMode"))...)
}
