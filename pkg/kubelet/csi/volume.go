package csi

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Volume is one volume of one pod.
type Volume struct {
	Pod *v1.Pod
	// Name is the volume's name in the pod, or of its PersistentVolume.
	Name           string
	Driver, Handle string
	FSType         string
	Options        []string
	ReadOnly       bool
	Block          bool
	// Inline volumes live and die with their pod: nobody attaches or stages them.
	Inline     bool
	Attributes map[string]string
	Access     []v1.PersistentVolumeAccessMode
	// StageSecret and PublishSecret may be nil.
	StageSecret, PublishSecret *v1.SecretReference
}

// FromInline is a volume written into the pod itself.
func FromInline(pod *v1.Pod, name string, s *v1.CSIVolumeSource) Volume {
	v := Volume{Pod: pod, Name: name, Driver: s.Driver, Inline: true, Attributes: s.VolumeAttributes, Access: []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod},
		Handle: fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(pod.UID)+name)))}
	if s.FSType != nil {
		v.FSType = *s.FSType
	}
	v.ReadOnly = s.ReadOnly != nil && *s.ReadOnly
	if r := s.NodePublishSecretRef; r != nil {
		v.PublishSecret = &v1.SecretReference{Namespace: pod.Namespace, Name: r.Name}
	}
	return v
}

// FromPersistent is a volume behind a claim.
func FromPersistent(pod *v1.Pod, pv *v1.PersistentVolume, readOnly bool) Volume {
	s := pv.Spec.CSI
	return Volume{Pod: pod, Name: pv.Name, Driver: s.Driver, Handle: s.VolumeHandle, FSType: s.FSType, Options: pv.Spec.MountOptions, ReadOnly: readOnly || s.ReadOnly,
		Block: pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == v1.PersistentVolumeBlock, Attributes: s.VolumeAttributes, Access: pv.Spec.AccessModes,
		StageSecret: s.NodeStageSecretRef, PublishSecret: s.NodePublishSecretRef}
}

// record is what lies beside a volume, and is enough to take it away again.
type record struct {
	Driver    string `json:"driverName"`
	Handle    string `json:"volumeHandle"`
	Lifecycle string `json:"volumeLifecycleMode"`
	Node      string `json:"nodeName"`
	SpecName  string `json:"specVolID"`
}

const recordFile = "vol_data.json"

func (v Volume) dir(podDir string) string {
	return filepath.Join(podDir, "volumes", "kubernetes.io~csi", v.Name)
}

// staging is where a volume stands for the whole node.
func (d *Drivers) staging(driver, handle string) string {
	return filepath.Join(d.cfg.Root, "plugins", "kubernetes.io", "csi", driver, fmt.Sprintf("%x", sha256.Sum256([]byte(handle))))
}

// staged is where within that.
func (d *Drivers) staged(v Volume) string {
	if v.Block {
		return filepath.Join(d.staging(v.Driver, v.Handle), "staging")
	}
	return filepath.Join(d.staging(v.Driver, v.Handle), "globalmount")
}

// lives refuses a volume of a kind the driver's object does not name; without one only persistent volumes are served.
func lives(v Volume, def *storagev1.CSIDriver) error {
	mode := storagev1.VolumeLifecyclePersistent
	if v.Inline {
		mode = storagev1.VolumeLifecycleEphemeral
	}
	switch {
	case def == nil && v.Inline:
		return fmt.Errorf("volume mode %q not supported by driver %s (no CSIDriver object)", mode, v.Driver)
	case def != nil && len(def.Spec.VolumeLifecycleModes) > 0 && !slices.Contains(def.Spec.VolumeLifecycleModes, mode):
		return fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)", mode, v.Driver, def.Spec.VolumeLifecycleModes)
	}
	return nil
}

// Unique names a volume for the attacher of the control plane.
func (v Volume) Unique() string { return "kubernetes.io/csi/" + v.Driver + "^" + v.Handle }

// Publish brings the volume into the pod's folder and answers where it stands. Doing so again changes nothing.
func (d *Drivers) Publish(ctx context.Context, v Volume, podDir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	x, err := d.named(v.Driver)
	if err != nil {
		return "", err
	}
	defer d.alone(v.Driver, v.Handle)()
	def, err := d.cfg.Objects.Driver(ctx, v.Driver)
	if err != nil {
		return "", err
	}
	target := filepath.Join(v.dir(podDir), "mount")
	if mounted(target) && !republish(def) {
		return target, nil
	}
	attached, err := d.attachment(ctx, v, def)
	if err != nil {
		return "", err
	}
	if err := d.write(v, podDir); err != nil {
		return "", err
	}
	if err := lives(v, def); err != nil {
		return "", err
	}
	staged := ""
	if x.stages && !v.Inline {
		if staged, err = d.stage(ctx, x, v, attached); err != nil {
			return "", err
		}
	}
	secrets, err := d.secrets(ctx, v.PublishSecret)
	if err != nil {
		return "", err
	}
	attributes, err := d.attributes(ctx, v, def)
	if err != nil {
		return "", err
	}
	req := &csi.NodePublishVolumeRequest{VolumeId: v.Handle, PublishContext: attached, StagingTargetPath: staged, TargetPath: target,
		VolumeCapability: v.capability(x), Readonly: v.ReadOnly, Secrets: secrets, VolumeContext: attributes}
	if _, err := x.node.NodePublishVolume(ctx, req); err != nil {
		return "", err
	}
	if !x.groups && !v.ReadOnly && !v.Block && owns(def, v) {
		if err := own(target, v.Pod); err != nil {
			return "", fmt.Errorf("giving the volume to its group: %w", err)
		}
	}
	return target, nil
}

// republish tells whether a driver wants to be called again from time to time.
func republish(def *storagev1.CSIDriver) bool {
	return def != nil && def.Spec.RequiresRepublish != nil && *def.Spec.RequiresRepublish
}

func (d *Drivers) write(v Volume, podDir string) error {
	dir := v.dir(podDir)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	mode := storagev1.VolumeLifecyclePersistent
	if v.Inline {
		mode = storagev1.VolumeLifecycleEphemeral
	}
	raw, err := json.Marshal(record{v.Driver, v.Handle, string(mode), d.cfg.NodeName, v.Name})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, recordFile), raw, 0o600)
}

// attachment is what the attacher says of a volume which must be attached first; nil for all others.
func (d *Drivers) attachment(ctx context.Context, v Volume, def *storagev1.CSIDriver) (map[string]string, error) {
	if v.Inline || def != nil && def.Spec.AttachRequired != nil && !*def.Spec.AttachRequired {
		return nil, nil
	}
	name := fmt.Sprintf("csi-%x", sha256.Sum256([]byte(v.Handle+v.Driver+d.cfg.NodeName)))
	a, err := d.cfg.Objects.Attachment(ctx, name)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err): // a node may not ask for an attachment which nobody made for it
		return nil, fmt.Errorf("volume %s: %w", v.Name, errNotAttached)
	case err != nil:
		return nil, err
	case a.Status.AttachError != nil:
		return nil, fmt.Errorf("volume attachment %s: %s", name, a.Status.AttachError.Message)
	case !a.Status.Attached:
		return nil, fmt.Errorf("volume %s: %w", v.Name, errNotAttached)
	}
	return a.Status.AttachmentMetadata, nil
}

// stage mounts the volume once for the node.
func (d *Drivers) stage(ctx context.Context, x *driver, v Volume, attached map[string]string) (string, error) {
	dir, path := d.staging(v.Driver, v.Handle), d.staged(v)
	if err := os.MkdirAll(path, 0o750); err != nil {
		return "", err
	}
	raw, err := json.Marshal(record{Driver: v.Driver, Handle: v.Handle})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, recordFile), raw, 0o600)
	}
	if err != nil {
		return "", err
	}
	secrets, err := d.secrets(ctx, v.StageSecret)
	if err != nil {
		return "", err
	}
	_, err = x.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: v.Handle, PublishContext: attached, StagingTargetPath: path,
		VolumeCapability: v.capability(x), Secrets: secrets, VolumeContext: v.Attributes})
	return path, err
}

func (d *Drivers) secrets(ctx context.Context, ref *v1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	s, err := d.cfg.Objects.Secret(ctx, ref.Namespace, ref.Name)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for k, b := range s.Data {
		out[k] = string(b)
	}
	return out, nil
}

// attributes are the volume's own, with what the driver asks to be told of the pod.
func (d *Drivers) attributes(ctx context.Context, v Volume, def *storagev1.CSIDriver) (map[string]string, error) {
	out := maps.Clone(v.Attributes)
	if out == nil {
		out = map[string]string{}
	}
	account := v.Pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	if def == nil {
		return out, nil
	}
	if p := def.Spec.PodInfoOnMount; p != nil && *p {
		out["csi.storage.k8s.io/pod.name"], out["csi.storage.k8s.io/pod.namespace"], out["csi.storage.k8s.io/pod.uid"] = v.Pod.Name, v.Pod.Namespace, string(v.Pod.UID)
		out["csi.storage.k8s.io/serviceAccount.name"], out["csi.storage.k8s.io/ephemeral"] = account, strconv.FormatBool(v.Inline)
	}
	if len(def.Spec.TokenRequests) == 0 {
		return out, nil
	}
	tokens := map[string]authv1.TokenRequestStatus{}
	for _, t := range def.Spec.TokenRequests {
		req := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{ExpirationSeconds: t.ExpirationSeconds,
			BoundObjectRef: &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: v.Pod.Name, UID: v.Pod.UID}}}
		if t.Audience != "" {
			req.Spec.Audiences = []string{t.Audience}
		}
		got, err := d.cfg.Objects.Token(ctx, v.Pod.Namespace, account, req)
		if err != nil {
			return nil, err
		}
		tokens[t.Audience] = got.Status
	}
	raw, err := json.Marshal(tokens)
	if err != nil {
		return nil, err
	}
	out["csi.storage.k8s.io/serviceAccount.tokens"] = string(raw)
	return out, nil
}

// capability is how the volume is used.
func (v Volume) capability(x *driver) *csi.VolumeCapability {
	mode := csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	for _, a := range v.Access {
		switch a {
		case v1.ReadWriteMany:
			mode = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
		case v1.ReadOnlyMany:
			if mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER && len(v.Access) == 1 {
				mode = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
			}
		case v1.ReadWriteOnce, v1.ReadWriteOncePod:
			// Drivers which know the difference are told it.
			if x.shares && len(v.Access) == 1 && !v.Inline {
				mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
				if a == v1.ReadWriteOncePod {
					mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
				}
			}
		}
	}
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode}}
	if v.Block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		return c
	}
	m := &csi.VolumeCapability_MountVolume{FsType: v.FSType, MountFlags: v.Options}
	if g := group(v.Pod); x.groups && g != nil {
		m.VolumeMountGroup = strconv.FormatInt(*g, 10)
	}
	c.AccessType = &csi.VolumeCapability_Mount{Mount: m}
	return c
}

func group(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// owns tells whether the node gives a volume's files to the pod's group, by the driver's policy.
func owns(def *storagev1.CSIDriver, v Volume) bool {
	if group(v.Pod) == nil || v.Inline {
		return false
	}
	policy := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	if def != nil && def.Spec.FSGroupPolicy != nil {
		policy = *def.Spec.FSGroupPolicy
	}
	switch policy {
	case storagev1.FileFSGroupPolicy:
		return true
	case storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy:
		return v.FSType != "" && len(v.Access) == 1 && (v.Access[0] == v1.ReadWriteOnce || v.Access[0] == v1.ReadWriteOncePod)
	}
	return false
}

// own gives a tree to the pod's group, through no link. With OnRootMismatch a root that is right is enough.
func own(root string, pod *v1.Pod) error {
	gid := int(*group(pod))
	right := func(path string) (bool, error) { return groupIs(path, gid) }
	if p := pod.Spec.SecurityContext.FSGroupChangePolicy; p != nil && *p == v1.FSGroupChangeOnRootMismatch {
		if ok, err := right(root); ok || err != nil {
			return err
		}
	}
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, gid); err != nil {
			return err
		}
		if e.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o660
		if e.IsDir() {
			mode |= 0o110 | os.ModeSetgid
		}
		return os.Chmod(path, mode)
	})
}

// Unpublish takes every volume of these out of a pod's folder, and off the node when no other pod has it.
func (d *Drivers) Unpublish(ctx context.Context, podDir string) error {
	entries, err := os.ReadDir(filepath.Join(podDir, "volumes", "kubernetes.io~csi"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		if err := d.remove(ctx, filepath.Join(podDir, "volumes", "kubernetes.io~csi", e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("unpublishing volume %s: %w", e.Name(), err))
		}
	}
	return errors.Join(append(errs, err)...)
}

func (d *Drivers) remove(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	raw, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, os.ErrNotExist) && !mounted(filepath.Join(dir, "mount")) {
		return os.RemoveAll(dir)
	}
	var r record
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return err
	}
	x, err := d.named(r.Driver)
	if err != nil {
		return err
	}
	defer d.alone(r.Driver, r.Handle)()
	target := filepath.Join(dir, "mount")
	if _, err := x.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: r.Handle, TargetPath: target}); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if !x.stages || r.Lifecycle == string(storagev1.VolumeLifecycleEphemeral) || d.held(r) {
		return nil
	}
	staged := d.staging(r.Driver, r.Handle)
	for _, name := range []string{"globalmount", "staging"} {
		path := filepath.Join(staged, name)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if _, err := x.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: r.Handle, StagingTargetPath: path}); err != nil {
			return err
		}
	}
	return os.RemoveAll(staged)
}

// records are what lies beside all volumes of all pods.
func (d *Drivers) records() []record {
	var out []record
	files, _ := filepath.Glob(filepath.Join(d.cfg.Root, "pods", "*", "volumes", "kubernetes.io~csi", "*", recordFile))
	for _, f := range files {
		var r record
		if raw, err := os.ReadFile(f); err == nil && json.Unmarshal(raw, &r) == nil {
			out = append(out, r)
		}
	}
	return out
}

func (d *Drivers) held(r record) bool {
	for _, o := range d.records() {
		if o.Driver == r.Driver && o.Handle == r.Handle {
			return true
		}
	}
	return false
}

// InUse names the persistent volumes which stand on the node: those the attacher must leave.
func (d *Drivers) InUse() []v1.UniqueVolumeName {
	seen := map[v1.UniqueVolumeName]bool{}
	var out []v1.UniqueVolumeName
	for _, r := range d.records() {
		name := v1.UniqueVolumeName(Volume{Driver: r.Driver, Handle: r.Handle}.Unique())
		if r.Lifecycle == string(storagev1.VolumeLifecyclePersistent) && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}
