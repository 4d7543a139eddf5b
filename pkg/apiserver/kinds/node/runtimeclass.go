package node

import (
	nodev1 "k8s.io/api/node/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// RuntimeClass is the row of runtimeclasses.
func RuntimeClass() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "RuntimeClass", Resource: "runtimeclasses",
		NeedVersionOnUpdate: true,
		Check:               kind.Valid(validate.RuntimeClass, validate.RuntimeClassUpdate),
		Columns:             kind.Columns("Name Handler Age"),
		Row:                 kind.Of(row),
	}, kind.In[nodev1.RuntimeClass, nodev1.RuntimeClassList](nodev1.SchemeGroupVersion, nil))
}

func row(c *nodev1.RuntimeClass) []any {
	return []any{c.Name, c.Handler, kind.Age(c.CreationTimestamp)}
}
