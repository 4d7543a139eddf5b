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

// Config says which plugins there are and what they need.
type Config struct {
	Enable, Disable []string // names; they may only name plugins that exist
	Configuration   Configuration
	Authz           *authz.Chain
	Caller          *webhook.Caller
	Row             func(schema.GroupVersionKind) *kind.Def
}

// New answers the chain: every plugin but those disabled, and the optional ones that are enabled. One without a name is
// not for anybody to leave out.
func New(c Config) (admission.Chain, error) {
	made := map[string]admission.Plugin{}
	for name, f := range map[string]func(Configuration) (admission.Plugin, error){
		"PodSecurity": PodSecurity, "ResourceQuota": ResourceQuota, "PodNodeSelector": PodNodeSelector, "PodTolerationRestriction": PodTolerationRestriction,
		"EventRateLimit": EventRateLimit, "ImagePolicyWebhook": ImagePolicyWebhook,
	} {
		if !slices.Contains(c.Enable, name) && name != "PodSecurity" && name != "ResourceQuota" || slices.Contains(c.Disable, name) {
			made[name] = admission.Plugin{Name: name} // what is off may lack its configuration
			continue
		}
		p, err := f(c.Configuration)
		if err != nil {
			return nil, err
		}
		made[name] = p
	}
	mutating, err := c.Configuration.caller("MutatingAdmissionWebhook", c.Caller)
	if err != nil {
		return nil, err
	}
	validating, err := c.Configuration.caller("ValidatingAdmissionWebhook", c.Caller)
	if err != nil {
		return nil, err
	}
	policies := policy.Config{Authz: c.Authz, Row: c.Row}
	every := slices.Concat(all, []admission.Plugin{
		made["PodSecurity"], CertificateApproval(c.Authz), CertificateSigning(c.Authz), CertificateSubjectRestriction, ClusterTrustBundleAttest(c.Authz), Escalation(c.Authz),
		policy.Mutating(policies), webhook.Mutating(mutating, c.Authz), NodeDeclaredFeatureValidator, policy.Validating(policies), webhook.Validating(validating, c.Authz),
		made["ResourceQuota"],
	})
	asked := slices.Concat(optional, []admission.Plugin{
		made["PodNodeSelector"], made["PodTolerationRestriction"], made["EventRateLimit"], made["ImagePolicyWebhook"],
		OwnerReferencesPermissionEnforcement(c.Authz, c.Row),
	})
	return c.choose(every, asked)
}

// choose takes those that are wanted.
func (c *Config) choose(every, asked []admission.Plugin) (admission.Chain, error) {
	var out admission.Chain
	known := map[string]bool{}
	take := func(p admission.Plugin, byDefault bool) {
		known[p.Name] = p.Name != ""
		if p.Name == "" || (byDefault || slices.Contains(c.Enable, p.Name)) && !slices.Contains(c.Disable, p.Name) {
			out = append(out, p)
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
	for flag, names := range map[string][]string{"enable": c.Enable, "disable": c.Disable} {
		for _, name := range names {
			if !known[name] {
				return nil, fmt.Errorf("--%s-admission-plugins: there is no plugin %q", flag, name)
			}
		}
	}
	return admission.Metered(out), c.Configuration.check(known)
}
