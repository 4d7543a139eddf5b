package server

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/engine"
	"github.com/sextant-k8s/sextant/pkg/apiserver/fairness"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

func groupResource(a authorizer.AttributesRecord) schema.GroupResource {
	return schema.GroupResource{Group: a.APIGroup, Resource: a.Resource}
}

// paths are what the root lists besides discovery.
var paths = []string{"/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version", "/.well-known/openid-configuration"}

// route hands an authorized request to what serves it.
func (s *Server) route(w http.ResponseWriter, r *http.Request, info *request.Info) {
	switch {
	case s.aggregate.Serve(w, r, info):
	case info.IsResource:
		s.engine.ServeHTTP(w, r)
	case s.discovery.Serves(info.Path):
		s.discovery.ServeHTTP(w, r)
	case s.openapi.Serves(info.Path):
		s.openapi.ServeHTTP(w, r)
	case info.Path == "/healthz" || strings.HasPrefix(info.Path, "/healthz/"):
		s.health.serve(w, r, "healthz")
	case info.Path == "/livez" || strings.HasPrefix(info.Path, "/livez/"):
		s.health.serve(w, r, "livez")
	case info.Path == "/readyz" || strings.HasPrefix(info.Path, "/readyz/"):
		s.health.serve(w, r, "readyz")
	case info.Path == "/metrics":
		s.metrics.ServeHTTP(w, r)
	case info.Path == "/version" || info.Path == "/version/":
		if r.Method != http.MethodGet {
			engine.WriteError(w, r, apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false))
			return
		}
		writeJSON(w, Version(s.c.Version))
	case info.Path == "/" || info.Path == "":
		writeJSON(w, map[string][]string{"paths": slices.Concat(s.discovery.Paths(), paths)})
	case info.Path == "/openid/v1/jwks" && s.tokens.Issues():
		keys, age := s.tokens.Keys()
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", age/time.Second))
		_ = json.NewEncoder(w).Encode(keys) // a client that went has nothing to be told
	case info.Path == "/.well-known/openid-configuration" && s.tokens.Issues():
		keys, age := s.tokens.Keys()
		w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", age/time.Second))
		writeJSON(w, map[string]any{
			"issuer": s.tokens.Issuer(), "jwks_uri": cmp.Or(s.c.ServiceAccountJWKSURI, "https://"+s.c.external()+"/openid/v1/jwks"), "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": algorithms(keys),
		})
	case s.c.Profiling && s.fairness != nil && strings.HasPrefix(info.Path, fairness.Debug):
		s.fairness.ServeHTTP(w, r)
	case s.c.Profiling && strings.HasPrefix(info.Path, "/debug/pprof"):
		profile(w, r)
	case strings.HasPrefix(info.Path, "/openapi/v3/"):
		w.WriteHeader(http.StatusNotFound)
	case strings.HasPrefix(info.Path, "/apis/") && strings.Count(strings.Trim(info.Path, "/"), "/") == 2:
		// A version that is not served is told of as a resource would be.
		engine.WriteError(w, r, apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, false))
	default:
		http.NotFound(w, r)
	}
}

func algorithms(keys jose.JSONWebKeySet) []string {
	var out []string
	for _, k := range keys.Keys {
		if !slices.Contains(out, k.Algorithm) {
			out = append(out, k.Algorithm)
		}
	}
	return out
}

func profile(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/debug/pprof/profile":
		pprof.Profile(w, r)
	case "/debug/pprof/symbol":
		pprof.Symbol(w, r)
	case "/debug/pprof/trace":
		pprof.Trace(w, r)
	case "/debug/pprof/cmdline":
		pprof.Cmdline(w, r)
	case "/debug/pprof":
		http.Redirect(w, r, "/debug/pprof/", http.StatusMovedPermanently)
	default:
		pprof.Index(w, r)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // a client that went has nothing to be told
}

// Release is the Kubernetes version whose API this server serves.
const Release = "v1.37.2"

// Version is the server's version as /version tells it: the Kubernetes release, then which build of ours.
func Version(build string) version.Info {
	return version.Info{
		Major: "1", Minor: "37", GitVersion: Release + "+sextant-" + strings.TrimPrefix(build, "v"), GitTreeState: "clean",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
		EmulationMajor: "1", EmulationMinor: "37", MinCompatibilityMajor: "1", MinCompatibilityMinor: "36",
	}
}
