package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
)

// environment is the container's variables in their order: services first, then envFrom, then env; the last wins.
func (w *worker) environment(ctx context.Context, pod *v1.Pod, c *v1.Container, ips []string) ([]v1.EnvVar, error) {
	var order []string
	values := map[string]string{}
	set := func(k, v string) {
		if _, ok := values[k]; !ok {
			order = append(order, k)
		}
		values[k] = v
	}
	services, err := w.m.cfg.Objects.Services(ctx, pod.Namespace)
	if err != nil && !isStatic(pod) {
		return nil, err // a static pod may be the very apiserver that would tell
	}
	service := map[string]string{}
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	for _, s := range services {
		if master := s.Namespace == v1.NamespaceDefault && s.Name == "kubernetes"; master || links && s.Namespace == pod.Namespace {
			serviceEnv(s, service)
		}
	}
	// envFrom and env see service variables, but only those they name are ordered before them.
	for _, f := range c.EnvFrom {
		data := map[string]string{}
		switch {
		case f.ConfigMapRef != nil:
			cm, err := w.m.cfg.Objects.ConfigMap(ctx, pod.Namespace, f.ConfigMapRef.Name)
			if err != nil {
				if apierrors.IsNotFound(err) && f.ConfigMapRef.Optional != nil && *f.ConfigMapRef.Optional {
					continue
				}
				return nil, err
			}
			data = cm.Data
		case f.SecretRef != nil:
			s, err := w.m.cfg.Objects.Secret(ctx, pod.Namespace, f.SecretRef.Name)
			if err != nil {
				if apierrors.IsNotFound(err) && f.SecretRef.Optional != nil && *f.SecretRef.Optional {
					continue
				}
				return nil, err
			}
			for k, v := range s.Data {
				data[k] = string(v)
			}
		}
		for _, k := range sortedKeys(data) {
			set(f.Prefix+k, data[k])
		}
	}
	lookup := func(name string) (string, bool) {
		if v, ok := values[name]; ok {
			return v, true
		}
		v, ok := service[name]
		return v, ok
	}
	for _, e := range c.Env {
		value := e.Value
		if e.Value != "" {
			value = expand(e.Value, lookup)
		} else if e.ValueFrom != nil {
			v, ok, err := w.valueFrom(ctx, pod, c, e.ValueFrom, ips)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			value = v
		}
		set(e.Name, value)
	}
	var out []v1.EnvVar
	for _, k := range sortedKeys(service) {
		if _, ok := values[k]; !ok {
			out = append(out, v1.EnvVar{Name: k, Value: service[k]})
		}
	}
	for _, k := range order {
		out = append(out, v1.EnvVar{Name: k, Value: values[k]})
	}
	return out, nil
}

func (w *worker) valueFrom(ctx context.Context, pod *v1.Pod, c *v1.Container, f *v1.EnvVarSource, ips []string) (string, bool, error) {
	optional := func(b *bool) bool { return b != nil && *b }
	switch {
	case f.FieldRef != nil:
		v, err := w.field(pod, f.FieldRef.FieldPath, ips)
		return v, true, err
	case f.ResourceFieldRef != nil:
		v, err := ResourceField(f.ResourceFieldRef, pod, c, w.m.cfg.Allocatable())
		return v, true, err
	case f.ConfigMapKeyRef != nil:
		r := f.ConfigMapKeyRef
		cm, err := w.m.cfg.Objects.ConfigMap(ctx, pod.Namespace, r.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional(r.Optional) {
				return "", false, nil
			}
			return "", false, err
		}
		v, ok := cm.Data[r.Key]
		if !ok && !optional(r.Optional) {
			return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", r.Key, pod.Namespace, r.Name)
		}
		return v, ok, nil
	case f.SecretKeyRef != nil:
		r := f.SecretKeyRef
		s, err := w.m.cfg.Objects.Secret(ctx, pod.Namespace, r.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional(r.Optional) {
				return "", false, nil
			}
			return "", false, err
		}
		v, ok := s.Data[r.Key]
		if !ok && !optional(r.Optional) {
			return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", r.Key, pod.Namespace, r.Name)
		}
		return string(v), ok, nil
	case f.FileKeyRef != nil:
		r := f.FileKeyRef
		vars, err := w.m.cfg.Volumes.EnvFile(pod, r.VolumeName, r.Path)
		if errors.Is(err, os.ErrNotExist) && optional(r.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, fmt.Errorf("couldn't load the environment file: %w", err)
		}
		v, ok := vars[r.Key]
		if !ok && !optional(r.Optional) {
			return "", false, fmt.Errorf("environment variable key %q not found in file %q", r.Key, r.Path)
		}
		return v, ok, nil
	}
	return "", false, nil
}

// field is one downward field, with those only a running pod has.
func (w *worker) field(pod *v1.Pod, path string, ips []string) (string, error) {
	host := ""
	if len(w.m.cfg.HostIPs) > 0 {
		host = w.m.cfg.HostIPs[0]
	}
	switch path {
	case "spec.nodeName":
		return w.m.cfg.NodeName, nil
	case "status.hostIP":
		return host, nil
	case "status.hostIPs":
		return strings.Join(w.m.cfg.HostIPs, ","), nil
	case "status.podIP":
		if len(ips) > 0 {
			return ips[0], nil
		}
		return "", nil
	case "status.podIPs":
		return strings.Join(ips, ","), nil
	}
	return Field(pod, path)
}

// Field is one downward field of a pod's metadata or spec, as env and volumes show it.
func Field(pod *v1.Pod, path string) (string, error) {
	if base, key, ok := strings.Cut(path, "['"); ok {
		key = strings.TrimSuffix(key, "']")
		switch base {
		case "metadata.annotations":
			return pod.Annotations[key], nil
		case "metadata.labels":
			return pod.Labels[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return quoted(pod.Labels), nil
	case "metadata.annotations":
		return quoted(pod.Annotations), nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

func quoted(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+strconv.Quote(v))
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// ResourceField is one request or limit in units of the divisor, rounded up; an unset limit is the node's allocatable.
func ResourceField(f *v1.ResourceFieldSelector, pod *v1.Pod, c *v1.Container, allocatable v1.ResourceList) (string, error) {
	if f.ContainerName != "" {
		if c = specOf(pod, f.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", f.ContainerName)
		}
	}
	kind, name, ok := strings.Cut(f.Resource, ".")
	if !ok {
		return "", fmt.Errorf("unsupported container resource : %v", f.Resource)
	}
	list := c.Resources.Requests
	if kind == "limits" {
		list = c.Resources.Limits
	}
	q, set := list[v1.ResourceName(name)]
	if kind == "limits" && (!set || q.IsZero()) {
		q = allocatable[v1.ResourceName(name)]
	}
	d := f.Divisor
	if d.IsZero() {
		d = resource.MustParse("1")
	}
	if name == "cpu" {
		return strconv.FormatInt((q.MilliValue()+d.MilliValue()-1)/d.MilliValue(), 10), nil
	}
	return strconv.FormatInt((q.Value()+d.Value()-1)/d.Value(), 10), nil
}

// serviceEnv adds the variables which name one service.
func serviceEnv(s *v1.Service, out map[string]string) {
	ip := s.Spec.ClusterIP
	if ip == "" || ip == v1.ClusterIPNone || len(s.Spec.Ports) == 0 {
		return
	}
	name := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	out[name+"_SERVICE_HOST"] = ip
	out[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i, p := range s.Spec.Ports {
		port := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			out[name+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))] = port
		}
		proto := string(p.Protocol)
		if proto == "" {
			proto = "TCP"
		}
		url := strings.ToLower(proto) + "://" + net.JoinHostPort(ip, port)
		if i == 0 {
			out[name+"_PORT"] = url
		}
		prefix := name + "_PORT_" + port + "_" + strings.ToUpper(proto)
		out[prefix], out[prefix+"_PROTO"], out[prefix+"_PORT"], out[prefix+"_ADDR"] = url, strings.ToLower(proto), port, ip
	}
}

// expand replaces $(NAME); $$ is one dollar; what is not known stays as it is.
func expand(s string, lookup func(string) (string, bool)) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 >= len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteString("$(")
				i++
				continue
			}
			name := s[i+2 : i+end]
			if v, ok := lookup(name); ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

func expandAll(in []string, env []v1.EnvVar) []string {
	m := make(map[string]string, len(env))
	for _, e := range env {
		m[e.Name] = e.Value
	}
	out := make([]string, 0, len(in))
	for _, s := range in {
		out = append(out, expand(s, func(k string) (string, bool) { v, ok := m[k]; return v, ok }))
	}
	return out
}

// expandStrict is expand for subPathExpr, where a name that is unknown or stands for nothing is an error: the mount would be
// of the whole volume.
func expandStrict(s string, env []v1.EnvVar) (string, error) {
	var missing []string
	m := map[string]string{}
	for _, e := range env {
		m[e.Name] = e.Value
	}
	out := expand(s, func(k string) (string, bool) {
		v, ok := m[k]
		if v == "" {
			missing = append(missing, k)
		}
		return v, ok
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("missing value for %q", strings.Join(missing, ", "))
	}
	return out, nil
}

// isStatic tells that a pod comes from this node's own folder rather than from the apiserver.
func isStatic(pod *v1.Pod) bool {
	source := pod.Annotations["kubernetes.io/config.source"]
	return source != "" && source != "api"
}
