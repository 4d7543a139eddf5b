// Package volume makes what pods mount.
//
// Flow: Setup(pod) walks the pod's volumes and brings each to its desired state (idempotent; a second call refreshes
// what the API changed) -> HostPath and SubPath answer where they stand -> Teardown unmounts and removes all of it.
// Calls for one pod come from one goroutine at a time; different pods may be worked on at once.
package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	certv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/mount-utils"

	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/kubelet/csi"
	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

// Objects reads what volumes are made from.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	Token(ctx context.Context, namespace, account string, req *authv1.TokenRequest) (*authv1.TokenRequest, error)
	// Claim is a claim and the volume bound to it.
	// With an owner the claim must have been made for that pod.
	Claim(ctx context.Context, namespace, name string, owner *v1.Pod) (*v1.PersistentVolumeClaim, *v1.PersistentVolume, error)
	// Grown writes what became of a claim whose volume was to grow: its capacity is now size, or the size cannot be had.
	Grown(ctx context.Context, pvc *v1.PersistentVolumeClaim, size resource.Quantity, infeasible bool) error
	// TrustBundle is one by its name, TrustBundles are all of a signer.
	TrustBundle(ctx context.Context, name string) (*certv1.ClusterTrustBundle, error)
	TrustBundles(ctx context.Context, signer string) ([]certv1.ClusterTrustBundle, error)
	ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error)
	RequestCertificate(ctx context.Context, r *certv1.PodCertificateRequest) (*certv1.PodCertificateRequest, error)
	CertificateRequest(ctx context.Context, namespace, name string) (*certv1.PodCertificateRequest, error)
}

// Config is what a Manager works with.
type Config struct {
	// Root is the kubelet's folder; pods live below Root/pods/<uid>.
	Root    string
	Objects Objects
	// Field and Resource are the downward API's values.
	Field    func(pod *v1.Pod, path string) (string, error)
	Resource func(sel *v1.ResourceFieldSelector, pod *v1.Pod) (string, error)
	CSI      *csi.Drivers
	// Tell tells of a pod.
	Tell func(pod *v1.Pod, kind, reason, message string)
	// Node is this node's name and UID; the UID is empty before it has registered.
	Node func() (string, types.UID)
	// Metrics may be nil.
	Metrics *metrics.Set
}

// Manager makes and unmakes volumes.
type Manager struct {
	cfg     Config
	mounter mount.Interface

	mu     sync.Mutex
	tokens map[string]token
	// identities are by pod, volume and place in it.
	identities map[string]*identity
	bound      map[string]string
}

type token struct {
	text          string
	made, expires time.Time
}

// New makes the pods folder.
func New(cfg Config) (*Manager, error) {
	if err := os.MkdirAll(filepath.Join(cfg.Root, "pods"), 0o750); err != nil {
		return nil, fmt.Errorf("making the pods folder: %w", err)
	}
	return &Manager{cfg: cfg, mounter: mount.New(""), tokens: map[string]token{}, identities: map[string]*identity{}, bound: map[string]string{}}, nil
}

// PodDir is a pod's own folder.
func (m *Manager) PodDir(uid string) string { return filepath.Join(m.cfg.Root, "pods", uid) }

func (m *Manager) dir(pod *v1.Pod, plugin, name string) string {
	return filepath.Join(m.PodDir(string(pod.UID)), "volumes", "kubernetes.io~"+plugin, name)
}

// Setup brings every volume of the pod to its desired state.
func (m *Manager) Setup(ctx context.Context, pod *v1.Pod) error {
	if err := os.MkdirAll(m.PodDir(string(pod.UID)), 0o750); err != nil {
		return err
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		begun := time.Now()
		err := m.one(ctx, pod, v)
		m.cfg.Metrics.Stored(metrics.Plugin(v), "volume_mount", time.Since(begun), err)
		if err != nil {
			return fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
		}
	}
	return nil
}

func (m *Manager) one(ctx context.Context, pod *v1.Pod, v *v1.Volume) error {
	switch {
	case v.EmptyDir != nil:
		return m.emptyDir(pod, v)
	case v.HostPath != nil:
		return hostPath(v.HostPath)
	case v.ConfigMap != nil:
		files, err := m.configMap(ctx, pod.Namespace, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.DefaultMode, v.ConfigMap.Optional)
		return m.write(pod, "configmap", v.Name, files, err)
	case v.Secret != nil:
		files, err := m.secret(ctx, pod.Namespace, v.Secret.SecretName, v.Secret.Items, v.Secret.DefaultMode, v.Secret.Optional)
		return m.write(pod, "secret", v.Name, files, err)
	case v.DownwardAPI != nil:
		files, err := m.downward(pod, v.DownwardAPI.Items, v.DownwardAPI.DefaultMode)
		return m.write(pod, "downward-api", v.Name, files, err)
	case v.Projected != nil:
		files, err := m.projected(ctx, pod, v.Name, v.Projected)
		return m.write(pod, "projected", v.Name, files, err)
	case v.PersistentVolumeClaim != nil:
		return m.claim(ctx, pod, v.Name, v.PersistentVolumeClaim.ClaimName, v.PersistentVolumeClaim.ReadOnly, nil)
	case v.Ephemeral != nil:
		return m.claim(ctx, pod, v.Name, pod.Name+"-"+v.Name, false, pod)
	case v.CSI != nil:
		path, err := m.cfg.CSI.Publish(ctx, csi.FromInline(pod, v.Name, v.CSI), m.PodDir(string(pod.UID)))
		m.bind(pod, v.Name, path, err)
		return err
	case v.NFS != nil:
		return m.nfs(m.dir(pod, "nfs", v.Name), v.NFS)
	case v.Image != nil:
		return nil
	case v.GitRepo != nil:
		return errors.New("gitRepo volumes are not served: use an init container with an emptyDir")
	}
	return errors.New("no volume plugin matched")
}

// HostPath is where a volume of the pod stands.
func (m *Manager) HostPath(pod *v1.Pod, name string) (string, error) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Name != name {
			continue
		}
		switch {
		case v.EmptyDir != nil:
			return m.dir(pod, "empty-dir", name), nil
		case v.HostPath != nil:
			return v.HostPath.Path, nil
		case v.ConfigMap != nil:
			return m.dir(pod, "configmap", name), nil
		case v.Secret != nil:
			return m.dir(pod, "secret", name), nil
		case v.DownwardAPI != nil:
			return m.dir(pod, "downward-api", name), nil
		case v.Projected != nil:
			return m.dir(pod, "projected", name), nil
		case v.NFS != nil:
			return m.dir(pod, "nfs", name), nil
		case v.PersistentVolumeClaim != nil, v.Ephemeral != nil, v.CSI != nil:
			m.mu.Lock()
			defer m.mu.Unlock()
			if p, ok := m.bound[string(pod.UID)+"/"+name]; ok {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("volume %q is not mounted", name)
}

func (m *Manager) emptyDir(pod *v1.Pod, v *v1.Volume) error {
	dir := m.dir(pod, "empty-dir", v.Name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if v.EmptyDir.Medium == v1.StorageMediumMemory {
		if at, err := m.mounter.IsMountPoint(dir); err == nil && !at {
			opts := "mode=0777"
			if q := v.EmptyDir.SizeLimit; q != nil && q.Value() > 0 {
				opts += fmt.Sprintf(",size=%d", q.Value())
			}
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, opts); err != nil {
				return fmt.Errorf("mounting tmpfs: %w", err)
			}
		}
	}
	if hugeMedium(v.EmptyDir.Medium) {
		if at, err := m.mounter.IsMountPoint(dir); err == nil && !at {
			if err := hugePages(pod, v, dir); err != nil {
				return err
			}
		}
	}
	mode := os.FileMode(0o777)
	if g := fsGroup(pod); g != nil {
		if err := os.Chown(dir, -1, int(*g)); err != nil {
			return err
		}
		mode |= os.ModeSetgid
	}
	return os.Chmod(dir, mode)
}

func fsGroup(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// hostPath checks, or makes, what the type asks for.
func hostPath(h *v1.HostPathVolumeSource) error {
	kind := v1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	st, err := os.Stat(h.Path)
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	is := func(ok bool, what string) error {
		if missing || !ok {
			return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, what)
		}
		return nil
	}
	switch kind {
	case v1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(h.Path, 0o755)
		}
		return is(st.IsDir(), "directory")
	case v1.HostPathFileOrCreate:
		if missing {
			f, err := os.OpenFile(h.Path, os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
		return is(st.Mode().IsRegular(), "file")
	case v1.HostPathDirectory:
		return is(!missing && st.IsDir(), "directory")
	case v1.HostPathFile:
		return is(!missing && st.Mode().IsRegular(), "file")
	case v1.HostPathSocket:
		return is(!missing && st.Mode()&os.ModeSocket != 0, "socket file")
	case v1.HostPathCharDev:
		return is(!missing && st.Mode()&os.ModeCharDevice != 0, "character device")
	case v1.HostPathBlockDev:
		return is(!missing && st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0, "block device")
	}
	return nil
}

// claim brings the volume behind a claim: hostPath, local and NFS volumes are served here, all others by drivers.
func (m *Manager) claim(ctx context.Context, pod *v1.Pod, name, claim string, readOnly bool, owner *v1.Pod) error {
	pvc, pv, err := m.cfg.Objects.Claim(ctx, pod.Namespace, claim, owner)
	if err != nil {
		return err
	}
	path := ""
	switch s := pv.Spec.PersistentVolumeSource; {
	case s.HostPath != nil:
		path, err = s.HostPath.Path, hostPath(s.HostPath)
	case s.Local != nil:
		path = s.Local.Path
		_, err = os.Stat(path)
	case s.NFS != nil:
		path = m.dir(pod, "nfs", pv.Name)
		err = m.nfs(path, s.NFS)
	case s.CSI != nil:
		v := csi.FromPersistent(pod, pv, readOnly)
		if path, err = m.cfg.CSI.Publish(ctx, v, m.PodDir(string(pod.UID))); err == nil {
			m.grow(ctx, pod, name, v, pvc, pv)
		}
	default:
		err = fmt.Errorf("no volume plugin matched volume %s", pv.Name)
	}
	m.bind(pod, name, path, err)
	return err
}

// bind remembers where a volume stands, unless it does not.
func (m *Manager) bind(pod *v1.Pod, name, path string, err error) {
	if err != nil {
		return
	}
	m.mu.Lock()
	m.bound[string(pod.UID)+"/"+name] = path
	m.mu.Unlock()
}

func (m *Manager) nfs(dir string, s *v1.NFSVolumeSource) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if at, err := m.mounter.IsMountPoint(dir); err != nil || at {
		return err
	}
	var opts []string
	if s.ReadOnly {
		opts = append(opts, "ro")
	}
	return m.mounter.Mount(s.Server+":"+s.Path, dir, "nfs", opts)
}

// Teardown unmounts everything below the pod's folder, deepest first, and removes its volumes. It never follows a link
// off the folder: mount points come from the kernel's table, and RemoveAll does not cross links.
func (m *Manager) Teardown(uid string) error {
	base := m.PodDir(uid)
	if err := m.unmount(filepath.Join(base, "volume-subpaths")); err != nil {
		return err
	}
	if m.cfg.CSI != nil {
		if err := m.cfg.CSI.Unpublish(context.Background(), base); err != nil {
			return err
		}
	}
	if err := m.unmount(base); err != nil {
		return err
	}
	m.mu.Lock()
	for k := range m.tokens {
		if strings.HasPrefix(k, uid+"/") {
			delete(m.tokens, k)
		}
	}
	for k := range m.identities {
		if strings.HasPrefix(k, uid+"/") {
			delete(m.identities, k)
		}
	}
	for k := range m.bound {
		if strings.HasPrefix(k, uid+"/") {
			delete(m.bound, k)
		}
	}
	m.mu.Unlock()
	for _, d := range []string{"volume-subpaths", "volumes"} {
		if err := os.RemoveAll(filepath.Join(base, d)); err != nil {
			return err
		}
	}
	return nil
}

// unmount takes off whatever is mounted below a folder, deepest first.
func (m *Manager) unmount(base string) error {
	points, err := m.mounter.List()
	if err != nil {
		return err
	}
	for i := len(points) - 1; i >= 0; i-- {
		p := points[i].Path
		if !strings.HasPrefix(p, base+"/") {
			continue
		}
		if err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", p, err)
		}
	}
	return nil
}
