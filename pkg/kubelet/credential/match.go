package credential

import (
	"path"
	"sort"
	"strings"
)

// hub is how the registry is called which image names need not name.
const hub = "docker.io"

// entry is a credential for all images which fit a pattern.
type entry struct {
	pattern string
	cred    Credential
}

// fitting are the entries for an image; longer patterns come first, and names before globs.
func fitting(entries []entry, image string) []entry {
	target := parse(full(image))
	var out []entry
	for _, e := range entries {
		if parse(e.pattern).fits(target) {
			out = append(out, e)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].pattern > out[j].pattern })
	return out
}

// address is a registry's host in its parts, port and path; of a pattern the parts may hold globs.
type address struct {
	parts      []string
	port, path string
}

// parse takes apart host[:port][/path], with or without a scheme.
func parse(s string) address {
	for _, scheme := range []string{"https://", "http://"} {
		s = strings.TrimPrefix(s, scheme)
	}
	host, rest, _ := strings.Cut(s, "/")
	a := address{path: strings.TrimSuffix("/"+rest, "/")}
	// A docker configuration names APIs, not only registries.
	for _, api := range []string{"/v1", "/v2"} {
		if a.path == api || strings.HasPrefix(a.path, api+"/") {
			a.path = strings.TrimPrefix(a.path, api)
			break
		}
	}
	if i := strings.LastIndex(host, ":"); i > strings.LastIndex(host, "]") {
		host, a.port = host[:i], host[i+1:]
	}
	if host == "index."+hub {
		host = hub
	}
	a.parts = strings.Split(host, ".")
	return a
}

// fits tells whether a target is among those a pattern means: every part of the host by its glob, the same port, and a
// path which begins with the pattern's.
func (a address) fits(target address) bool {
	if len(a.parts) != len(target.parts) || a.port != target.port || !strings.HasPrefix(target.path, a.path) {
		return false
	}
	for i, glob := range a.parts {
		if ok, err := path.Match(glob, target.parts[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// full is an image's repository with its registry, which short names leave out.
func full(image string) string {
	name := repository(image)
	host, _, ok := strings.Cut(name, "/")
	switch {
	case !ok:
		return hub + "/library/" + name
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return hub + "/" + name
	}
	return name
}

// registry is an image's host and port.
func registry(image string) string {
	host, _, _ := strings.Cut(full(image), "/")
	return host
}

// repository is an image name without tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		image = image[:i]
	}
	return image
}
