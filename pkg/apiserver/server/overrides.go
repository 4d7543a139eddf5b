package server

import (
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// override is one of --etcd-servers-overrides: a resource, or with "*" all of a group, that lies in an etcd of its own.
type override struct {
	gr      schema.GroupResource
	servers []string // URLs, in order
}

func (c *Config) overrides() ([]override, error) {
	var out []override
	for _, s := range c.EtcdOverrides {
		what, where, ok := strings.Cut(s, "#")
		group, resource, ok2 := strings.Cut(what, "/")
		if !ok || !ok2 || resource == "" || strings.Contains(resource, "/") || strings.Contains(where, "#") {
			return nil, fmt.Errorf("--etcd-servers-overrides %q: give it as group/resource#https://127.0.0.1:2379;https://127.0.0.2:2379, the core group as nothing", s)
		}
		o := override{gr: schema.GroupResource{Group: group, Resource: resource}, servers: strings.Split(where, ";")}
		for _, at := range o.servers {
			if !isEtcd(at) {
				return nil, fmt.Errorf("--etcd-servers-overrides %q: %q is not a URL of etcd: give it as https://127.0.0.1:2379", s, at)
			}
		}
		if slices.ContainsFunc(out, func(other override) bool { return other.gr == o.gr }) {
			return nil, fmt.Errorf("--etcd-servers-overrides names %s twice", what)
		}
		slices.Sort(o.servers)
		out = append(out, o)
	}
	return out, nil
}

// isEtcd tells whether a text may be the URL of an etcd.
func isEtcd(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// openApart makes a client for each set of servers that overrides name besides --etcd-servers.
func (s *Server) openApart() error {
	overrides, err := s.c.overrides()
	if err != nil {
		return err
	}
	most := slices.Sorted(slices.Values(s.c.EtcdServers))
	for _, o := range overrides {
		if slices.Equal(o.servers, most) || slices.ContainsFunc(s.apart, func(a apart) bool { return slices.Equal(a.servers, o.servers) }) {
			continue
		}
		st, err := openEtcd(s.c, o.servers, s.egress.etcd)
		if err != nil {
			return err
		}
		s.apart = append(s.apart, apart{o.servers, st})
	}
	return nil
}

// apart is an etcd of some resources.
type apart struct {
	servers []string
	store   *store.Store
}

// stores are all etcds, that of most resources first.
func (s *Server) stores() []*store.Store {
	var all []*store.Store
	if s.store != nil {
		all = append(all, s.store)
	}
	for _, a := range s.apart {
		all = append(all, a.store)
	}
	return all
}

// placed answers which resources do not lie in the etcd of most. What is named for a resource counts before what is named for
// its group.
func (s *Server) placed(defs []*kind.Def) (map[schema.GroupResource]*store.Store, error) {
	overrides, err := s.c.overrides()
	if err != nil {
		return nil, err
	}
	at, used := map[schema.GroupResource]*store.Store{}, map[schema.GroupResource]bool{}
	for _, d := range defs {
		gr := d.GroupResource()
		named := gr
		if gr.Group == "" && gr.Resource == "rangeallocations" {
			named.Resource = "services" // what their addresses and ports are taken from lies where they lie
		}
		for _, name := range []schema.GroupResource{named, {Group: gr.Group, Resource: "*"}} {
			n := slices.IndexFunc(overrides, func(o override) bool { return o.gr == name })
			if n < 0 || d.Virtual != nil {
				continue
			}
			used[name] = true
			for _, a := range s.apart {
				if slices.Equal(a.servers, overrides[n].servers) {
					at[gr] = a.store
				}
			}
			break
		}
	}
	for _, o := range overrides {
		if !used[o.gr] {
			slog.Warn("--etcd-servers-overrides names what this server does not store under that name; it has no effect", "resource", o.gr.Group+"/"+o.gr.Resource)
		}
	}
	return at, nil
}
