package lifecycle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// containerConfig is what the runtime is told to make of one container.
func (w *worker) containerConfig(ctx context.Context, pod *v1.Pod, c *v1.Container, image *runtimeapi.Image, volumes map[string]*runtimeapi.ImageSpec, restarts int, ips []string) (*runtimeapi.ContainerConfig, error) {
	env, err := w.environment(ctx, pod, c, ips)
	if err != nil {
		return nil, err
	}
	if err := mustNotBeRoot(pod, c, image); err != nil {
		return nil, err
	}
	cfg := &runtimeapi.ContainerConfig{
		Metadata:   &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(restarts)},
		Image:      &runtimeapi.ImageSpec{Image: image.Id, UserSpecifiedImage: c.Image},
		Command:    expandAll(c.Command, env),
		Args:       expandAll(c.Args, env),
		WorkingDir: c.WorkingDir,
		Stdin:      c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		LogPath: filepath.Join(c.Name, strconv.Itoa(restarts)+".log"),
		Labels: map[string]string{cri.LabelContainerName: c.Name, cri.LabelPodName: pod.Name,
			cri.LabelPodNamespace: pod.Namespace, cri.LabelPodUID: string(pod.UID)},
		Annotations: map[string]string{cri.AnnotationHash: Hash(c), cri.AnnotationRestartCount: strconv.Itoa(restarts),
			cri.AnnotationMessagePath: c.TerminationMessagePath, cri.AnnotationMessagePolicy: string(c.TerminationMessagePolicy),
			cri.AnnotationGrace: strconv.FormatInt(int64(grace(pod).Seconds()), 10)},
	}
	for _, e := range env {
		cfg.Envs = append(cfg.Envs, &runtimeapi.KeyValue{Key: e.Name, Value: []byte(e.Value)})
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		cfg.StopSignal = runtimeapi.Signal(runtimeapi.Signal_value[string(*c.Lifecycle.StopSignal)])
	}
	if cfg.Mounts, err = w.mounts(pod, c, env, volumes, restarts, ips); err != nil {
		return nil, err
	}
	for _, d := range c.VolumeDevices {
		path, err := w.m.cfg.Volumes.HostPath(pod, d.Name)
		if err != nil {
			return nil, err
		}
		cfg.Devices = append(cfg.Devices, &runtimeapi.Device{HostPath: path, ContainerPath: d.DevicePath, Permissions: "mrw"})
	}
	if err := w.give(ctx, pod, c, cfg); err != nil {
		return nil, err
	}
	cfg.Linux = &runtimeapi.LinuxContainerConfig{Resources: w.resources(pod, c), SecurityContext: w.security(pod, c, image)}
	users, err := w.userns(pod)
	if err != nil {
		return nil, err
	}
	if users != nil {
		// Its volumes show their files as if the pod's users were the node's.
		cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users
		for _, m := range cfg.Mounts {
			if m.Image == nil {
				m.UidMappings, m.GidMappings = users.Uids, users.Gids
			}
		}
	}
	return cfg, nil
}

// effective is a security context with the pod's fields where the container's are unset.
func effective(pod *v1.Pod, c *v1.Container) v1.SecurityContext {
	out := v1.SecurityContext{}
	if c.SecurityContext != nil {
		out = *c.SecurityContext
	}
	if p := pod.Spec.SecurityContext; p != nil {
		if out.RunAsUser == nil {
			out.RunAsUser = p.RunAsUser
		}
		if out.RunAsGroup == nil {
			out.RunAsGroup = p.RunAsGroup
		}
		if out.RunAsNonRoot == nil {
			out.RunAsNonRoot = p.RunAsNonRoot
		}
		if out.SELinuxOptions == nil {
			out.SELinuxOptions = p.SELinuxOptions
		}
		if out.SeccompProfile == nil {
			out.SeccompProfile = p.SeccompProfile
		}
		if out.AppArmorProfile == nil {
			out.AppArmorProfile = p.AppArmorProfile
		}
	}
	return out
}

// mustNotBeRoot refuses what runAsNonRoot forbids; asked at every start, so it holds after restarts too.
func mustNotBeRoot(pod *v1.Pod, c *v1.Container, image *runtimeapi.Image) error {
	sc := effective(pod, c)
	if sc.RunAsNonRoot == nil || !*sc.RunAsNonRoot {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", c.Name)
	switch {
	case sc.RunAsUser != nil && *sc.RunAsUser == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case sc.RunAsUser != nil:
		return nil
	case image.Uid != nil && image.Uid.Value == 0, image.Uid == nil && image.Username == "":
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	case image.Uid == nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", image.Username, where)
	}
	return nil
}

var maskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
	"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

func (w *worker) security(pod *v1.Pod, c *v1.Container, image *runtimeapi.Image) *runtimeapi.LinuxContainerSecurityContext {
	sc := effective(pod, c)
	out := &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces(pod), MaskedPaths: maskedPaths, ReadonlyPaths: readonlyPaths}
	for _, e := range pod.Spec.EphemeralContainers {
		if e.Name != c.Name || e.TargetContainerName == "" {
			continue
		}
		w.mu.Lock()
		if t := w.observed.Latest(e.TargetContainerName); t != nil && out.NamespaceOptions.Pid == runtimeapi.NamespaceMode_CONTAINER {
			out.NamespaceOptions.Pid, out.NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, t.ID
		}
		w.mu.Unlock()
	}
	if sc.ProcMount != nil && *sc.ProcMount == v1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = nil, nil
	}
	if sc.Privileged != nil && *sc.Privileged {
		out.Privileged = true
		out.MaskedPaths, out.ReadonlyPaths = nil, nil
	}
	switch {
	case sc.RunAsUser != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
	case image.Uid != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: image.Uid.Value}
	default:
		out.RunAsUsername = image.Username
	}
	if sc.RunAsGroup != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
	}
	if p := pod.Spec.SecurityContext; p != nil {
		if p.FSGroup != nil {
			out.SupplementalGroups = append(out.SupplementalGroups, *p.FSGroup)
		}
		out.SupplementalGroups = append(out.SupplementalGroups, p.SupplementalGroups...)
		if p.SupplementalGroupsPolicy != nil {
			out.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy(runtimeapi.SupplementalGroupsPolicy_value[string(*p.SupplementalGroupsPolicy)])
		}
	}
	if sc.Capabilities != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, k := range sc.Capabilities.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(k))
		}
		for _, k := range sc.Capabilities.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(k))
		}
	}
	out.ReadonlyRootfs = sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem
	out.NoNewPrivs = sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation && !out.Privileged
	if sc.SELinuxOptions != nil {
		out.SelinuxOptions = selinux(sc.SELinuxOptions)
	}
	switch {
	case sc.SeccompProfile != nil:
		out.Seccomp = w.seccomp(sc.SeccompProfile)
	case w.m.cfg.Resolver.SeccompDefault:
		out.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	default:
		out.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	}
	if a := sc.AppArmorProfile; a != nil {
		p := &runtimeapi.SecurityProfile{}
		switch {
		case a.Type == v1.AppArmorProfileTypeUnconfined:
			p.ProfileType = runtimeapi.SecurityProfile_Unconfined
		case a.Type == v1.AppArmorProfileTypeLocalhost && a.LocalhostProfile != nil:
			p.ProfileType, p.LocalhostRef = runtimeapi.SecurityProfile_Localhost, *a.LocalhostProfile
		}
		out.Apparmor = p
	}
	return out
}

func (w *worker) resources(pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	r := &runtimeapi.LinuxContainerResources{OomScoreAdj: oomScore(pod, c, w.memory())}
	cpu, limit, memory := c.Resources.Requests.Cpu(), c.Resources.Limits.Cpu(), c.Resources.Limits.Memory()
	if own := pod.Spec.Resources; own != nil {
		// What has no limit of its own has the pod's.
		if limit.IsZero() {
			limit = own.Limits.Cpu()
		}
		if memory.IsZero() {
			memory = own.Limits.Memory()
		}
	}
	milli := cpu.MilliValue()
	if cpu.IsZero() && !limit.IsZero() {
		milli = limit.MilliValue()
	}
	r.CpuShares = max(milli*1024/1000, 2)
	if period := w.m.cfg.Resolver.CFSPeriod; !limit.IsZero() && period > 0 {
		r.CpuPeriod = period
		r.CpuQuota = max(limit.MilliValue()*r.CpuPeriod/1000, 1000)
	}
	if !memory.IsZero() {
		r.MemoryLimitInBytes = memory.Value()
	}
	w.m.cfg.Resources.Place(pod, c, r)
	return r
}

// oomScore orders who dies first when memory runs out: best effort, then burstable by how little it asked for.
func oomScore(pod *v1.Pod, c *v1.Container, capacity int64) int64 {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= 2000000000 {
		return -997
	}
	switch QOS(pod) {
	case v1.PodQOSGuaranteed:
		return -997
	case v1.PodQOSBestEffort:
		return 1000
	}
	score := int64(1000)
	if capacity > 0 {
		score = 1000 - 1000*c.Resources.Requests.Memory().Value()/capacity
	}
	return min(max(score, 3), 999)
}

// fixed tells whether no container may write to a volume, whatever its mount says: the kubelet alone writes the files of
// objects, and some sources say it themselves.
func fixed(pod *v1.Pod, name string) bool {
	i := slices.IndexFunc(pod.Spec.Volumes, func(v v1.Volume) bool { return v.Name == name })
	if i < 0 {
		return false
	}
	switch v := pod.Spec.Volumes[i]; {
	case v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil, v.Projected != nil:
		return true
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ReadOnly
	case v.CSI != nil:
		return v.CSI.ReadOnly != nil && *v.CSI.ReadOnly
	}
	return false
}

// mounts are the container's volumes (those which are images by their name), its hosts file and its termination message file.
func (w *worker) mounts(pod *v1.Pod, c *v1.Container, env []v1.EnvVar, images map[string]*runtimeapi.ImageSpec, restarts int, ips []string) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	ownHosts := false
	for i, m := range c.VolumeMounts {
		ownHosts = ownHosts || m.MountPath == "/etc/hosts"
		path := m.MountPath
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		if img := images[m.Name]; img != nil {
			sub := m.SubPath
			if m.SubPathExpr != "" {
				var err error
				if sub, err = expandStrict(m.SubPathExpr, env); err != nil {
					return nil, err
				}
			}
			out = append(out, &runtimeapi.Mount{ContainerPath: path, Readonly: true, Image: img, ImageSubPath: sub})
			continue
		}
		host, err := w.m.cfg.Volumes.HostPath(pod, m.Name)
		if err != nil {
			return nil, err
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			if sub, err = expandStrict(m.SubPathExpr, env); err != nil {
				return nil, err
			}
		}
		if sub != "" {
			if host, err = w.m.cfg.Volumes.SubPath(pod, c.Name, i, m.Name, sub); err != nil {
				return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, c.Name, err)
			}
		}
		rm := &runtimeapi.Mount{ContainerPath: path, HostPath: host, Readonly: m.ReadOnly || fixed(pod, m.Name)}
		if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly == v1.RecursiveReadOnlyEnabled {
			rm.RecursiveReadOnly = true
		}
		if p := m.MountPropagation; p != nil {
			switch *p {
			case v1.MountPropagationHostToContainer:
				rm.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
			case v1.MountPropagationBidirectional:
				rm.Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
			}
		}
		out = append(out, rm)
	}
	if !ownHosts {
		hosts := filepath.Join(w.m.cfg.Volumes.PodDir(w.uid), "etc-hosts")
		if err := w.writeHosts(pod, hosts, ips); err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: hosts})
	}
	if c.TerminationMessagePath != "" {
		file := w.messageFile(c.Name, restarts)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o666)
		if err != nil {
			return nil, err
		}
		// Any user of the container may write it, whatever our umask.
		err = f.Chmod(0o666)
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: file})
	}
	return out, nil
}

func imageVolume(pod *v1.Pod, name string) *v1.ImageVolumeSource {
	for _, v := range pod.Spec.Volumes {
		if v.Name == name {
			return v.Image
		}
	}
	return nil
}

// writeHosts writes the pod's /etc/hosts: the node's own for host network, else a small one; then the aliases.
func (w *worker) writeHosts(pod *v1.Pod, path string, ips []string) error {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		raw, err := os.ReadFile("/etc/hosts")
		if err != nil {
			return err
		}
		b.Write(raw)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		host, domain := hostname(pod, w.m.cfg.Resolver.ClusterDomain)
		for _, ip := range ips {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, host, domain, host)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, host)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	// Written in place: running containers have this very file mounted.
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// memory is what pods of this node share, bytes.
func (w *worker) memory() int64 {
	q := w.m.cfg.Allocatable()[v1.ResourceMemory]
	return q.Value()
}
