package validate

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// invalid makes an error of every message a name's rule answers.
func invalid[T any](at *field.Path, value T, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

// oneOf checks an enumeration's value; an empty one is missing.
func oneOf[T ~string](at *field.Path, value T, valid ...T) *field.Error {
	switch {
	case value == "":
		return field.Required(at, "")
	case !slices.Contains(valid, value):
		return field.NotSupported(at, value, valid)
	}
	return nil
}

// add appends an error if there is one.
func add(errs field.ErrorList, err *field.Error) field.ErrorList {
	if err == nil {
		return errs
	}
	return append(errs, err)
}

// surroundings are what a container is checked against: the pod's volumes by name, its grace, and more of its spec.
type surroundings struct {
	volumes map[string]corev1.VolumeSource
	grace   *int64
	host    bool // hostNetwork
	never   bool // restartPolicy: Never
}

func containers(list []corev1.Container, in surroundings, at *field.Path) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range list {
		c, p := &list[i], at.Index(i)
		errs = append(errs, container(c, in, p)...)
		errs = append(errs, restarting(c, p)...)
		if names.Has(c.Name) {
			errs = append(errs, field.Duplicate(p.Child("name"), c.Name))
		}
		names.Insert(c.Name)
		errs = append(errs, lifecycle(c.Lifecycle, in.grace, p.Child("lifecycle"))...)
		errs = append(errs, livenessProbe(c.LivenessProbe, in.grace, p.Child("livenessProbe"))...)
		errs = append(errs, readinessProbe(c.ReadinessProbe, in.grace, p.Child("readinessProbe"))...)
		errs = append(errs, livenessProbe(c.StartupProbe, in.grace, p.Child("startupProbe"))...)
	}
	return append(errs, hostPorts(list, at)...)
}

func initContainers(list, regular []corev1.Container, in surroundings, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for _, c := range regular {
		names.Insert(c.Name)
	}
	for i := range list {
		c, p := &list[i], at.Index(i)
		always := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		errs = append(errs, container(c, in, p)...)
		errs = append(errs, restarting(c, p)...)
		if c.Name != "" && names.Has(c.Name) {
			errs = append(errs, field.Duplicate(p.Child("name"), c.Name))
		}
		names.Insert(c.Name)
		errs = append(errs, hostPorts(list[i:i+1], p)...)
		if always {
			errs = append(errs, lifecycle(c.Lifecycle, in.grace, p.Child("lifecycle"))...)
			errs = append(errs, livenessProbe(c.LivenessProbe, in.grace, p.Child("livenessProbe"))...)
			errs = append(errs, readinessProbe(c.ReadinessProbe, in.grace, p.Child("readinessProbe"))...)
			errs = append(errs, livenessProbe(c.StartupProbe, in.grace, p.Child("startupProbe"))...)
			continue
		}
		const only = "may not be set for init containers without restartPolicy=Always"
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"lifecycle", c.Lifecycle != nil}, {"livenessProbe", c.LivenessProbe != nil},
			{"readinessProbe", c.ReadinessProbe != nil}, {"startupProbe", c.StartupProbe != nil},
		} {
			if f.set {
				errs = append(errs, field.Forbidden(p.Child(f.name), only))
			}
		}
	}
	return errs
}

func ephemeralContainers(s *corev1.PodSpec, in surroundings, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	names, targets := sets.New[string](), sets.New[string]()
	for _, c := range s.Containers {
		names.Insert(c.Name)
		targets.Insert(c.Name)
	}
	for _, c := range s.InitContainers {
		names.Insert(c.Name)
		targets.Insert(c.Name)
	}
	for i := range s.EphemeralContainers {
		e, p := &s.EphemeralContainers[i], at.Index(i)
		c := corev1.Container(e.EphemeralContainerCommon)
		errs = append(errs, container(&c, in, p)...)
		if names.Has(c.Name) {
			errs = append(errs, field.Duplicate(p.Child("name"), c.Name))
		}
		names.Insert(c.Name)
		if e.TargetContainerName != "" && !targets.Has(e.TargetContainerName) {
			errs = append(errs, field.NotFound(p.Child("targetContainerName"), e.TargetContainerName))
		}
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"ports", c.Ports != nil}, {"livenessProbe", c.LivenessProbe != nil}, {"readinessProbe", c.ReadinessProbe != nil},
			{"startupProbe", c.StartupProbe != nil}, {"lifecycle", c.Lifecycle != nil}, {"resizePolicy", c.ResizePolicy != nil},
		} {
			if f.set {
				errs = append(errs, field.Forbidden(p.Child(f.name), "cannot be set for an Ephemeral Container"))
			}
		}
		if len(c.Resources.Limits)+len(c.Resources.Requests)+len(c.Resources.Claims) > 0 {
			errs = append(errs, field.Forbidden(p.Child("resources"), "cannot be set for an Ephemeral Container"))
		}
		if c.RestartPolicy != nil {
			errs = append(errs, field.Forbidden(p.Child("restartPolicy"), "cannot be set for an Ephemeral Container"))
		}
		if c.RestartPolicyRules != nil {
			errs = append(errs, field.Forbidden(p.Child("restartPolicyRules"), "cannot be set for an Ephemeral Container"))
		}
		for k, m := range c.VolumeMounts {
			if m.SubPath != "" {
				errs = append(errs, field.Forbidden(p.Child("volumeMounts").Index(k).Child("subPath"), "cannot be set for an Ephemeral Container"))
			}
			if m.SubPathExpr != "" {
				errs = append(errs, field.Forbidden(p.Child("volumeMounts").Index(k).Child("subPathExpr"), "cannot be set for an Ephemeral Container"))
			}
		}
	}
	return errs
}

// container checks what holds for every sort of container.
func container(c *corev1.Container, in surroundings, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if c.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, invalid(at.Child("name"), c.Name, utilvalidation.IsDNS1123Label(c.Name))...)
	}
	if c.Image == "" {
		errs = append(errs, field.Required(at.Child("image"), ""))
	} else if c.Image != strings.TrimSpace(c.Image) {
		errs = append(errs, field.Invalid(at.Child("image"), c.Image, "must not have leading or trailing whitespace"))
	}
	errs = add(errs, oneOf(at.Child("terminationMessagePolicy"), c.TerminationMessagePolicy, corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError))
	errs = append(errs, ports(c.Ports, in.host, at.Child("ports"))...)
	errs = append(errs, env(c.Env, at.Child("env"))...)
	errs = append(errs, envFrom(c.EnvFrom, at.Child("envFrom"))...)
	errs = append(errs, mounts(c, in.volumes, at)...)
	errs = append(errs, devices(c, in.volumes, at.Child("volumeDevices"))...)
	errs = add(errs, oneOf(at.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever))
	errs = append(errs, resources(&c.Resources, at.Child("resources"))...)
	errs = append(errs, resizePolicy(c.ResizePolicy, in.never && c.RestartPolicy == nil, at.Child("resizePolicy"))...)
	return append(errs, securityContext(c.SecurityContext, at.Child("securityContext"))...)
}

func ports(list []corev1.ContainerPort, host bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i, p := range list {
		in := at.Index(i)
		if p.Name != "" {
			if msgs := utilvalidation.IsValidPortName(p.Name); len(msgs) > 0 {
				errs = append(errs, invalid(in.Child("name"), p.Name, msgs)...)
			} else if names.Has(p.Name) {
				errs = append(errs, field.Duplicate(in.Child("name"), p.Name))
			}
			names.Insert(p.Name)
		}
		if p.ContainerPort == 0 {
			errs = append(errs, field.Required(in.Child("containerPort"), ""))
		} else {
			errs = append(errs, invalid(in.Child("containerPort"), p.ContainerPort, utilvalidation.IsValidPortNum(int(p.ContainerPort)))...)
		}
		if p.HostPort != 0 {
			errs = append(errs, invalid(in.Child("hostPort"), p.HostPort, utilvalidation.IsValidPortNum(int(p.HostPort)))...)
			if host && p.HostPort != p.ContainerPort {
				errs = append(errs, field.Invalid(in.Child("hostPort"), p.HostPort, "must match `containerPort` when `hostNetwork` is true"))
			}
		}
		errs = add(errs, oneOf(in.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP))
		if p.HostIP != "" {
			errs = append(errs, utilvalidation.IsValidIP(in.Child("hostIP"), p.HostIP)...)
		}
	}
	return errs
}

// hostPorts refuses two containers on one port of the host.
func hostPorts(list []corev1.Container, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	taken := sets.New[string]()
	for i, c := range list {
		for k, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			is := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
			if taken.Has(is) {
				errs = append(errs, field.Duplicate(at.Index(i).Child("ports").Index(k).Child("hostPort"), is))
			}
			taken.Insert(is)
		}
	}
	return errs
}
