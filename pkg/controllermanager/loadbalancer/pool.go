package loadbalancer

import (
	"fmt"
	"net/netip"
	"strings"
)

// Pool is the addresses that may be given away, in order.
type Pool []span

// span is from one address to another, both included.
type span struct{ first, last netip.Addr }

// ParsePool reads CIDRs ("192.0.2.0/28": all of it), ranges ("192.0.2.10-192.0.2.20") and single addresses.
func ParsePool(list []string) (Pool, error) {
	var out Pool
	for _, text := range list {
		s, err := parse(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		for _, o := range out {
			if s.first.Compare(o.last) <= 0 && o.first.Compare(s.last) <= 0 {
				return nil, fmt.Errorf("%q overlaps with %s-%s", text, o.first, o.last)
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func parse(text string) (span, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		p = p.Masked()
		return span{p.Addr(), last(p)}, nil
	}
	from, to, isRange := strings.Cut(text, "-")
	first, err := netip.ParseAddr(from)
	if err != nil {
		return span{}, fmt.Errorf("want a CIDR, an address, or two with - between: %w", err)
	}
	if !isRange {
		return span{first, first}, nil
	}
	end, err := netip.ParseAddr(to)
	if err != nil {
		return span{}, err
	}
	if first.Is4() != end.Is4() || end.Less(first) {
		return span{}, fmt.Errorf("%s does not come after %s", end, first)
	}
	return span{first, end}, nil
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b) // it has the length of an address
	return a
}

func (p Pool) has(a netip.Addr) bool {
	for _, s := range p {
		if s.first.Compare(a) <= 0 && a.Compare(s.last) <= 0 {
			return true
		}
	}
	return false
}

// free answers the first address of a family that taken does not have.
func (p Pool) free(four bool, taken func(netip.Addr) bool) (netip.Addr, bool) {
	for _, s := range p {
		if s.first.Is4() != four {
			continue
		}
		for a := s.first; a.IsValid() && a.Compare(s.last) <= 0; a = a.Next() {
			if !taken(a) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}
