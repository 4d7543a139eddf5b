package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// CSIDriver is the row of csidrivers.
func CSIDriver() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "CSIDriver", Resource: "csidrivers",
	}, kind.In[storagev1.CSIDriver, storagev1.CSIDriverList](storagev1.SchemeGroupVersion, defaults.CSIDriver))
}
