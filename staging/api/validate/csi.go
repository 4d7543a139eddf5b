package validate

import (
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of names in the storage group, in bytes.
const (
	driverNameLength = 63
	nodeIDLength     = 192
)

// driverName checks what a CSI driver is called.
func driverName(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if len(name) > driverNameLength {
		errs = append(errs, field.TooLong(at, "", driverNameLength))
	}
	return append(errs, wrong(at, name, utilvalidation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}

// CSIDriver answers what is wrong with a CSI driver.
func CSIDriver(d *storagev1.CSIDriver) field.ErrorList {
	errs := validation.ValidateObjectMeta(&d.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	return append(errs, driverSpec(&d.Spec)...)
}

// CSIDriverUpdate answers what is wrong with a CSI driver in the place of old.
func CSIDriverUpdate(d, old *storagev1.CSIDriver) field.ErrorList {
	errs := append(common(&d.ObjectMeta, &old.ObjectMeta, false), driverSpec(&d.Spec)...)
	at := field.NewPath("spec")
	errs = append(errs, validation.ValidateImmutableField(d.Spec.AttachRequired, old.Spec.AttachRequired, at.Child("attachedRequired"))...)
	return append(errs, validation.ValidateImmutableField(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, at.Child("volumeLifecycleModes"))...)
}

func driverSpec(s *storagev1.CSIDriverSpec) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("spec")
	if s.AttachRequired == nil {
		errs = append(errs, field.Required(at.Child("attachedRequired"), ""))
	}
	if s.PodInfoOnMount == nil {
		errs = append(errs, field.Required(at.Child("podInfoOnMount"), ""))
	}
	if s.StorageCapacity == nil {
		errs = append(errs, field.Required(at.Child("storageCapacity"), ""))
	}
	if s.FSGroupPolicy == nil {
		errs = append(errs, field.Required(at.Child("fsGroupPolicy"), ""))
	} else {
		errs = append(errs, among(at.Child("fsGroupPolicy"), *s.FSGroupPolicy, storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	}
	audiences := map[string]bool{}
	for i, r := range s.TokenRequests {
		p := at.Child("tokenRequests").Index(i)
		if audiences[r.Audience] {
			errs = append(errs, field.Duplicate(p.Child("audience"), r.Audience))
			continue
		}
		audiences[r.Audience] = true
		if e := r.ExpirationSeconds; e != nil && *e < 600 {
			errs = append(errs, field.Invalid(p.Child("expirationSeconds"), *e, "may not specify a duration less than 10 minutes"))
		}
		if e := r.ExpirationSeconds; e != nil && *e > 1<<32 {
			errs = append(errs, field.Invalid(p.Child("expirationSeconds"), *e, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	for _, m := range s.VolumeLifecycleModes {
		errs = append(errs, among(at.Child("volumeLifecycleModes"), m, storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)...)
	}
	if n := s.NodeAllocatableUpdatePeriodSeconds; n != nil && *n < 10 {
		errs = append(errs, field.Invalid(at.Child("nodeAllocatableUpdatePeriodSeconds"), *n, "must be greater than or equal to 10 seconds"))
	}
	return errs
}

// CSINode answers what is wrong with a node's list of CSI drivers.
func CSINode(n *storagev1.CSINode) field.ErrorList {
	errs := validation.ValidateObjectMeta(&n.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	at, names := field.NewPath("spec", "drivers"), map[string]bool{}
	for i := range n.Spec.Drivers {
		d, p := &n.Spec.Drivers[i], at.Index(i)
		errs = append(errs, driverName(d.Name, p.Child("name"))...)
		if d.NodeID == "" {
			errs = append(errs, field.Required(p.Child("nodeID"), ""))
		}
		if len(d.NodeID) > nodeIDLength {
			errs = append(errs, field.Invalid(p.Child("nodeID"), d.NodeID, "must be 192 characters or less"))
		}
		if d.Allocatable != nil && d.Allocatable.Count != nil {
			errs = append(errs, validation.ValidateNonnegativeField(int64(*d.Allocatable.Count), p.Child("allocatable", "count"))...)
		}
		if names[d.Name] {
			errs = append(errs, field.Duplicate(p.Child("name"), d.Name))
		}
		names[d.Name] = true
		keys := map[string]bool{}
		for _, k := range d.TopologyKeys {
			if k == "" {
				errs = append(errs, field.Required(p, ""))
			}
			if keys[k] {
				errs = append(errs, field.Duplicate(p, k))
			}
			keys[k] = true
			errs = append(errs, qualified(p, k)...)
		}
	}
	return errs
}

// CSINodeUpdate answers what is wrong with a node's list of CSI drivers in the place of old: a driver that stays is the same.
func CSINodeUpdate(n, old *storagev1.CSINode) field.ErrorList {
	errs := append(common(&n.ObjectMeta, &old.ObjectMeta, false), CSINode(n)...)
	for i, d := range n.Spec.Drivers {
		for _, o := range old.Spec.Drivers {
			// How many volumes a node takes may be learned again; who and where it is may not.
			o.Allocatable = d.Allocatable
			if d.Name == o.Name && !equality.Semantic.DeepEqual(d, o) {
				errs = append(errs, field.Invalid(field.NewPath("spec", "drivers").Index(i), d, "field is immutable"))
			}
		}
	}
	return errs
}

// VolumeAttachment answers what is wrong with the wish to attach a volume.
func VolumeAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	errs := validation.ValidateObjectMeta(&a.ObjectMeta, false, validation.NameIsDNSSubdomain, metadata)
	at := field.NewPath("spec")
	errs = append(errs, driverName(a.Spec.Attacher, at.Child("attacher"))...)
	switch s := a.Spec.Source; {
	case s.InlineVolumeSpec == nil && (s.PersistentVolumeName == nil || *s.PersistentVolumeName == ""):
		errs = append(errs, field.Required(at.Child("source"), "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case s.InlineVolumeSpec != nil && s.PersistentVolumeName != nil:
		errs = append(errs, field.Forbidden(at.Child("source"), "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case s.PersistentVolumeName != nil:
		errs = append(errs, wrong(at.Child("source", "persistentVolumeName"), *s.PersistentVolumeName, utilvalidation.IsDNS1123Subdomain(*s.PersistentVolumeName))...)
	default:
		errs = append(errs, volumeSpec(s.InlineVolumeSpec, a.Name, true, at.Child("source", "inlineVolumeSpec"))...)
	}
	return append(errs, wrong(at.Child("nodeName"), a.Spec.NodeName, validation.NameIsDNSSubdomain(a.Spec.NodeName, false))...)
}

// VolumeAttachmentUpdate answers what is wrong with the wish to attach a volume in the place of old.
func VolumeAttachmentUpdate(a, old *storagev1.VolumeAttachment) field.ErrorList {
	errs := append(common(&a.ObjectMeta, &old.ObjectMeta, false), VolumeAttachment(a)...)
	return append(errs, validation.ValidateImmutableField(a.Spec, old.Spec, field.NewPath("spec"))...)
}
