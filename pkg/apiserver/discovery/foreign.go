package discovery

import (
	"cmp"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilversion "k8s.io/apimachinery/pkg/version"
)

// Foreign is a group and version that another server serves behind this one.
type Foreign struct {
	GV        schema.GroupVersion
	Resources *metav1.APIResourceList // as it tells them
	Fresh     bool                    // it told them just now
	// Priorities rank the group among groups and the version within its group; more comes first.
	GroupPriority, VersionPriority int32
}

// Join tells of what other servers serve too, and no longer of what was told of them before.
func (h *Handler) Join(foreign []Foreign) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foreign = foreign
	h.rebuildLocked()
}

// aggregate is the version's entry in the list of everything.
func (f *Foreign) aggregate() apidiscoveryv2.APIVersionDiscovery {
	out := apidiscoveryv2.APIVersionDiscovery{Version: f.GV.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessStale}
	if f.Fresh {
		out.Freshness = apidiscoveryv2.DiscoveryFreshnessCurrent
	}
	at := map[string]int{}
	for _, r := range f.Resources.APIResources {
		kind := &metav1.GroupVersionKind{Group: f.GV.Group, Version: f.GV.Version, Kind: r.Kind}
		if r.Group != "" {
			kind.Group = r.Group
		}
		if r.Version != "" {
			kind.Version = r.Version
		}
		name, sub, isSub := strings.Cut(r.Name, "/")
		if i, known := at[name]; isSub && known {
			out.Resources[i].Subresources = append(out.Resources[i].Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: sub, ResponseKind: kind, Verbs: r.Verbs})
			continue
		}
		if isSub {
			continue // of a resource that is not there
		}
		at[name] = len(out.Resources)
		scope := apidiscoveryv2.ScopeCluster
		if r.Namespaced {
			scope = apidiscoveryv2.ScopeNamespace
		}
		out.Resources = append(out.Resources, apidiscoveryv2.APIResourceDiscovery{
			Resource: name, ResponseKind: kind, Scope: scope, SingularResource: r.SingularName, Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
		})
	}
	return out
}

// sortForeign puts better versions first: those of more priority, or of the same the newer.
func sortForeign(list []Foreign) {
	slices.SortStableFunc(list, func(a, b Foreign) int {
		return cmp.Or(cmp.Compare(b.VersionPriority, a.VersionPriority), utilversion.CompareKubeAwareVersionStrings(b.GV.Version, a.GV.Version))
	})
}
