package plugins

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// limited are the resources that nobody may use where no quota covers them.
type limited []limitedResource

type limitedResource struct {
	APIGroup      string                                     `json:"apiGroup"`
	Resource      string                                     `json:"resource"`
	MatchContains []string                                   `json:"matchContains"`
	MatchScopes   []corev1.ScopedResourceSelectorRequirement `json:"matchScopes"`
}

func readLimited(c Configuration) (limited, error) {
	var conf struct {
		typed
		LimitedResources limited `json:"limitedResources"`
	}
	const name = "ResourceQuota"
	ok, err := c.read(name, &conf, nil, "")
	if err != nil || !ok {
		return nil, err
	}
	kinds := map[string]string{
		"apiserver.config.k8s.io/v1": "ResourceQuotaConfiguration", "resourcequota.admission.k8s.io/v1beta1": "Configuration", "resourcequota.admission.k8s.io/v1alpha1": "Configuration",
	}
	if kinds[conf.APIVersion] != conf.Kind || conf.Kind == "" {
		return nil, fmt.Errorf("the configuration of %s is a %s of %q: give a ResourceQuotaConfiguration of apiserver.config.k8s.io/v1", name, conf.Kind, conf.APIVersion)
	}
	for i, l := range conf.LimitedResources {
		if l.Resource == "" {
			return nil, fmt.Errorf("the configuration of %s: limitedResources[%d].resource: Required value", name, i)
		}
	}
	return conf.LimitedResources, nil
}

// need is what a request uses that some quota must cover.
type need struct {
	names  []corev1.ResourceName
	scopes []corev1.ScopedResourceSelectorRequirement
}

// need answers what of a request is limited, nil if nothing is.
func (l limited) need(m *meter, r *admission.Request) (*need, error) {
	n := &need{}
	for _, one := range l {
		if one.APIGroup != r.Resource.Group || one.Resource != r.Resource.Resource {
			continue
		}
		for _, name := range sortedNames(m.usage(r.Object)) {
			if slices.ContainsFunc(one.MatchContains, func(s string) bool { return strings.Contains(string(name), s) }) && !slices.Contains(n.names, name) {
				n.names = append(n.names, name)
			}
		}
		for _, s := range one.MatchScopes {
			in, err := inScope(r.Object, s)
			if err != nil {
				return nil, err
			}
			if in {
				n.scopes = append(n.scopes, s)
			}
		}
	}
	if len(n.names)+len(n.scopes) == 0 {
		return nil, nil
	}
	return n, nil
}

// covered takes off what a quota that applies to the object covers.
func (n *need) covered(m *meter, q *corev1.ResourceQuota) {
	if n == nil {
		return
	}
	n.names = slices.DeleteFunc(n.names, func(name corev1.ResourceName) bool {
		_, hard := q.Status.Hard[name]
		return hard && m.covers(name)
	})
	by := scopesOf(q)
	n.scopes = slices.DeleteFunc(n.scopes, func(s corev1.ScopedResourceSelectorRequirement) bool {
		return slices.ContainsFunc(by, func(o corev1.ScopedResourceSelectorRequirement) bool {
			return o.ScopeName == s.ScopeName // the quota applies, so its selector fits the object
		})
	})
}

// uncovered is the refusal of what no quota covers.
func (n *need) uncovered() error {
	switch {
	case n == nil:
		return nil
	case len(n.names) > 0:
		text := make([]string, len(n.names))
		for i, name := range n.names {
			text[i] = string(name)
		}
		return fmt.Errorf("insufficient quota to consume: %v", strings.Join(text, ","))
	case len(n.scopes) > 0:
		return fmt.Errorf("insufficient quota to match these scopes: %v", n.scopes)
	}
	return nil
}
