package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// CSINode is the row of csinodes.
func CSINode() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "CSINode", Resource: "csinodes",
		NeedVersionOnUpdate: true,
		Check:               kind.Valid(validate.CSINode, validate.CSINodeUpdate),
		Columns:             kind.Columns("Name Drivers:integer Age"),
		Row:                 kind.Of(nodeRow),
	}, kind.In[storagev1.CSINode, storagev1.CSINodeList](storagev1.SchemeGroupVersion, nil))
}

func nodeRow(n *storagev1.CSINode) []any {
	return []any{n.Name, int64(len(n.Spec.Drivers)), kind.Age(n.CreationTimestamp)}
}
