package validate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	envFields    = sets.New("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")
	fileFields   = sets.New("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
	downward     = envFields.Union(fileFields).Insert("spec.restartPolicy", "spec.schedulerName", "status.phase")
	envResources = sets.New("limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory")
)

func env(list []corev1.EnvVar, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		e, p := &list[i], at.Index(i)
		if e.Name == "" {
			errs = append(errs, field.Required(p.Child("name"), ""))
		} else {
			errs = append(errs, invalid(p.Child("name"), e.Name, utilvalidation.IsRelaxedEnvVarName(e.Name))...)
		}
		errs = append(errs, envSource(e, p.Child("valueFrom"))...)
	}
	return errs
}

func envSource(e *corev1.EnvVar, at *field.Path) field.ErrorList {
	f := e.ValueFrom
	if f == nil {
		return nil
	}
	var errs field.ErrorList
	n := 0
	if f.FieldRef != nil {
		n++
		errs = append(errs, fieldRef(f.FieldRef, envFields, at.Child("fieldRef"))...)
	}
	if f.ResourceFieldRef != nil {
		n++
		errs = append(errs, resourceRef(f.ResourceFieldRef, envResources, false, at.Child("resourceFieldRef"))...)
	}
	if r := f.ConfigMapKeyRef; r != nil {
		n++
		errs = append(errs, keyRef(r.Name, r.Key, at.Child("configMapKeyRef"))...)
	}
	if r := f.SecretKeyRef; r != nil {
		n++
		errs = append(errs, keyRef(r.Name, r.Key, at.Child("secretKeyRef"))...)
	}
	if f.FileKeyRef != nil {
		n++
	}
	switch {
	case n == 0:
		errs = append(errs, field.Invalid(at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case e.Value != "":
		errs = append(errs, field.Invalid(at, "", "may not be specified when `value` is not empty"))
	case n > 1:
		errs = append(errs, field.Invalid(at, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func keyRef(name, key string, at *field.Path) field.ErrorList {
	errs := invalid(at.Child("name"), name, validation.NameIsDNSSubdomain(name, false))
	if key == "" {
		return append(errs, field.Required(at.Child("key"), ""))
	}
	return append(errs, invalid(at.Child("key"), key, utilvalidation.IsConfigMapKey(key))...)
}

func fieldRef(r *corev1.ObjectFieldSelector, allowed sets.Set[string], at *field.Path) field.ErrorList {
	if r.APIVersion == "" {
		return field.ErrorList{field.Required(at.Child("apiVersion"), "")}
	}
	p := at.Child("fieldPath")
	if r.FieldPath == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	const converting = "error converting fieldPath: "
	if r.APIVersion != "v1" {
		return field.ErrorList{field.Invalid(p, r.FieldPath, converting+"unsupported pod version: "+r.APIVersion)}
	}
	path, rest, subscript := strings.Cut(r.FieldPath, "['")
	if subscript && strings.HasSuffix(rest, "']") {
		sub := strings.TrimSuffix(rest, "']")
		switch path {
		case "metadata.annotations":
			return invalid(at, sub, utilvalidation.IsQualifiedName(strings.ToLower(sub)))
		case "metadata.labels":
			return invalid(at, sub, utilvalidation.IsQualifiedName(sub))
		}
		return field.ErrorList{field.Invalid(p, path, "does not support subscript")}
	}
	name := r.FieldPath
	if name == "spec.host" {
		name = "spec.nodeName" // its name before v1
	}
	if !downward.Has(name) {
		return field.ErrorList{field.Invalid(p, r.FieldPath, converting+"field label not supported: "+r.FieldPath)}
	}
	if !allowed.Has(name) {
		return field.ErrorList{field.NotSupported(p, name, sets.List(allowed))}
	}
	return nil
}

func resourceRef(r *corev1.ResourceFieldSelector, allowed sets.Set[string], file bool, at *field.Path) field.ErrorList {
	switch huge := strings.HasPrefix(r.Resource, "limits.hugepages-") || strings.HasPrefix(r.Resource, "requests.hugepages-"); {
	case file && r.ContainerName == "":
		return field.ErrorList{field.Required(at.Child("containerName"), "")}
	case r.Resource == "":
		return field.ErrorList{field.Required(at.Child("resource"), "")}
	case !allowed.Has(r.Resource) && !huge:
		return field.ErrorList{field.NotSupported(at.Child("resource"), r.Resource, sets.List(allowed))}
	}
	_, name, _ := strings.Cut(r.Resource, ".")
	var valid sets.Set[string]
	switch name {
	case "cpu":
		valid = sets.New("1m", "1")
	default:
		valid = sets.New("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
	}
	if d := r.Divisor.String(); d != "0" && !valid.Has(d) {
		word := "cpu"
		if name != "cpu" {
			word = name
		}
		return field.ErrorList{field.Invalid(at.Child("divisor"), d, "only divisor's values "+strings.Join(sets.List(valid), ", ")+" are supported with the "+word+" resource")}
	}
	return nil
}

func envFrom(list []corev1.EnvFromSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, e := range list {
		p := at.Index(i)
		if e.Prefix != "" {
			errs = append(errs, invalid(p.Child("prefix"), e.Prefix, utilvalidation.IsRelaxedEnvVarName(e.Prefix))...)
		}
		n := 0
		ref := func(name string, at *field.Path) {
			n++
			if name == "" {
				errs = append(errs, field.Required(at.Child("name"), ""))
				return
			}
			errs = append(errs, invalid(at.Child("name"), name, validation.NameIsDNSSubdomain(name, false))...)
		}
		if e.ConfigMapRef != nil {
			ref(e.ConfigMapRef.Name, p.Child("configMapRef"))
		}
		if e.SecretRef != nil {
			ref(e.SecretRef.Name, p.Child("secretRef"))
		}
		if n == 0 {
			errs = append(errs, field.Invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"))
		} else if n > 1 {
			errs = append(errs, field.Invalid(at, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}
