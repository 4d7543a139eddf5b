package resource

import (
	"strings"

	resourcev1 "k8s.io/api/resource/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// ResourceClaim is the row of resourceclaims.
func ResourceClaim() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ResourceClaim", Resource: "resourceclaims",
		Namespaced: true,
		Subs:       []kind.Sub{kind.Status},
		Check:      kind.Ask(checkClaim),
		Columns:    kind.Columns("Name State Age"),
		Row:        kind.Of(claimRow),
	}, kind.In[resourcev1.ResourceClaim, resourcev1.ResourceClaimList](resourcev1.SchemeGroupVersion, defaults.ResourceClaim))
}

func claimRow(c *resourcev1.ResourceClaim) []any {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	switch {
	case c.Status.Allocation != nil:
		states = append(states, "allocated")
		if len(c.Status.ReservedFor) > 0 {
			states = append(states, "reserved")
		}
	case c.DeletionTimestamp == nil:
		states = append(states, "pending")
	}
	return []any{c.Name, strings.Join(states, ","), kind.Age(c.CreationTimestamp)}
}
