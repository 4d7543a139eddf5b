package storage

import (
	"strings"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// CSIDriver is the row of csidrivers.
func CSIDriver() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "CSIDriver", Resource: "csidrivers",
		NeedVersionOnUpdate: true,
		Check:               kind.Valid(validate.CSIDriver, validate.CSIDriverUpdate),
		Columns:             kind.Columns("Name AttachRequired:boolean PodInfoOnMount:boolean StorageCapacity:boolean TokenRequests RequiresRepublish:boolean Modes Age"),
		Row:                 kind.Of(driverRow),
	}, kind.In[storagev1.CSIDriver, storagev1.CSIDriverList](storagev1.SchemeGroupVersion, defaults.CSIDriver))
}

func driverRow(d *storagev1.CSIDriver) []any {
	tokens := "<unset>"
	if d.Spec.TokenRequests != nil {
		var list []string
		for _, r := range d.Spec.TokenRequests {
			list = append(list, r.Audience)
		}
		tokens = strings.Join(list, ",")
	}
	var modes []string
	for _, m := range d.Spec.VolumeLifecycleModes {
		modes = append(modes, string(m))
	}
	is := func(b *bool, unset bool) bool {
		if b == nil {
			return unset
		}
		return *b
	}
	return []any{
		d.Name, is(d.Spec.AttachRequired, true), is(d.Spec.PodInfoOnMount, false), is(d.Spec.StorageCapacity, false), tokens,
		is(d.Spec.RequiresRepublish, false), kind.None(strings.Join(modes, ",")), kind.Age(d.CreationTimestamp),
	}
}
