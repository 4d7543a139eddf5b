package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// ResourceQuota is the row of resourcequotas.
func ResourceQuota() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "ResourceQuota", Resource: "resourcequotas",
		ShortNames:    []string{"quota"},
		Namespaced:    true,
		ReturnDeleted: true,
		Check:         kind.Valid(validate.ResourceQuota, validate.ResourceQuotaUpdate),
		Subs:          []kind.Sub{kind.Status},
		Columns:       kind.Columns("Name Request Limit Age"),
		Row:           kind.Of(quotaRow),
	}, kind.In[corev1.ResourceQuota, corev1.ResourceQuotaList](corev1.SchemeGroupVersion, nil))
}

// quotaRow shows what is used of each limit, those on limits apart.
func quotaRow(q *corev1.ResourceQuota) []any {
	var requests, limits []string
	for _, r := range slices.Sorted(maps.Keys(q.Status.Hard)) {
		used, hard := q.Status.Used[r], q.Status.Hard[r]
		text := fmt.Sprintf("%s: %s/%s", r, used.String(), hard.String())
		if strings.HasPrefix(string(r), "limits.") {
			limits = append(limits, text)
		} else {
			requests = append(requests, text)
		}
	}
	return []any{q.Name, strings.Join(requests, ", "), strings.Join(limits, ", "), kind.Age(q.CreationTimestamp)}
}
