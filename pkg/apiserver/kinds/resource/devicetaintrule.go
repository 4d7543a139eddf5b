package resource

import (
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// DeviceTaintRule is the row of devicetaintrules.
func DeviceTaintRule() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "DeviceTaintRule", Resource: "devicetaintrules",
		Generation: true,
		Check:      kind.Ask(checkRule),
		Columns:    kind.Columns("Name Age"),
		Row:        kind.Of(func(r *resourcev1.DeviceTaintRule) []any { return []any{r.Name, kind.Age(r.CreationTimestamp)} }),
		Subs: []kind.Sub{{Name: "status", Aspect: &kind.Rules{Check: kind.Ask(func(op *kind.Op, r, old *resourcev1.DeviceTaintRule) field.ErrorList {
			errs, at := checkRule(op, r, old), field.NewPath("status", "conditions")
			if n := len(r.Status.Conditions); n > resourcev1.DeviceTaintRuleStatusMaxConditions {
				errs = append(errs, field.TooMany(at, n, resourcev1.DeviceTaintRuleStatusMaxConditions))
			}
			return append(errs, metavalidation.ValidateConditions(r.Status.Conditions, at)...)
		})}}},
	}, kind.In[resourcev1.DeviceTaintRule, resourcev1.DeviceTaintRuleList](resourcev1.SchemeGroupVersion, defaults.DeviceTaintRule))
}

var taintEffects = []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}

func checkRule(_ *kind.Op, r, old *resourcev1.DeviceTaintRule) field.ErrorList {
	var was kind.Object
	if old != nil {
		was = old
	}
	errs, at := meta(r, was, false), field.NewPath("spec")
	if s, p := r.Spec.DeviceSelector, at.Child("deviceSelector"); s != nil {
		if s.Driver != nil {
			errs = append(errs, checkDriver(*s.Driver, p.Child("driver"))...)
		}
		if s.Pool != nil {
			errs = append(errs, checkPoolName(*s.Pool, p.Child("pool"))...)
		}
		if s.Device != nil {
			errs = append(errs, each(p.Child("device"), *s.Device, utilvalidation.IsDNS1123Label(*s.Device))...)
		}
	}
	return append(errs, checkTaint(&r.Spec.Taint, at.Child("taint"))...)
}

// checkTaint holds a taint to the forms that labels have, and to the effects there are.
func checkTaint(t *resourcev1.DeviceTaint, at *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabelName(t.Key, at.Child("key"))
	if t.Value != "" {
		errs = append(errs, each(at.Child("value"), t.Value, utilvalidation.IsValidLabelValue(t.Value))...)
	}
	switch {
	case t.Effect == "":
		errs = append(errs, field.Required(at.Child("effect"), ""))
	case !slices.Contains(taintEffects, t.Effect):
		errs = append(errs, field.NotSupported(at.Child("effect"), t.Effect, taintEffects))
	}
	return errs
}
