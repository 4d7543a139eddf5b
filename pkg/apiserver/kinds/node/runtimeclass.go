package node

import (
	nodev1 "k8s.io/api/node/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// RuntimeClass is the row of runtimeclasses.
func RuntimeClass() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "RuntimeClass", Resource: "runtimeclasses",
	}, kind.In[nodev1.RuntimeClass, nodev1.RuntimeClassList](nodev1.SchemeGroupVersion, nil))
}
