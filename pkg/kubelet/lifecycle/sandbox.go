package lifecycle

import (
	"fmt"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// Resolver is the node's and the cluster's DNS.
type Resolver struct {
	ClusterDNS    []string
	ClusterDomain string
	// Node is the node's own resolv.conf, parsed.
	Node *runtimeapi.DNSConfig
	// SeccompRoot is where Localhost profiles lie.
	SeccompRoot string
	// SeccompDefault gives RuntimeDefault to containers which ask for nothing.
	SeccompDefault bool
	// CFSPeriod is the kernel's period for cpu limits in microseconds; 0 sets no limits.
	CFSPeriod int64
}

// sandboxConfig is the same for the same pod and attempt, whenever it is made.
func (w *worker) sandboxConfig(pod *v1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Uid: string(pod.UID), Namespace: pod.Namespace, Attempt: attempt},
		Labels:       map[string]string{},
		Annotations:  map[string]string{},
		LogDirectory: LogDir(w.m.cfg.LogDir, pod),
	}
	for k, v := range pod.Labels {
		cfg.Labels[k] = v
	}
	for k, v := range pod.Annotations {
		cfg.Annotations[k] = v
	}
	cfg.Labels[cri.LabelPodName] = pod.Name
	cfg.Labels[cri.LabelPodNamespace] = pod.Namespace
	cfg.Labels[cri.LabelPodUID] = string(pod.UID)
	host, domain := hostname(pod, w.m.cfg.Resolver.ClusterDomain)
	if !pod.Spec.HostNetwork {
		cfg.Hostname = host
		if f := pod.Spec.SetHostnameAsFQDN; f != nil && *f && domain != "" {
			cfg.Hostname = host + "." + domain
			if len(cfg.Hostname) > 64 {
				return nil, fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (64 characters is the max, %d characters requested)", cfg.Hostname, len(cfg.Hostname))
			}
		}
	}
	cfg.DnsConfig = w.dns(pod)
	if !pod.Spec.HostNetwork {
		for _, c := range append(append([]v1.Container(nil), pod.Spec.InitContainers...), pod.Spec.Containers...) {
			for _, p := range c.Ports {
				cfg.PortMappings = append(cfg.PortMappings, &runtimeapi.PortMapping{HostIp: p.HostIP, HostPort: p.HostPort,
					ContainerPort: p.ContainerPort, Protocol: runtimeapi.Protocol(runtimeapi.Protocol_value[string(p.Protocol)])})
			}
		}
	}
	lsc := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	users, err := w.userns(pod)
	if err != nil {
		return nil, err
	}
	lsc.NamespaceOptions.UsernsOptions = users
	cfg.Linux = &runtimeapi.LinuxPodSandboxConfig{CgroupParent: w.m.cfg.Cgroups.Parent(pod), SecurityContext: lsc, Sysctls: map[string]string{}}
	for name, value := range w.m.cfg.Sysctls {
		// What a pod shares with the node stays as the node has it.
		shared := strings.HasPrefix(name, "net.") && pod.Spec.HostNetwork || !strings.HasPrefix(name, "net.") && pod.Spec.HostIPC
		if !shared {
			cfg.Linux.Sysctls[strings.ReplaceAll(name, "/", ".")] = value
		}
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			cfg.Linux.Sysctls[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
		}
		if sc.RunAsUser != nil {
			lsc.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
		}
		if sc.RunAsGroup != nil {
			lsc.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
		}
		if sc.FSGroup != nil {
			lsc.SupplementalGroups = append(lsc.SupplementalGroups, *sc.FSGroup)
		}
		lsc.SupplementalGroups = append(lsc.SupplementalGroups, sc.SupplementalGroups...)
		if sc.SELinuxOptions != nil {
			lsc.SelinuxOptions = selinux(sc.SELinuxOptions)
		}
		if sc.SeccompProfile != nil {
			lsc.Seccomp = w.seccomp(sc.SeccompProfile)
		}
	}
	for _, c := range pod.Spec.Containers {
		if c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged {
			lsc.Privileged = true
		}
	}
	return cfg, nil
}

// hostname is the pod's host name and its domain below the cluster's, empty without a subdomain.
func hostname(pod *v1.Pod, cluster string) (host, domain string) {
	host = pod.Name
	if pod.Spec.Hostname != "" {
		host = pod.Spec.Hostname
	}
	if o := pod.Spec.HostnameOverride; o != nil && *o != "" {
		return *o, ""
	}
	if len(host) > 63 {
		host = strings.TrimRight(host[:63], "-.")
	}
	if pod.Spec.Subdomain != "" {
		domain = pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + cluster
	}
	return host, domain
}

func namespaces(pod *v1.Pod) *runtimeapi.NamespaceOption {
	ns := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_POD, Pid: runtimeapi.NamespaceMode_CONTAINER, Ipc: runtimeapi.NamespaceMode_POD}
	if pod.Spec.HostNetwork {
		ns.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		ns.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		ns.Pid = runtimeapi.NamespaceMode_NODE
	case pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace:
		ns.Pid = runtimeapi.NamespaceMode_POD
	}
	return ns
}

// dns is the pod's resolv.conf by its policy and its own additions.
func (w *worker) dns(pod *v1.Pod) *runtimeapi.DNSConfig {
	r := w.m.cfg.Resolver
	out := &runtimeapi.DNSConfig{}
	policy := pod.Spec.DNSPolicy
	if policy == v1.DNSClusterFirst && pod.Spec.HostNetwork || len(r.ClusterDNS) == 0 && policy != v1.DNSNone {
		policy = v1.DNSDefault
	}
	switch policy {
	case v1.DNSNone:
	case v1.DNSDefault:
		out.Servers, out.Searches, out.Options = r.Node.Servers, r.Node.Searches, r.Node.Options
	default:
		out.Servers = r.ClusterDNS
		if r.ClusterDomain != "" {
			out.Searches = []string{pod.Namespace + ".svc." + r.ClusterDomain, "svc." + r.ClusterDomain, r.ClusterDomain}
		}
		out.Searches = append(out.Searches, r.Node.Searches...)
		out.Options = []string{"ndots:5"}
	}
	if d := pod.Spec.DNSConfig; d != nil {
		out.Servers = unique(append(append([]string(nil), out.Servers...), d.Nameservers...))
		out.Searches = unique(append(append([]string(nil), out.Searches...), d.Searches...))
		options := append([]string(nil), out.Options...)
		for _, o := range d.Options {
			text := o.Name
			if o.Value != nil && *o.Value != "" {
				text += ":" + *o.Value
			}
			kept := options[:0:0]
			for _, old := range options {
				if name, _, _ := strings.Cut(old, ":"); name != o.Name {
					kept = append(kept, old)
				}
			}
			options = append(kept, text)
		}
		out.Options = options
	}
	out.Servers = out.Servers[:min(len(out.Servers), 3)]
	out.Searches = out.Searches[:min(len(out.Searches), 32)]
	return out
}

func unique(in []string) []string {
	seen, out := map[string]bool{}, []string(nil)
	for _, s := range in {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func selinux(o *v1.SELinuxOptions) *runtimeapi.SELinuxOption {
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func (w *worker) seccomp(p *v1.SeccompProfile) *runtimeapi.SecurityProfile {
	switch p.Type {
	case v1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	case v1.SeccompProfileTypeLocalhost:
		if p.LocalhostProfile != nil {
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost,
				LocalhostRef: filepath.Join(w.m.cfg.Resolver.SeccompRoot, filepath.Join("/", *p.LocalhostProfile))}
		}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
}
