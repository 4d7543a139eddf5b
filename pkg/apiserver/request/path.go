package request

import (
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Parse reads a request's method and path.
func Parse(r *http.Request) *Info {
	i := &Info{Path: r.URL.Path, Verb: strings.ToLower(r.Method)}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) >= 3:
		i.Prefix, i.GVR.Version, parts = "api", parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) >= 4 && parts[1] != "": // the core group has one way only, by which its rules know it
		i.Prefix, i.GVR.Group, i.GVR.Version, parts = "apis", parts[1], parts[2], parts[3:]
	default:
		return i
	}
	i.IsResource = true
	watch := false
	if parts[0] == "watch" && len(parts) > 1 {
		watch, parts = true, parts[1:]
	}
	i.GVR.Resource = parts[0]
	parts = i.place(parts)
	if len(parts) > 0 {
		i.Name = parts[0]
	}
	if len(parts) > 1 {
		i.Sub = parts[1]
	}
	if len(parts) > 2 || strings.HasSuffix(r.URL.Path, "/") && i.Sub != "" {
		i.Rest = rest(r.URL.Path, i)
	}
	i.setVerb(r, watch)
	return i
}

// place takes resource and namespace off parts: what is left is name, subresource and the rest.
func (i *Info) place(parts []string) []string {
	if parts[0] != "namespaces" || i.GVR.Group != "" {
		if parts[0] == "namespaces" && len(parts) > 2 {
			i.Namespace, i.GVR.Resource = parts[1], parts[2]
			return parts[3:]
		}
		return parts[1:]
	}
	if len(parts) < 2 {
		return nil
	}
	// A namespace is an object and a place: what belongs to the object itself is known by name.
	if len(parts) == 2 || parts[2] == "status" || parts[2] == "finalize" {
		i.Namespace = parts[1]
		return parts[1:]
	}
	i.Namespace, i.GVR.Resource = parts[1], parts[2]
	return parts[3:]
}

// rest is the path after the subresource, as it was sent.
func rest(path string, i *Info) string {
	marker := "/" + i.GVR.Resource + "/" + i.Name + "/" + i.Sub
	if _, after, ok := strings.Cut(path, marker); ok {
		return after
	}
	return ""
}

func (i *Info) setVerb(r *http.Request, watch bool) {
	var q url.Values
	if r.URL.RawQuery != "" {
		q = r.URL.Query()
	}
	switch r.Method {
	case http.MethodPost:
		i.Verb = "create"
	case http.MethodGet, http.MethodHead:
		i.Verb = "get"
		switch {
		case i.Prefix == "api" && i.GVR.Resource == "pods" && (i.Sub == "exec" || i.Sub == "attach" || i.Sub == "portforward"):
			i.Verb = "create" // a WebSocket opens with GET; what it does is no reading
		case i.Sub != "":
		case watch || i.Name == "" && Yes(q, "watch"):
			i.Verb = "watch"
		case i.Name == "":
			i.Verb = "list"
		}
	case http.MethodPut:
		i.Verb = "update"
	case http.MethodPatch:
		i.Verb = "patch"
	case http.MethodDelete:
		i.Verb = "delete"
		if i.Name == "" {
			i.Verb = "deletecollection"
		}
	}
	if i.Verb == "list" || i.Verb == "watch" || i.Verb == "deletecollection" {
		i.FieldSelector, i.LabelSelector = q.Get("fieldSelector"), q.Get("labelSelector")
	}
}

// Yes tells what a query says of something that is so or not: whatever is said, but 0 and false, is yes ("?watch", "?watch=True").
func Yes(q url.Values, name string) bool {
	said := q[name]
	return len(said) > 0 && said[0] != "0" && !strings.EqualFold(said[0], "false")
}

// LongRunning tells whether a request may last as long as its client wants.
func (i *Info) LongRunning() bool {
	if i.Verb == "watch" {
		return true
	}
	if !i.IsResource {
		return strings.HasPrefix(i.Path, "/debug/pprof/")
	}
	switch i.Sub {
	case "attach", "exec", "log", "portforward", "proxy":
		return true
	}
	return false
}

// Mutating tells whether a request changes anything.
func (i *Info) Mutating() bool {
	switch i.Verb {
	case "get", "list", "watch", "head", "options":
		return false
	}
	return true
}

// GroupResource is what the request names.
func (i *Info) GroupResource() schema.GroupResource { return i.GVR.GroupResource() }
