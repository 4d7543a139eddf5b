package proxy

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
)

var lists = map[string]string{"services": "ServiceList", "endpointslices": "EndpointSliceList", "nodes": "NodeList", "networkpolicies": "NetworkPolicyList",
	"pods": "PodList", "namespaces": "NamespaceList"}

var groups = map[string]string{"services": "v1", "endpointslices": "discovery.k8s.io/v1", "nodes": "v1", "networkpolicies": "networking.k8s.io/v1", "pods": "v1", "namespaces": "v1"}

// cluster is as much of an API as the proxy asks for: lists and watches of objects that a test puts.
type cluster struct {
	mu    sync.Mutex
	more  *sync.Cond
	last  int                                   // version
	told  int                                   // version of EndpointSlices that the proxy has, or that is on its way to it
	held  map[string]map[string]json.RawMessage // by resource and name
	seen  []event
	asked map[string]string // the label selectors of watches, by resource
}

type event struct {
	version  int
	resource string
	text     []byte
}

// newCluster serves at an address of the calling thread's space until the test ends, and answers where.
func newCluster(t *testing.T) (*cluster, string) {
	t.Helper()
	c := &cluster{held: map[string]map[string]json.RawMessage{}, asked: map[string]string{}}
	c.more = sync.NewCond(&c.mu)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: c}
	t.Cleanup(func() { _ = s.Close() })
	go func() { _ = s.Serve(l) }()
	return c, "http://" + l.Addr().String()
}

// put makes or changes an object of a resource; nil instead of it takes it away.
func (c *cluster) put(resource, name string, o runtime.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	if c.held[resource] == nil {
		c.held[resource] = map[string]json.RawMessage{}
	}
	kind, text := "DELETED", c.held[resource][name]
	if o == nil {
		delete(c.held[resource], name)
	} else {
		if kind = "MODIFIED"; text == nil {
			kind = "ADDED"
		}
		m, err := meta.Accessor(o)
		if err != nil {
			panic(err)
		}
		m.SetName(name)
		m.SetResourceVersion(strconv.Itoa(c.last))
		if text, err = json.Marshal(o); err != nil {
			panic(err)
		}
		c.held[resource][name] = text
	}
	whole := fmt.Appendf(nil, "{\"type\":%q,\"object\":{\"kind\":%q,\"apiVersion\":%q,%s}\n", kind, strings.TrimSuffix(lists[resource], "List"), groups[resource], text[1:])
	c.seen = append(c.seen, event{c.last, resource, whole})
	c.more.Broadcast()
}

// version answers that of the last change.
func (c *cluster) version() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// knows says whether a proxy that is there was told of EndpointSlices up to a version.
func (c *cluster) knows(version int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told >= version
}

// ServeHTTP lists and watches.
func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource, q := path.Base(r.URL.Path), r.URL.Query()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case q.Get("sendInitialEvents") != "":
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
	case q.Get("watch") != "":
		from, _ := strconv.Atoi(q.Get("resourceVersion"))
		c.mu.Lock()
		c.asked[resource] = q.Get("labelSelector")
		c.mu.Unlock()
		c.follow(w, r, resource, from)
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		if resource == "endpointslices" {
			c.told = c.last
		}
		items := []json.RawMessage{}
		for _, o := range c.held[resource] {
			items = append(items, o)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": lists[resource], "apiVersion": groups[resource], "metadata": map[string]string{"resourceVersion": strconv.Itoa(c.last)}, "items": items})
	}
}

// follow sends what comes after a version until the caller goes.
func (c *cluster) follow(w http.ResponseWriter, r *http.Request, resource string, from int) {
	flush := w.(http.Flusher).Flush
	flush()
	gone := r.Context()
	go func() {
		<-gone.Done()
		c.mu.Lock()
		c.more.Broadcast()
		c.mu.Unlock()
	}()
	for at := 0; ; {
		c.mu.Lock()
		for at == len(c.seen) && gone.Err() == nil {
			c.more.Wait()
		}
		news := c.seen[at:]
		at = len(c.seen)
		c.mu.Unlock()
		if gone.Err() != nil {
			return
		}
		for _, e := range news {
			if e.version > from && e.resource == resource {
				if _, err := w.Write(e.text); err != nil {
					return
				}
			}
		}
		flush()
		if resource == "endpointslices" && len(news) > 0 {
			c.mu.Lock()
			c.told = max(c.told, news[len(news)-1].version)
			c.mu.Unlock()
		}
	}
}
