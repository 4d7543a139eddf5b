package openapi

import "k8s.io/apimachinery/pkg/runtime/schema"

// plain adds the paths that are no resource's: discovery, version and the tokens' keys. key is the document's.
func (s *surveyor) plain(key string, gv schema.GroupVersion) {
	op := func(id, tag, answer string, consumes, produces []string) {
		s.add("/"+key+"/", &operation{method: "get", id: id, tag: tag, answer: answer, consumes: consumes, produces: produces, codes: []int{200, 401}})
	}
	jsonOnly := plainMedia[:1]
	switch {
	case key == "api":
		op("getCoreAPIVersions", "core", meta+"APIVersions", plainMedia, plainMedia)
	case key == "apis":
		op("getAPIVersions", "apis", meta+"APIGroupList", plainMedia, plainMedia)
	case key == "version":
		op("getCodeVersion", "version", "io.k8s.apimachinery.pkg.version.Info", jsonOnly, jsonOnly)
	case key == "openid/v1/jwks":
		op("getServiceAccountIssuerOpenIDKeyset", "openid", "", nil, []string{"application/jwk-set+json"})
	case key == ".well-known/openid-configuration":
		op("getServiceAccountIssuerOpenIDConfiguration", "WellKnown", "", nil, jsonOnly)
	case gv.Version == "":
		op("get"+camel(gv.Group)+"APIGroup", tag(gv), meta+"APIGroup", plainMedia, plainMedia)
	default:
		op("get"+camel(gv.Group)+title(gv.Version)+"APIResources", tag(gv), meta+"APIResourceList", plainMedia, plainMedia)
	}
}
