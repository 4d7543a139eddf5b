package coordination

import (
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// Lease is the row of leases.
func Lease() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "Lease", Resource: "leases",
		Namespaced:     true,
		CreateOnUpdate: true, NeedVersionOnUpdate: true,
		Check:   kind.Valid(validate.Lease, validate.LeaseUpdate),
		Columns: kind.Columns("Name Holder Age"),
		Row:     kind.Of(row),
	}, kind.In[coordinationv1.Lease, coordinationv1.LeaseList](coordinationv1.SchemeGroupVersion, nil))
}

func row(l *coordinationv1.Lease) []any {
	holder := ""
	if l.Spec.HolderIdentity != nil {
		holder = *l.Spec.HolderIdentity
	}
	return []any{l.Name, holder, kind.Age(l.CreationTimestamp)}
}
