package server

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// origins are the web sites whose scripts may ask this server in a browser.
type origins []*regexp.Regexp

// newOrigins reads --cors-allowed-origins. Each has to say where a host's name begins and ends, or a site whose name only
// contains another's would be let in.
func newOrigins(patterns []string) (origins, error) {
	var out origins
	for _, p := range patterns {
		re, err := regexp.Compile(p)
		if err != nil {
			return nil, fmt.Errorf("--cors-allowed-origins: %w", err)
		}
		if !strings.Contains(p, "^") && !strings.Contains(p, "//") || !strings.Contains(p, "$") && !strings.Contains(p, ":") {
			return nil, fmt.Errorf("--cors-allowed-origins %q does not say where the host begins and ends: write it as //host(:|$)", p)
		}
		out = append(out, re)
	}
	return out, nil
}

// allow tells a browser that the site it shows may ask, if it may; over tells that the browser asked no more than that.
func (o origins) allow(w http.ResponseWriter, r *http.Request) (over bool) {
	site := r.Header.Get("Origin")
	if site == "" {
		return false
	}
	for _, re := range o {
		if !re.MatchString(site) {
			continue
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", site)
		h.Set("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE, PATCH")
		h.Set("Access-Control-Allow-Headers", "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since")
		h.Set("Access-Control-Expose-Headers", "Date")
		h.Set("Access-Control-Allow-Credentials", "true")
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return true
		}
		return false
	}
	return false
}
