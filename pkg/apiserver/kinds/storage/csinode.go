package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// CSINode is the row of csinodes.
func CSINode() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "CSINode", Resource: "csinodes",
	}, kind.In[storagev1.CSINode, storagev1.CSINodeList](storagev1.SchemeGroupVersion, nil))
}
