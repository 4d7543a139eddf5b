// Package plugins holds the admission plugins, one file each, and their list.
//
// A plugin is a literal with one or two functions, called from many requests at once; it asks the server through its
// request's Env and remembers nothing.
package plugins

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authz"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/policy"
	"github.com/sextant-k8s/sextant/pkg/apiserver/webhook"
)

// all are the plugins in upstream's order: those that fill in come before those that count.
var all = []admission.Plugin{
	NamespaceLifecycle, LimitRanger, ServiceAccount, NodeRestriction, TaintNodesByCondition, Priority, DefaultTolerationSeconds,
	DefaultStorageClass, StorageObjectInUseProtection, PersistentVolumeClaimResize, RuntimeClass, DefaultIngressClass, PodTopologyLabels,
}

// Default answers the chain: every plugin but those disabled, and the optional ones that are enabled. Both lists may only
// name plugins that exist; one without a name is not for anybody to leave out.
func Default(enable, disable []string, permissions *authz.Chain, caller *webhook.Caller, row func(schema.GroupVersionKind) *kind.Def) (admission.Chain, error) {
	security, err := PodSecurity()
	if err != nil {
		return nil, err
	}
	policies := policy.Config{Authz: permissions, Row: row}
	every := slices.Concat(all, []admission.Plugin{
		security, CertificateApproval(permissions), CertificateSigning(permissions), CertificateSubjectRestriction, Escalation(permissions),
		policy.Mutating(policies), webhook.Mutating(caller, permissions), policy.Validating(policies), webhook.Validating(caller, permissions),
		ResourceQuota(),
	})
	asked := slices.Concat(optional, []admission.Plugin{OwnerReferencesPermissionEnforcement(permissions, row)})
	var c admission.Chain
	known := map[string]bool{}
	for _, n := range idle {
		known[n] = true
	}
	take := func(p admission.Plugin, byDefault bool) {
		known[p.Name] = p.Name != ""
		if p.Name == "" || (byDefault || slices.Contains(enable, p.Name)) && !slices.Contains(disable, p.Name) {
			c = append(c, p)
		}
	}
	// What is asked for fills in before what only looks: upstream has most of it among the first as well.
	for _, p := range asked {
		take(p, false)
	}
	for _, p := range every {
		take(p, true)
	}
	take(AlwaysDeny, false)
	for flag, names := range map[string][]string{"enable": enable, "disable": disable} {
		for _, name := range names {
			if !known[name] {
				return nil, fmt.Errorf("--%s-admission-plugins: there is no plugin %q", flag, name)
			}
		}
	}
	return c, nil
}
