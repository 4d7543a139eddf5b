package storagemigration

import (
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// StorageVersionMigration is the row of storageversionmigrations.
func StorageVersionMigration() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "StorageVersionMigration", Resource: "storageversionmigrations",
		Check: kind.Ask(check),
		Subs:  []kind.Sub{{Name: "status", Aspect: &kind.Rules{Check: kind.Ask(checkStatus)}}},
	}, kind.In[storagemigrationv1.StorageVersionMigration, storagemigrationv1.StorageVersionMigrationList](storagemigrationv1.SchemeGroupVersion, nil))
}

func check(_ *kind.Op, m, old *storagemigrationv1.StorageVersionMigration) field.ErrorList {
	errs := validation.ValidateObjectMeta(&m.ObjectMeta, false, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	at := field.NewPath("spec")
	if old != nil {
		errs = append(errs, validation.ValidateObjectMetaUpdate(&m.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
		return append(errs, validation.ValidateImmutableField(m.Spec, old.Spec, at)...)
	}
	if m.Spec.Resource.Resource == "" {
		errs = append(errs, field.Required(at.Child("resource", "resource"), "resource is required"))
	}
	return errs
}

// checkStatus: a migration ends once, well or not, and is measured from one version on.
func checkStatus(op *kind.Op, m, old *storagemigrationv1.StorageVersionMigration) field.ErrorList {
	errs, status := check(op, m, old), field.NewPath("status")
	errs = append(errs, metavalidation.ValidateConditions(m.Status.Conditions, status.Child("conditions"))...)
	if old.Status.ResourceVersion != "" && m.Status.ResourceVersion != old.Status.ResourceVersion {
		errs = append(errs, field.Invalid(status.Child("resourceVersion"), m.Status.ResourceVersion, "resourceVersion cannot be updated"))
	}
	done, failed := holds(m, storagemigrationv1.MigrationSucceeded), holds(m, storagemigrationv1.MigrationFailed)
	if done && failed {
		errs = append(errs, field.Invalid(status.Child("conditions"), "", "Both success and failed conditions cannot be true at the same time"))
	}
	if (done || failed) && holds(m, storagemigrationv1.MigrationRunning) {
		errs = append(errs, field.Invalid(status.Child("conditions"), "", "Running condition cannot be true when success or failed conditions are true"))
	}
	if holds(old, storagemigrationv1.MigrationSucceeded) && !done || holds(old, storagemigrationv1.MigrationFailed) && !failed {
		errs = append(errs, field.Invalid(status.Child("conditions"), "", "a migration that ended stays so"))
	}
	return errs
}

func holds(m *storagemigrationv1.StorageVersionMigration, condition storagemigrationv1.MigrationConditionType) bool {
	for _, c := range m.Status.Conditions {
		if c.Type == string(condition) && c.Status == "True" {
			return true
		}
	}
	return false
}
