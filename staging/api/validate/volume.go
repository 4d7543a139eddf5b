package validate

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const modeRange = "must be a number between 0 and 0777 (octal), both inclusive"

// volumes checks a pod's volumes; the ones with a good name are answered by it, for the mounts.
func volumes(list []corev1.Volume, at *field.Path) (map[string]corev1.VolumeSource, field.ErrorList) {
	var errs field.ErrorList
	names := map[string]corev1.VolumeSource{}
	for i := range list {
		v, p := &list[i], at.Index(i)
		own := volumeSource(&v.VolumeSource, v.Name, p)
		name := p.Child("name")
		if v.Name == "" {
			own = append(own, field.Required(name, ""))
		} else if msgs := utilvalidation.IsDNS1123Label(v.Name); len(msgs) > 0 {
			own = append(own, invalid(name, v.Name, msgs)...)
		} else if _, twice := names[v.Name]; twice {
			own = append(own, field.Duplicate(name, v.Name))
		}
		if len(own) == 0 {
			names[v.Name] = v.VolumeSource
		}
		errs = append(errs, own...)
	}
	return names, errs
}

func volumeSource(s *corev1.VolumeSource, name string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	n := 0
	// source checks one kind of source if it is set, and refuses a second.
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
	need := func(value, name string) func(*field.Path) field.ErrorList {
		return func(p *field.Path) field.ErrorList { return required(value, p.Child(name)) }
	}
	source(s.EmptyDir != nil, "emptyDir", func(p *field.Path) field.ErrorList {
		if q := s.EmptyDir.SizeLimit; q != nil && q.Cmp(resource.Quantity{}) < 0 {
			return field.ErrorList{field.Forbidden(p.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")}
		}
		return nil
	})
	source(s.HostPath != nil, "hostPath", func(p *field.Path) field.ErrorList { return hostPath(s.HostPath, p) })
	source(s.GCEPersistentDisk != nil, "gcePersistentDisk", func(p *field.Path) field.ErrorList { return required(s.GCEPersistentDisk.PDName, p.Child("pdName")) })
	source(s.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(p *field.Path) field.ErrorList {
		return required(s.AWSElasticBlockStore.VolumeID, p.Child("volumeID"))
	})
	source(s.Secret != nil, "secret", func(p *field.Path) field.ErrorList {
		return keyed(s.Secret.SecretName, "secretName", s.Secret.DefaultMode, s.Secret.Items, p)
	})
	source(s.NFS != nil, "nfs", func(p *field.Path) field.ErrorList { return nfs(s.NFS, p) })
	source(s.ISCSI != nil, "iscsi", func(p *field.Path) field.ErrorList {
		return append(required(s.ISCSI.TargetPortal, p.Child("targetPortal")), required(s.ISCSI.IQN, p.Child("iqn"))...)
	})
	source(s.PersistentVolumeClaim != nil, "persistentVolumeClaim", func(p *field.Path) field.ErrorList {
		return required(s.PersistentVolumeClaim.ClaimName, p.Child("claimName"))
	})
	source(s.DownwardAPI != nil, "downwardAPI", func(p *field.Path) field.ErrorList {
		errs := mode(s.DownwardAPI.DefaultMode, p.Child("defaultMode"))
		for i := range s.DownwardAPI.Items {
			errs = append(errs, downwardFile(&s.DownwardAPI.Items[i], p)...)
		}
		return errs
	})
	source(s.ConfigMap != nil, "configMap", func(p *field.Path) field.ErrorList {
		return keyed(s.ConfigMap.Name, "name", s.ConfigMap.DefaultMode, s.ConfigMap.Items, p)
	})
	source(s.Projected != nil, "projected", func(p *field.Path) field.ErrorList { return projected(s.Projected, p) })
	source(s.CSI != nil, "csi", func(p *field.Path) field.ErrorList { return need(s.CSI.Driver, "driver")(p) })
	source(s.Image != nil, "image", func(p *field.Path) field.ErrorList {
		errs := required(s.Image.Reference, p.Child("reference"))
		return add(errs, oneOf(p.Child("pullPolicy"), s.Image.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever))
	})
	source(s.Ephemeral != nil, "ephemeral", func(p *field.Path) field.ErrorList {
		if s.Ephemeral.VolumeClaimTemplate == nil {
			return field.ErrorList{field.Required(p.Child("volumeClaimTemplate"), "")}
		}
		return nil
	})
	// The drivers of plugins that no kubelet has any more are taken as they come.
	if s.GitRepo != nil || s.RBD != nil || s.Cinder != nil || s.CephFS != nil || s.Flocker != nil || s.FC != nil || s.AzureFile != nil ||
		s.VsphereVolume != nil || s.Quobyte != nil || s.AzureDisk != nil || s.PhotonPersistentDisk != nil || s.PortworxVolume != nil ||
		s.ScaleIO != nil || s.StorageOS != nil || s.FlexVolume != nil || s.Glusterfs != nil {
		n++
	}
	if n == 0 {
		errs = append(errs, field.Required(at, "must specify a volume type"))
	}
	return errs
}

func required(value string, at *field.Path) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return nil
}

func mode(m *int32, at *field.Path) field.ErrorList {
	if m != nil && (*m < 0 || *m > 0o777) {
		return field.ErrorList{field.Invalid(at, *m, modeRange)}
	}
	return nil
}

func hostPath(h *corev1.HostPathVolumeSource, at *field.Path) field.ErrorList {
	if h.Path == "" {
		return required("", at.Child("path"))
	}
	errs := upward(h.Path, at.Child("path"))
	if h.Type == nil {
		return errs
	}
	switch *h.Type {
	case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory, corev1.HostPathFileOrCreate, corev1.HostPathFile,
		corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev:
		return errs
	}
	return append(errs, field.NotSupported(at.Child("type"), *h.Type, []string{"", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"}))
}

func nfs(n *corev1.NFSVolumeSource, at *field.Path) field.ErrorList {
	errs := append(required(n.Server, at.Child("server")), required(n.Path, at.Child("path"))...)
	if !path.IsAbs(n.Path) {
		errs = append(errs, field.Invalid(at.Child("path"), n.Path, "must be an absolute path"))
	}
	return errs
}

// keyed checks a source made of the keys of a secret or config map.
func keyed(name, called string, m *int32, items []corev1.KeyToPath, at *field.Path) field.ErrorList {
	errs := required(name, at.Child(called))
	errs = append(errs, mode(m, at.Child("defaultMode"))...)
	return append(errs, keyPaths(items, at.Child("items"))...)
}

func keyPaths(items []corev1.KeyToPath, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range items {
		k, p := &items[i], at.Index(i)
		errs = append(errs, required(k.Key, p.Child("key"))...)
		errs = append(errs, required(k.Path, p.Child("path"))...)
		errs = append(errs, inside(k.Path, p.Child("path"))...)
		errs = append(errs, mode(k.Mode, p.Child("mode"))...)
	}
	return errs
}

func downwardFile(f *corev1.DownwardAPIVolumeFile, at *field.Path) field.ErrorList {
	errs := required(f.Path, at.Child("path"))
	errs = append(errs, inside(f.Path, at.Child("path"))...)
	switch {
	case f.FieldRef != nil:
		errs = append(errs, fieldRef(f.FieldRef, fileFields, at.Child("fieldRef"))...)
		if f.ResourceFieldRef != nil {
			errs = append(errs, field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		}
	case f.ResourceFieldRef != nil:
		errs = append(errs, resourceRef(f.ResourceFieldRef, envResources, true, at.Child("resourceFieldRef"))...)
	default:
		errs = append(errs, field.Required(at, "one of fieldRef and resourceFieldRef is required"))
	}
	return append(errs, mode(f.Mode, at.Child("mode"))...)
}

func projected(v *corev1.ProjectedVolumeSource, at *field.Path) field.ErrorList {
	errs := mode(v.DefaultMode, at.Child("defaultMode"))
	paths := sets.New[string]()
	file := func(name string) {
		if name == "" {
			return
		}
		if paths.Has(name) {
			errs = append(errs, field.Invalid(at, name, "conflicting duplicate paths"))
		}
		paths.Insert(name)
	}
	for i := range v.Sources {
		s, p := &v.Sources[i], at.Child("sources").Index(i)
		n := 0
		first := func(name string) bool {
			if n++; n > 1 {
				errs = append(errs, field.Forbidden(p.Child(name), "may not specify more than 1 volume type"))
			}
			return n == 1
		}
		items := func(called, name string, list []corev1.KeyToPath) {
			errs = append(errs, required(name, p.Child(called, "name"))...)
			errs = append(errs, keyPaths(list, p.Child(called, "items"))...)
			for k := range list {
				file(list[k].Path)
			}
		}
		if s.Secret != nil && first("secret") {
			items("secret", s.Secret.Name, s.Secret.Items)
		}
		if s.ConfigMap != nil && first("configMap") {
			items("configMap", s.ConfigMap.Name, s.ConfigMap.Items)
		}
		if s.DownwardAPI != nil && first("downwardAPI") {
			for k := range s.DownwardAPI.Items {
				errs = append(errs, downwardFile(&s.DownwardAPI.Items[k], p.Child("downwardAPI"))...)
				file(s.DownwardAPI.Items[k].Path)
			}
		}
		if t := s.ServiceAccountToken; t != nil && first("serviceAccountToken") {
			q := p.Child("serviceAccountToken")
			if e := t.ExpirationSeconds; e != nil && *e < 600 {
				errs = append(errs, field.Invalid(q.Child("expirationSeconds"), *e, "may not specify a duration less than 10 minutes"))
			} else if e != nil && *e > 1<<32 {
				errs = append(errs, field.Invalid(q.Child("expirationSeconds"), *e, "may not specify a duration larger than 2^32 seconds"))
			}
			if t.Path == "" {
				errs = append(errs, field.Required(at.Child("path"), ""))
			} else {
				errs = append(errs, inside(t.Path, at.Child("path"))...)
			}
		}
		if s.ClusterTrustBundle != nil {
			first("clusterTrustBundle")
		}
		if s.PodCertificate != nil {
			first("podCertificate")
		}
	}
	return errs
}

// inside refuses a path that leaves the volume, and names the kubelet keeps to itself.
func inside(p string, at *field.Path) field.ErrorList {
	errs := descending(p, at)
	if strings.HasPrefix(p, "..") && !strings.HasPrefix(p, "../") {
		errs = append(errs, field.Invalid(at, p, "must not start with '..'"))
	}
	return errs
}

func descending(p string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if path.IsAbs(p) {
		errs = append(errs, field.Invalid(at, p, "must be a relative path"))
	}
	return append(errs, upward(p, at)...)
}

func upward(p string, at *field.Path) field.ErrorList {
	for _, part := range strings.Split(p, "/") {
		if part == ".." {
			return field.ErrorList{field.Invalid(at, p, "must not contain '..'")}
		}
	}
	return nil
}

func mounts(c *corev1.Container, vols map[string]corev1.VolumeSource, of *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := of.Child("volumeMounts")
	taken := sets.New[string]()
	raw := map[string]string{}
	for _, d := range c.VolumeDevices {
		raw[d.Name] = d.DevicePath
	}
	for i, m := range c.VolumeMounts {
		p := at.Index(i)
		errs = append(errs, required(m.Name, p.Child("name"))...)
		if _, ok := vols[m.Name]; !ok {
			errs = append(errs, field.NotFound(p.Child("name"), m.Name))
		}
		errs = append(errs, required(m.MountPath, p.Child("mountPath"))...)
		if taken.Has(m.MountPath) {
			errs = append(errs, field.Invalid(p.Child("mountPath"), m.MountPath, "must be unique"))
		}
		taken.Insert(m.MountPath)
		if _, ok := raw[m.Name]; ok {
			errs = append(errs, field.Invalid(p.Child("name"), m.Name, "must not already exist in volumeDevices"))
		}
		if m.SubPath != "" {
			errs = append(errs, descending(m.SubPath, p.Child("subPath"))...)
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				errs = append(errs, field.Invalid(p.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
			}
			errs = append(errs, descending(m.SubPathExpr, p.Child("subPathExpr"))...)
		}
		if g := m.MountPropagation; g != nil {
			switch *g {
			case corev1.MountPropagationNone, corev1.MountPropagationHostToContainer:
			case corev1.MountPropagationBidirectional:
				if sc := c.SecurityContext; sc == nil || sc.Privileged == nil || !*sc.Privileged {
					errs = append(errs, field.Forbidden(p.Child("mountPropagation"), "Bidirectional mount propagation is available only to privileged containers"))
				}
			default:
				errs = append(errs, field.NotSupported(p.Child("mountPropagation"), *g, []string{"Bidirectional", "HostToContainer", "None"}))
			}
		}
		if r := m.RecursiveReadOnly; r != nil && *r != corev1.RecursiveReadOnlyDisabled {
			if !m.ReadOnly {
				errs = append(errs, field.Forbidden(p.Child("recursiveReadOnly"), "may only be specified when readOnly is true"))
			}
			if *r != corev1.RecursiveReadOnlyEnabled && *r != corev1.RecursiveReadOnlyIfPossible {
				errs = append(errs, field.NotSupported(p.Child("recursiveReadOnly"), *r, []string{"Disabled", "IfPossible", "Enabled"}))
			}
		}
	}
	return errs
}

func devices(c *corev1.Container, vols map[string]corev1.VolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	names, paths, mounted := sets.New[string](), sets.New[string](), sets.New[string]()
	for _, m := range c.VolumeMounts {
		mounted.Insert(m.Name)
	}
	for i, d := range c.VolumeDevices {
		p := at.Index(i)
		errs = append(errs, required(d.Name, p.Child("name"))...)
		if names.Has(d.Name) {
			errs = append(errs, field.Invalid(p.Child("name"), d.Name, "must be unique"))
		}
		if v, ok := vols[d.Name]; !ok {
			errs = append(errs, field.NotFound(p.Child("name"), d.Name))
		} else if v.PersistentVolumeClaim == nil && v.Ephemeral == nil {
			errs = append(errs, field.Invalid(p.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
		errs = append(errs, required(d.DevicePath, p.Child("devicePath"))...)
		if paths.Has(d.DevicePath) {
			errs = append(errs, field.Invalid(p.Child("devicePath"), d.DevicePath, "must be unique"))
		}
		if d.DevicePath != "" {
			errs = append(errs, upward(d.DevicePath, p.Child("devicePath"))...)
		}
		if mounted.Has(d.Name) {
			errs = append(errs, field.Invalid(p.Child("name"), d.Name, "must not already exist in volumeMounts"))
		}
		names.Insert(d.Name)
		paths.Insert(d.DevicePath)
	}
	return errs
}
