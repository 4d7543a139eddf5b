package validate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func atLeast0[T int32 | int64](n *T, at *field.Path) field.ErrorList {
	if n == nil {
		return nil
	}
	return validation.ValidateNonnegativeField(int64(*n), at)
}

// selected checks a template against the selector that must find its pods.
func selected(s labels.Selector, t *corev1.PodTemplateSpec, at *field.Path) field.ErrorList {
	if s != nil && !s.Empty() && !s.Matches(labels.Set(t.Labels)) {
		return field.ErrorList{field.Invalid(at.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`")}
	}
	return nil
}

// running checks what a template must have where its pods are replaced for ever.
func running(t *corev1.PodTemplateSpec, of string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p := t.Spec.RestartPolicy; p != "" && p != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(at.Child("spec", "restartPolicy"), p, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(at.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+of+" is not Supported"))
	}
	return errs
}

// selector checks a selector, which must choose something. bad tells of one that cannot be read.
func selector(s *metav1.LabelSelector, of, bad string, at *field.Path) (labels.Selector, field.ErrorList) {
	var errs field.ErrorList
	if s == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, at)...)
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(at, s, "empty selector is invalid for "+of))
		}
	}
	is, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, append(errs, field.Invalid(at, s, bad))
	}
	return is, errs
}

// Deployment answers what is wrong with a deployment.
func Deployment(d *appsv1.Deployment) field.ErrorList {
	errs := validation.ValidateObjectMeta(&d.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, deploymentSpec(&d.Spec, field.NewPath("spec"))...)
}

// DeploymentUpdate answers what is wrong with a deployment in the place of old.
func DeploymentUpdate(d, old *appsv1.Deployment) field.ErrorList {
	errs := common(&d.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&d.ObjectMeta, &old.ObjectMeta, metadata)...)
	errs = append(errs, deploymentSpec(&d.Spec, field.NewPath("spec"))...)
	return append(errs, validation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
}

func deploymentSpec(s *appsv1.DeploymentSpec, at *field.Path) field.ErrorList {
	errs := atLeast0(s.Replicas, at.Child("replicas"))
	sel, wrong := selector(s.Selector, "deployment", "invalid label selector", at.Child("selector"))
	errs = append(errs, wrong...)
	errs = append(errs, replaced(sel, &s.Template, "ReplicaSet", at.Child("template"))...)
	errs = append(errs, strategy(&s.Strategy, at.Child("strategy"))...)
	errs = append(errs, atLeast0(&s.MinReadySeconds, at.Child("minReadySeconds"))...)
	errs = append(errs, atLeast0(s.RevisionHistoryLimit, at.Child("revisionHistoryLimit"))...)
	if p := s.ProgressDeadlineSeconds; p != nil {
		errs = append(errs, atLeast0(p, at.Child("progressDeadlineSeconds"))...)
		if *p <= s.MinReadySeconds {
			errs = append(errs, field.Invalid(at.Child("progressDeadlineSeconds"), *p, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

// replaced checks a template whose selector could be read.
func replaced(sel labels.Selector, t *corev1.PodTemplateSpec, of string, at *field.Path) field.ErrorList {
	if sel == nil {
		return nil
	}
	errs := selected(sel, t, at)
	errs = append(errs, PodTemplateSpec(t, at)...)
	return append(errs, running(t, of, at)...)
}

func strategy(s *appsv1.DeploymentStrategy, at *field.Path) field.ErrorList {
	switch r := s.RollingUpdate; s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if r != nil {
			return field.ErrorList{field.Forbidden(at.Child("rollingUpdate"), "may not be specified when strategy `type` is '"+string(s.Type)+"'")}
		}
	case appsv1.RollingUpdateDeploymentStrategyType:
		if r == nil {
			return field.ErrorList{field.Required(at.Child("rollingUpdate"), "this should be defaulted and never be nil")}
		}
		p := at.Child("rollingUpdate")
		errs := append(countOrPercent(r.MaxUnavailable, p.Child("maxUnavailable")), countOrPercent(r.MaxSurge, p.Child("maxSurge"))...)
		if amount(r.MaxUnavailable) == 0 && amount(r.MaxSurge) == 0 {
			errs = append(errs, field.Invalid(p.Child("maxUnavailable"), hub{r.MaxUnavailable}, "may not be 0 when `maxSurge` is 0"))
		}
		return append(errs, atMost100(r.MaxUnavailable, p.Child("maxUnavailable"))...)
	default:
		return field.ErrorList{field.NotSupported(at, hub{s}, []string{"Recreate", "RollingUpdate"})}
	}
	return nil
}

// amount is a count, or the number before a percent sign; what is no number counts as 0.
func amount(v *intstr.IntOrString) int {
	if v == nil {
		return 0
	}
	if v.Type == intstr.Int {
		return v.IntValue()
	}
	n, err := strconv.Atoi(strings.TrimSuffix(v.StrVal, "%"))
	if err != nil {
		return 0
	}
	return n
}

func countOrPercent(v *intstr.IntOrString, at *field.Path) field.ErrorList {
	if v == nil {
		return nil
	}
	if v.Type == intstr.String {
		return invalid(at, *v, utilvalidation.IsValidPercent(v.StrVal))
	}
	return validation.ValidateNonnegativeField(int64(v.IntValue()), at)
}

func atMost100(v *intstr.IntOrString, at *field.Path) field.ErrorList {
	if v != nil && v.Type == intstr.String && len(utilvalidation.IsValidPercent(v.StrVal)) == 0 && amount(v) > 100 {
		return field.ErrorList{field.Invalid(at, *v, "must not be greater than 100%")}
	}
	return nil
}

// ReplicaSet answers what is wrong with a replica set.
func ReplicaSet(r *appsv1.ReplicaSet) field.ErrorList {
	errs := validation.ValidateObjectMeta(&r.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, replicaSetSpec(&r.Spec, field.NewPath("spec"))...)
}

// ReplicaSetUpdate answers what is wrong with a replica set in the place of old.
func ReplicaSetUpdate(r, old *appsv1.ReplicaSet) field.ErrorList {
	errs := common(&r.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, metadata)...)
	errs = append(errs, replicaSetSpec(&r.Spec, field.NewPath("spec"))...)
	return append(errs, validation.ValidateImmutableField(r.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
}

func replicaSetSpec(s *appsv1.ReplicaSetSpec, at *field.Path) field.ErrorList {
	errs := atLeast0(s.Replicas, at.Child("replicas"))
	errs = append(errs, atLeast0(&s.MinReadySeconds, at.Child("minReadySeconds"))...)
	sel, wrong := selector(s.Selector, "deployment", "invalid label selector", at.Child("selector"))
	errs = append(errs, wrong...)
	return append(errs, replaced(sel, &s.Template, "ReplicaSet", at.Child("template"))...)
}

// ReplicationController answers what is wrong with a replication controller.
func ReplicationController(r *corev1.ReplicationController) field.ErrorList {
	errs := validation.ValidateObjectMeta(&r.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, controllerSpec(&r.Spec, field.NewPath("spec"))...)
}

// ReplicationControllerUpdate answers what is wrong with a replication controller in the place of old.
func ReplicationControllerUpdate(r, old *corev1.ReplicationController) field.ErrorList {
	errs := common(&r.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, controllerSpec(&r.Spec, field.NewPath("spec"))...)
}

func controllerSpec(s *corev1.ReplicationControllerSpec, at *field.Path) field.ErrorList {
	errs := atLeast0(&s.MinReadySeconds, at.Child("minReadySeconds"))
	if len(s.Selector) == 0 {
		errs = append(errs, field.Required(at.Child("selector"), ""))
	}
	if s.Replicas == nil {
		errs = append(errs, field.Required(at.Child("replicas"), ""))
	} else {
		errs = append(errs, atLeast0(s.Replicas, at.Child("replicas"))...)
	}
	if s.Template == nil {
		return append(errs, field.Required(at.Child("template"), ""))
	}
	return append(errs, replaced(labels.Set(s.Selector).AsSelectorPreValidated(), s.Template, "ReplicationController", at.Child("template"))...)
}

// DaemonSet answers what is wrong with a daemon set.
func DaemonSet(d *appsv1.DaemonSet) field.ErrorList {
	errs := validation.ValidateObjectMeta(&d.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, daemonSetSpec(&d.Spec, field.NewPath("spec"))...)
}

// DaemonSetUpdate answers what is wrong with a daemon set in the place of old.
func DaemonSetUpdate(d, old *appsv1.DaemonSet) field.ErrorList {
	errs := common(&d.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&d.ObjectMeta, &old.ObjectMeta, metadata)...)
	errs = append(errs, validation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
	return append(errs, daemonSetSpec(&d.Spec, field.NewPath("spec"))...)
}

func daemonSetSpec(s *appsv1.DaemonSetSpec, at *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabelSelector(s.Selector, metavalidation.LabelSelectorValidationOptions{}, at.Child("selector"))
	sel, err := metav1.LabelSelectorAsSelector(s.Selector)
	if err == nil && !sel.Matches(labels.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(at.Child("template", "metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	if s.Selector != nil && len(s.Selector.MatchLabels)+len(s.Selector.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(at.Child("selector"), s.Selector, "empty selector is invalid for daemonset"))
	}
	errs = append(errs, PodTemplateSpec(&s.Template, at.Child("template"))...)
	errs = append(errs, running(&s.Template, "DaemonSet", at.Child("template"))...)
	errs = append(errs, atLeast0(&s.MinReadySeconds, at.Child("minReadySeconds"))...)
	p := at.Child("updateStrategy")
	switch r := s.UpdateStrategy.RollingUpdate; s.UpdateStrategy.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
	case appsv1.RollingUpdateDaemonSetStrategyType:
		q := p.Child("rollingUpdate")
		if r == nil {
			errs = append(errs, field.Required(q, ""))
			break
		}
		errs = append(errs, countOrPercent(r.MaxUnavailable, q.Child("maxUnavailable"))...)
		errs = append(errs, countOrPercent(r.MaxSurge, q.Child("maxSurge"))...)
		un, surge := amount(r.MaxUnavailable) != 0, amount(r.MaxSurge) != 0
		if un && surge {
			errs = append(errs, field.Invalid(q.Child("maxSurge"), r.MaxSurge, "may not be set when maxUnavailable is non-zero"))
		} else if !un && !surge {
			errs = append(errs, field.Required(q.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
		}
		errs = append(errs, atMost100(r.MaxUnavailable, q.Child("maxUnavailable"))...)
		errs = append(errs, atMost100(r.MaxSurge, q.Child("maxSurge"))...)
	default:
		errs = append(errs, field.NotSupported(p, hub{&s.UpdateStrategy}, []string{"RollingUpdate", "OnDelete"}))
	}
	return append(errs, atLeast0(s.RevisionHistoryLimit, at.Child("revisionHistoryLimit"))...)
}

// StatefulSet answers what is wrong with a stateful set.
func StatefulSet(s *appsv1.StatefulSet) field.ErrorList {
	label := func(name string, prefix bool) []string { return validation.NameIsDNSLabel(name, prefix) }
	errs := validation.ValidateObjectMeta(&s.ObjectMeta, true, label, field.NewPath("metadata"))
	errs = append(errs, claims(s.Spec.VolumeClaimTemplates, field.NewPath("spec", "volumeClaimTemplates"))...)
	return append(errs, statefulSetSpec(&s.Spec, field.NewPath("spec"))...)
}

const statefulMayChange = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', " +
	"'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"

// StatefulSetUpdate answers what is wrong with a stateful set in the place of old.
func StatefulSetUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	errs := common(&s.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, metadata)...)
	errs = append(errs, statefulSetSpec(&s.Spec, field.NewPath("spec"))...)
	same, was := s.Spec.DeepCopy(), old.Spec.DeepCopy()
	// What is stored does not hold the kind of a claim inside of another object; defaulting puts it there.
	for _, list := range [][]corev1.PersistentVolumeClaim{same.VolumeClaimTemplates, was.VolumeClaimTemplates} {
		for i := range list {
			list[i].TypeMeta = metav1.TypeMeta{}
		}
	}
	same.Replicas, same.Ordinals, same.Template, same.UpdateStrategy = was.Replicas, was.Ordinals, was.Template, was.UpdateStrategy
	same.RevisionHistoryLimit, same.PersistentVolumeClaimRetentionPolicy, same.MinReadySeconds = was.RevisionHistoryLimit, was.PersistentVolumeClaimRetentionPolicy, was.MinReadySeconds
	if !equality.Semantic.DeepEqual(same, was) {
		errs = append(errs, field.Forbidden(field.NewPath("spec"), statefulMayChange))
	}
	return errs
}

// claiming is the template with a volume for each claim, as its pods get them.
func claiming(s *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	t := s.Template.DeepCopy()
	var vols []corev1.Volume
	for _, c := range s.VolumeClaimTemplates {
		if slices.ContainsFunc(vols, func(v corev1.Volume) bool { return v.Name == c.Name }) {
			continue // of two claims of a name the pods get one
		}
		vols = append(vols, corev1.Volume{Name: c.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Name},
		}})
	}
	for _, v := range t.Spec.Volumes {
		if !slices.ContainsFunc(vols, func(c corev1.Volume) bool { return c.Name == v.Name }) {
			vols = append(vols, v)
		}
	}
	t.Spec.Volumes = vols
	return t
}

// claims checks the templates of a new stateful set's claims.
func claims(list []corev1.PersistentVolumeClaim, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod}
	for i, c := range list {
		p := at.Index(i).Child("spec")
		if len(c.Spec.AccessModes) == 0 {
			errs = append(errs, field.Required(p.Child("accessModes"), "at least 1 access mode is required"))
		}
		for _, m := range c.Spec.AccessModes {
			if !slices.Contains(modes, m) {
				errs = append(errs, field.NotSupported(p.Child("accessModes"), m, modes))
			}
		}
		if q, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]; !ok {
			errs = append(errs, field.Required(p.Child("resources").Key("storage"), ""))
		} else if q.Sign() <= 0 {
			errs = append(errs, field.Invalid(p.Child("resources").Key("storage"), q.String(), "must be greater than zero"))
		}
	}
	return errs
}

func statefulSetSpec(s *appsv1.StatefulSetSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch p := at.Child("podManagementPolicy"); s.PodManagementPolicy {
	case "":
		errs = append(errs, field.Required(p, ""))
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		errs = append(errs, field.Invalid(p, s.PodManagementPolicy, "must be 'OrderedReady' or 'Parallel'"))
	}
	switch p, r := at.Child("updateStrategy"), s.UpdateStrategy.RollingUpdate; s.UpdateStrategy.Type {
	case "":
		errs = append(errs, field.Required(p, ""))
	case appsv1.OnDeleteStatefulSetStrategyType:
		if r != nil {
			errs = append(errs, field.Invalid(p.Child("rollingUpdate"), hub{r}, fmt.Sprintf("only allowed for updateStrategy '%s'", appsv1.RollingUpdateStatefulSetStrategyType)))
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if r != nil {
			errs = append(errs, atLeast0(r.Partition, p.Child("rollingUpdate", "partition"))...)
			if r.MaxUnavailable != nil {
				q := p.Child("rollingUpdate", "maxUnavailable")
				errs = append(errs, countOrPercent(r.MaxUnavailable, q)...)
				if amount(r.MaxUnavailable) == 0 {
					errs = append(errs, field.Invalid(q, *r.MaxUnavailable, "cannot be 0"))
				}
				errs = append(errs, atMost100(r.MaxUnavailable, q)...)
			}
		}
	default:
		errs = append(errs, field.Invalid(p, hub{&s.UpdateStrategy}, "must be 'RollingUpdate' or 'OnDelete'"))
	}
	if r := s.PersistentVolumeClaimRetentionPolicy; r != nil {
		both := []appsv1.PersistentVolumeClaimRetentionPolicyType{appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
		p := at.Child("persistentVolumeClaimRetentionPolicy")
		if !slices.Contains(both, r.WhenDeleted) {
			errs = append(errs, field.NotSupported(p.Child("whenDeleted"), r.WhenDeleted, both))
		}
		if !slices.Contains(both, r.WhenScaled) {
			errs = append(errs, field.NotSupported(p.Child("whenScaled"), r.WhenScaled, both))
		}
	}
	errs = append(errs, atLeast0(s.Replicas, at.Child("replicas"))...)
	errs = append(errs, atLeast0(&s.MinReadySeconds, at.Child("minReadySeconds"))...)
	if s.Ordinals != nil {
		errs = append(errs, atLeast0(&s.Ordinals.Start, at.Child("ordinals", "start"))...)
	}
	sel, wrong := selector(s.Selector, "statefulset", "", at.Child("selector"))
	errs = append(errs, wrong...)
	errs = append(errs, replaced(sel, claiming(s), "StatefulSet", at.Child("template"))...)
	// Upstream looks at these by themselves and with all of the template.
	errs = append(errs, metavalidation.ValidateLabels(s.Template.Labels, at.Child("template", "labels"))...)
	errs = append(errs, validation.ValidateAnnotations(s.Template.Annotations, at.Child("template", "annotations"))...)
	if s.ServiceName != "" {
		errs = append(errs, invalid(at.Child("serviceName"), s.ServiceName, utilvalidation.IsDNS1123Label(s.ServiceName))...)
	}
	return errs
}
