package server

import (
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// runtimeConfig says which API versions are served beyond, or short of, what the release serves by default.
type runtimeConfig map[string]bool

// Levels of maturity, by which many versions are switched at once.
var levels = map[string]*regexp.Regexp{
	"api/all": regexp.MustCompile(`.`), "api/ga": regexp.MustCompile(`^v\d+$`),
	"api/beta": regexp.MustCompile(`^v\d+beta\d+$`), "api/alpha": regexp.MustCompile(`^v\d+alpha\d+$`),
}

func parseRuntimeConfig(flag map[string]string) (runtimeConfig, error) {
	out := runtimeConfig{}
	for key, value := range flag {
		yes := true
		if value != "" {
			var err error
			if yes, err = strconv.ParseBool(value); err != nil {
				return nil, fmt.Errorf("--runtime-config %s=%s: give true or false", key, value)
			}
		}
		if key == "api/v1" {
			key = "v1"
		}
		if _, err := schema.ParseGroupVersion(key); err != nil && levels[key] == nil && strings.Count(key, "/") != 2 {
			return nil, fmt.Errorf("--runtime-config %s: give a version as <group>/<version>, or api/all, api/ga, api/beta, api/alpha", key)
		}
		out[key] = yes
	}
	if on, ok := out["v1"]; ok && !on {
		return nil, fmt.Errorf("--runtime-config v1=false: the server cannot work without the core API")
	}
	return out, nil
}

// serves tells whether a resource is served in a version: what names it most closely decides.
func (r runtimeConfig) serves(gv schema.GroupVersion, resource string) bool {
	for _, key := range []string{gv.String() + "/" + resource, gv.String()} {
		if on, ok := r[key]; ok {
			return on
		}
	}
	if gv.String() == "v1" {
		return true
	}
	for _, level := range []string{"api/alpha", "api/beta", "api/ga", "api/all"} {
		if on, ok := r[level]; ok && levels[level].MatchString(gv.Version) {
			return on
		}
	}
	return true
}

// apply takes the versions that are switched off out of the rows. A row without any stays: what it stores may be needed
// by the server itself.
func (r runtimeConfig) apply(defs []*kind.Def) {
	known := map[string]bool{"v1": true}
	for _, d := range defs {
		for _, v := range d.Versions {
			known[v.GV.String()], known[v.GV.String()+"/"+d.Resource] = true, true
		}
		d.Versions = slices.DeleteFunc(d.Versions, func(v kind.Version) bool { return !r.serves(v.GV, d.Resource) })
	}
	for key, on := range r {
		if on && !known[key] && levels[key] == nil {
			slog.Warn("--runtime-config names a version that this release does not serve", "version", key)
		}
	}
}
