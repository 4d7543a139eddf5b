package server

import (
	"fmt"
	"slices"
	"strings"
)

// namedPair is a certificate for the clients that ask for one of its names.
type namedPair struct {
	*keyPair
	names []string // with a leading "*." for all names of a domain
}

type sni []namedPair

// namedPairs reads --tls-sni-cert-key: cert,key or cert,key:names. Without names, those of the certificate count.
func namedPairs(flags []string) (sni, error) {
	var out sni
	for _, f := range flags {
		files, names, given := strings.Cut(f, ":")
		cert, key, ok := strings.Cut(files, ",")
		if !ok || cert == "" || key == "" {
			return nil, fmt.Errorf("--tls-sni-cert-key %q: give it as cert,key or cert,key:name,*.name", f)
		}
		p := namedPair{keyPair: &keyPair{certFile: cert, keyFile: key}}
		c, err := p.get(nil)
		if err != nil {
			return nil, fmt.Errorf("--tls-sni-cert-key: %w", err)
		}
		if given {
			p.names = strings.Split(names, ",")
		} else {
			p.names = slices.Clone(c.Leaf.DNSNames)
			for _, ip := range c.Leaf.IPAddresses {
				p.names = append(p.names, ip.String())
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// pick answers the certificate for a name: one that has the very name, then one that has its domain, then the other.
func (s sni) pick(name string, other *keyPair) *keyPair {
	_, domain, _ := strings.Cut(name, ".")
	for _, want := range []string{strings.ToLower(name), "*." + strings.ToLower(domain)} {
		for _, p := range s {
			if slices.Contains(p.names, want) {
				return p.keyPair
			}
		}
	}
	return other
}
