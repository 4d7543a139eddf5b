package discovery

import (
	"mime"
	"net/http"
	"strings"
	"sync"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
)

// aggregated is every group of one root at once.
type aggregated struct {
	list *apidiscoveryv2.APIGroupDiscoveryList

	mu    sync.Mutex
	bytes map[string][]byte // by version and media type
	tags  map[string]string
}

func newAggregated(l *apidiscoveryv2.APIGroupDiscoveryList) *aggregated {
	return &aggregated{list: l, bytes: map[string][]byte{}, tags: map[string]string{}}
}

// serve answers the whole list if the client's first choice is that, and tells whether it did.
func (a *aggregated) serve(w http.ResponseWriter, r *http.Request) bool {
	version, media, ok := wants(strings.Join(r.Header.Values("Accept"), ","))
	if !ok {
		return false
	}
	b, tag, err := a.encode(version, media)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return true
	}
	h := w.Header()
	h.Set("ETag", `"`+tag+`"`)
	h.Set("Vary", "Accept")
	h.Set("Cache-Control", "public")
	if strings.Trim(r.Header.Get("If-None-Match"), `"`) == tag {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	h.Set("Content-Type", media.ContentType()+";g=apidiscovery.k8s.io;v="+version+";as=APIGroupDiscoveryList")
	_, _ = w.Write(b) // a client that went has nothing to be told
	return true
}

// wants reads the Accept header up to the first clause that we serve.
func wants(accept string) (version string, m codec.Media, ok bool) {
	for _, clause := range strings.Split(accept, ",") {
		name, p, err := mime.ParseMediaType(strings.TrimSpace(clause))
		if err != nil {
			continue
		}
		switch name {
		case "application/json", "*/*":
			m = codec.JSON
		case "application/vnd.kubernetes.protobuf":
			m = codec.Proto
		case "application/cbor":
			m = codec.CBOR
		default:
			continue
		}
		if p["as"] == "" {
			return "", 0, false // the plain form comes first
		}
		if p["as"] == "APIGroupDiscoveryList" && p["g"] == "apidiscovery.k8s.io" && (p["v"] == "v2" || p["v"] == "v2beta1") {
			return p["v"], m, true
		}
	}
	return "", 0, false
}

func (a *aggregated) encode(version string, m codec.Media) ([]byte, string, error) {
	key := version + " " + m.ContentType()
	a.mu.Lock()
	defer a.mu.Unlock()
	if b := a.bytes[key]; b != nil {
		return b, a.tags[key], nil
	}
	// v2beta1 has the same fields under the same numbers and names, so v2's object serves for both.
	gvk := schema.GroupVersionKind{Group: "apidiscovery.k8s.io", Version: version, Kind: "APIGroupDiscoveryList"}
	b, err := codec.Encode(a.list.DeepCopy(), gvk, codec.Target{Media: m})
	if err != nil {
		return nil, "", err
	}
	a.bytes[key], a.tags[key] = b, etag(b)
	return b, a.tags[key], nil
}
