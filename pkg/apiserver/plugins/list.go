// Package plugins holds the admission plugins, one file each, and their list.
//
// A plugin is a literal with one or two functions, called from many requests at once; it asks the server through its
// request's Env and remembers nothing.
package plugins

import (
	"fmt"
	"slices"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authz"
)

// all are the plugins in upstream's order: those that fill in come before those that count.
var all = []admission.Plugin{
	NamespaceLifecycle, LimitRanger, ServiceAccount, NodeRestriction, TaintNodesByCondition, Priority, DefaultTolerationSeconds,
	DefaultStorageClass, StorageObjectInUseProtection, RuntimeClass, DefaultIngressClass,
}

// Default answers the chain: every plugin but those disabled. enable names plugins that must be there.
func Default(enable, disable []string, permissions *authz.Chain) (admission.Chain, error) {
	security, err := PodSecurity()
	if err != nil {
		return nil, err
	}
	var c admission.Chain
	known := map[string]bool{}
	for _, p := range append(slices.Clone(all), security, Escalation(permissions)) {
		known[p.Name] = true
		if !slices.Contains(disable, p.Name) {
			c = append(c, p)
		}
	}
	for _, name := range enable {
		if !known[name] {
			return nil, fmt.Errorf("--enable-admission-plugins: there is no plugin %q", name)
		}
	}
	return c, nil
}
