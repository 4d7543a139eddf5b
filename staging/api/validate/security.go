package validate

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const sysctlPattern = `^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`

var sysctlName = regexp.MustCompile(sysctlPattern)

// hub shows a value under the names of the Go fields, as upstream's answers show whole structures.
type hub struct{ v any }

func (h hub) MarshalJSON() ([]byte, error) {
	v := reflect.ValueOf(h.v)
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return []byte("null"), nil
		}
		v = v.Elem()
	}
	_, own := v.Interface().(json.Marshaler)
	if !own && v.CanAddr() {
		_, own = v.Addr().Interface().(json.Marshaler)
	}
	switch {
	case own || strings.Contains(v.Type().PkgPath(), "/apis/meta/"):
	case v.Kind() == reflect.Struct:
		var parts []string
		if err := fields(v, &parts); err != nil {
			return nil, err
		}
		return []byte("{" + strings.Join(parts, ",") + "}"), nil
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8 && !v.IsNil():
		list := make([]hub, v.Len())
		for i := range list {
			list[i] = hub{v.Index(i).Interface()}
		}
		return json.Marshal(list)
	}
	return json.Marshal(v.Interface())
}

func fields(v reflect.Value, parts *[]string) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct && f.Name != "ObjectMeta" && f.Name != "LocalObjectReference" {
			if err := fields(v.Field(i), parts); err != nil {
				return err
			}
			continue
		}
		text, err := json.Marshal(hub{v.Field(i).Interface()})
		if err != nil {
			return err
		}
		*parts = append(*parts, fmt.Sprintf("%q:%s", f.Name, text))
	}
	return nil
}

func securityContext(s *corev1.SecurityContext, at *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	var errs field.ErrorList
	errs = append(errs, ids(s.RunAsUser, s.RunAsGroup, nil, at)...)
	if s.ProcMount != nil && *s.ProcMount != corev1.DefaultProcMount && *s.ProcMount != corev1.UnmaskedProcMount {
		errs = append(errs, field.NotSupported(at.Child("procMount"), *s.ProcMount, []string{"Default", "Unmasked"}))
	}
	errs = append(errs, seccomp(s.SeccompProfile, at.Child("seccompProfile"))...)
	if a := s.AllowPrivilegeEscalation; a != nil && !*a {
		if s.Privileged != nil && *s.Privileged {
			errs = append(errs, field.Invalid(at, hub{s}, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if s.Capabilities != nil {
			for _, c := range s.Capabilities.Add {
				if c == "CAP_SYS_ADMIN" {
					errs = append(errs, field.Invalid(at, hub{s}, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
				}
			}
		}
	}
	return append(errs, appArmor(s.AppArmorProfile, at.Child("appArmorProfile"))...)
}

func ids(user, group, files *int64, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if files != nil {
		errs = append(errs, invalid(at.Child("fsGroup"), *files, utilvalidation.IsValidGroupID(*files))...)
	}
	if user != nil {
		errs = append(errs, invalid(at.Child("runAsUser"), *user, utilvalidation.IsValidUserID(*user))...)
	}
	if group != nil {
		errs = append(errs, invalid(at.Child("runAsGroup"), *group, utilvalidation.IsValidGroupID(*group))...)
	}
	return errs
}

func seccomp(s *corev1.SeccompProfile, at *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	p := at.Child("localhostProfile")
	switch s.Type {
	case "":
		return field.ErrorList{field.Required(at.Child("type"), "type is required when seccompProfile is set")}
	case corev1.SeccompProfileTypeLocalhost:
		if s.LocalhostProfile == nil || *s.LocalhostProfile == "" {
			return field.ErrorList{field.Required(p, "must be set when seccomp type is Localhost")}
		}
		return descending(*s.LocalhostProfile, p)
	case corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined:
		if s.LocalhostProfile != nil {
			return field.ErrorList{field.Invalid(p, s, "can only be set when seccomp type is Localhost")}
		}
		return nil
	}
	return field.ErrorList{field.NotSupported(at.Child("type"), s.Type, []string{"Localhost", "RuntimeDefault", "Unconfined"})}
}

func appArmor(a *corev1.AppArmorProfile, at *field.Path) field.ErrorList {
	if a == nil {
		return nil
	}
	p := at.Child("localhostProfile")
	switch a.Type {
	case "":
		return field.ErrorList{field.Required(at.Child("type"), "type is required when appArmorProfile is set")}
	case corev1.AppArmorProfileTypeLocalhost:
		if a.LocalhostProfile == nil || strings.TrimSpace(*a.LocalhostProfile) == "" {
			return field.ErrorList{field.Required(p, "must be set when AppArmor type is Localhost")}
		}
		return nil
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if a.LocalhostProfile != nil {
			return field.ErrorList{field.Invalid(p, *a.LocalhostProfile, "can only be set when AppArmor type is Localhost")}
		}
		return nil
	}
	return field.ErrorList{field.NotSupported(at.Child("type"), a.Type, []string{"Localhost", "RuntimeDefault", "Unconfined"})}
}

func podSecurity(spec *corev1.PodSpec, at *field.Path) field.ErrorList {
	s := spec.SecurityContext
	if s == nil {
		return nil
	}
	errs := ids(s.RunAsUser, s.RunAsGroup, s.FSGroup, at)
	for i, g := range s.SupplementalGroups {
		errs = append(errs, invalid(at.Child("supplementalGroups").Index(i), g, utilvalidation.IsValidGroupID(g))...)
	}
	if spec.ShareProcessNamespace != nil && spec.HostPID && *spec.ShareProcessNamespace {
		errs = append(errs, field.Invalid(at.Child("shareProcessNamespace"), *spec.ShareProcessNamespace, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	seen := sets.New[string]()
	for i, c := range s.Sysctls {
		p := at.Child("sysctls").Index(i).Child("name")
		switch name := strings.ReplaceAll(c.Name, "/", "."); {
		case c.Name == "":
			errs = append(errs, field.Required(p, ""))
		case len(c.Name) > 253 || !sysctlName.MatchString(c.Name):
			errs = append(errs, field.Invalid(p, c.Name, "must have at most 253 characters and match regex "+sysctlPattern))
		case seen.Has(name):
			errs = append(errs, field.Duplicate(p, c.Name))
		default:
			seen.Insert(name)
		}
	}
	if c := s.FSGroupChangePolicy; c != nil && *c != corev1.FSGroupChangeAlways && *c != corev1.FSGroupChangeOnRootMismatch {
		errs = append(errs, field.NotSupported(at.Child("fsGroupChangePolicy"), *c, []string{"Always", "OnRootMismatch"}))
	}
	errs = append(errs, seccomp(s.SeccompProfile, at.Child("seccompProfile"))...)
	if c := s.SupplementalGroupsPolicy; c != nil && *c != corev1.SupplementalGroupsPolicyMerge && *c != corev1.SupplementalGroupsPolicyStrict {
		errs = append(errs, field.NotSupported(at.Child("supplementalGroupsPolicy"), *c, []string{"Merge", "Strict"}))
	}
	return append(errs, appArmor(s.AppArmorProfile, at.Child("appArmorProfile"))...)
}

// within checks a number of seconds that must fit 31 bits.
func within(n int64, low int, at *field.Path) field.ErrorList {
	if n < int64(low) || n > math.MaxInt32 {
		return field.ErrorList{field.Invalid(at, n, utilvalidation.InclusiveRangeError(low, math.MaxInt32))}
	}
	return nil
}
