// Package nftables holds the kernel's nftables to a desired.Table.
//
// All that Services are is elements of a few maps, keyed by the address that clients use; chains are shared by all Services of the same
// number of endpoints, so that a Service needs neither a chain nor a rule. portElements makes a port's elements, pure; Backend
// writes the table once, in one transaction, and afterwards only the elements that a change adds or takes away. One goroutine calls a Backend.
//
//	nat:    services: (address, protocol, port) -> goto pick-3    nodeports: (protocol, port) -> goto out-3-node
//	        pick-3:   random number below 3 -> endpoints: (address, protocol, port, number) -> dnat to (address, port)
//	        pick-3-sticky-100: affinity: (client, address, protocol, port), or places as above -> an endpoint's number
//	                            -> if it is of the living, alive: (address, protocol, port, endpoint's number) -> dnat to (address, port)
//	filter: no-endpoints: (address, protocol, port) -> goto do-reject or do-drop; firewalled and allowed: sources of balancers
package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// element is one element of a set or map: Key and Data are the kernel's bytes.
type element struct {
	set     string
	key     string
	end     string // of the range that begins with key, in sets of ranges
	data    string // of a map's element
	verdict string // of a verdict map's element: a chain to go to
}

// localPlaces is where the places of endpoints on this node begin, beside those of all endpoints from 0 on; as a packet's priority it is nobody's class.
const localPlaces = 0x7f00_0000

// The protocols' numbers.
var protocols = map[string]byte{"tcp": 6, "udp": 17, "sctp": 132}

func padded(b ...byte) string {
	return string(append(b, make([]byte, (4-len(b)%4)%4)...))
}

func number16(n uint16) string { return padded(byte(n>>8), byte(n)) }

func number32(n uint32) string { return string(binary.NativeEndian.AppendUint32(nil, n)) }

func address(a netip.Addr) string { return string(a.AsSlice()) }

// front is the key by which clients reach a port.
func front(a netip.Addr, p *desired.Port) string {
	return address(a) + padded(protocols[p.Protocol]) + number16(p.Number)
}

// nodeFront is the same by node port.
func nodeFront(p *desired.Port) string {
	return padded(protocols[p.Protocol]) + number16(p.NodePort)
}

// identify answers a number for an endpoint, the same whenever it is asked: endpoints of one port differ in it while they have one target port and,
// in IPv6, are of one node's range. Of two others with the same one, the first gets both their shares.
func identify(at netip.AddrPort) uint32 {
	raw := at.Addr().AsSlice()
	low := len(raw) - 4
	id := binary.BigEndian.Uint32(raw[low:]) ^ uint32(at.Port())*0x10001
	for _, b := range raw[:low] {
		id = id*31 + uint32(b) // an odd factor and a sum keep numbers apart that were
	}
	return id
}

// dispatch says which chain serves a front. Chains are shared: their names say all about them.
type dispatch struct {
	out        bool  // from outside: what is not local is masqueraded
	outerLocal bool  // from outside with the policy Local
	node       bool  // by node port
	all, local int   // endpoints, and those on this node
	sticky     int32 // seconds of affinity
}

// name of the chain.
func (d dispatch) name() string {
	var b strings.Builder
	switch {
	case d.outerLocal:
		fmt.Fprintf(&b, "local-%d-%d", d.all, d.local)
	case d.out:
		fmt.Fprintf(&b, "out-%d", d.all)
	default:
		fmt.Fprintf(&b, "pick-%d", d.all)
	}
	if d.sticky > 0 {
		fmt.Fprintf(&b, "-sticky-%d", d.sticky)
	}
	if d.node {
		b.WriteString("-node")
	}
	return b.String()
}

// within is the chain to which an outer one goes on.
func (d dispatch) within() dispatch {
	return dispatch{all: d.all, node: d.node, sticky: d.sticky}
}

// made is the elements of ports, and what several Services may share.
type made struct {
	beside     bool // another back end leads to endpoints
	elements   []element
	dispatches map[string]dispatch
	hairpins   []string // pods of this node that may reach themselves; other Services may name them, too
}

// portElements adds one port's elements.
func (m *made) portElements(p *desired.Port) {
	to := func(set, key string, d dispatch) {
		m.dispatches[d.name()] = d
		m.elements = append(m.elements, element{set: set, key: key, verdict: d.name()})
	}
	none := func(key, set string, isLocal bool) {
		verdict := "do-reject"
		if isLocal {
			// Another node may have one: silence makes clients and balancers try again.
			verdict = "do-drop"
		}
		m.elements = append(m.elements, element{set: set, key: key, verdict: verdict})
	}
	m.elements = append(m.elements, element{set: "cluster-ips", key: address(p.ClusterIP)})
	for _, e := range p.Any {
		if e.Local {
			m.hairpins = append(m.hairpins, address(e.At.Addr())+address(e.At.Addr()))
		}
	}

	// From inside, to the cluster IP.
	key := front(p.ClusterIP, p)
	switch {
	case len(p.Inner) == 0:
		none(key, "no-endpoints", len(p.Any) > 0)
	case m.beside:
		m.elements = append(m.elements, element{set: "served", key: key})
	default:
		to("services", key, dispatch{all: len(p.Inner), sticky: p.Sticky})
		m.places(p, "", key, p.Inner, 0)
	}

	// From outside.
	d := dispatch{out: true, all: len(p.Outer), sticky: p.Sticky}
	if p.OuterLocal {
		d = dispatch{outerLocal: true, all: len(p.Any), local: len(p.Outer), sticky: p.Sticky}
	}
	serve := func(set, without, key, of string, d dispatch) {
		if len(p.Outer) == 0 {
			none(key, without, len(p.Any) > 0)
		}
		if d.all > 0 {
			to(set, key, d)
			m.places(p, of, key, p.Any, 0)
			if p.OuterLocal {
				m.places(p, of, key, p.Outer, localPlaces)
			}
		}
	}
	for _, ip := range slices.Concat(p.ExternalIPs, p.Balancers) {
		serve("services", "no-endpoints", front(ip, p), "", d)
	}
	if p.Guarded {
		for _, ip := range p.Balancers {
			m.elements = append(m.elements, element{set: "firewalled", key: front(ip, p)})
			for _, r := range p.Ranges {
				m.elements = append(m.elements, element{set: "allowed", key: front(ip, p) + address(r.Addr()), end: front(ip, p) + address(last(r))})
			}
		}
	}
	if p.NodePort > 0 {
		d.node = true
		serve("nodeports", "no-endpoint-nodeports", nodeFront(p), "nodeport-", d)
	}
}

// places adds the endpoints under a front, numbered, to the sets whose names begin as told.
func (m *made) places(p *desired.Port, of, under string, to []desired.Endpoint, from int) {
	if m.beside {
		return
	}
	for i, e := range to {
		at := address(e.At.Addr()) + number16(e.At.Port())
		key := under + number32(uint32(from+i))
		if p.Sticky == 0 {
			m.elements = append(m.elements, element{set: of + "endpoints", key: key, data: at})
			continue
		}
		id := number32(identify(e.At))
		m.elements = append(m.elements, element{set: of + "places", key: key, data: id}, element{set: of + "alive", key: under + id, data: at}, element{set: of + "living", key: under + id})
	}
}

// last answers the last address of a range.
func last(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// elements makes those of ports. An address or port that two of them claim is the first one's.
func elements(ports func(func(*desired.Port) bool), beside bool) made {
	m := made{beside: beside, dispatches: map[string]dispatch{}}
	for p := range ports {
		m.portElements(p)
	}
	seen := make(map[[2]string]bool, len(m.elements))
	m.elements = slices.DeleteFunc(m.elements, func(e element) bool {
		id := [2]string{e.set, e.key}
		if e.set == "allowed" {
			id[1] += e.end
		}
		again := seen[id]
		seen[id] = true
		return again
	})
	slices.Sort(m.hairpins)
	m.hairpins = slices.Compact(m.hairpins)
	return m
}

// difference answers what leads from one list of elements to another.
func difference(was, is []element) (gone, come []element) {
	had := make(map[element]bool, len(was))
	for _, e := range was {
		had[e] = true
	}
	for _, e := range is {
		if had[e] {
			delete(had, e)
		} else {
			come = append(come, e)
		}
	}
	for _, e := range was {
		if had[e] {
			gone = append(gone, e)
		}
	}
	return gone, come
}

// parted takes out of what goes with a change what waits for a transaction of its own: clients that begin or cease to stay with an endpoint are led by
// other chains through other maps, and a packet on its way in the old chain still looks for its endpoint in the old ones.
func parted(c desired.Change, gone []element) (now, later []element) {
	sticky := func(ports []desired.Port) bool {
		return slices.ContainsFunc(ports, func(p desired.Port) bool { return p.Sticky > 0 })
	}
	if sticky(c.Before) == sticky(c.After) {
		return gone, nil
	}
	for _, e := range gone {
		if e.data != "" {
			later = append(later, e)
		} else {
			now = append(now, e)
		}
	}
	return now, later
}

// Print answers a table's whole ruleset for both families, near to the words of nft.
func Print(t *desired.Table) string { return printed(t, false) }

// PrintBeside answers the same of what NewBeside's back end holds.
func PrintBeside(t *desired.Table) string { return printed(t, true) }

func printed(t *desired.Table, beside bool) string {
	var b strings.Builder
	for _, v6 := range []bool{false, true} {
		l := layout{Policy: t.Policy, v6: v6, beside: beside}
		m := elements(t.All(v6), beside)
		l.print(&b, m)
	}
	return b.String()
}

// text answers a key's or data's fields in words.
func text(fields []field, raw string) string {
	var out []string
	for _, f := range fields {
		size := f.size()
		if len(raw) < size {
			break
		}
		word := raw[:size]
		raw = raw[size:]
		switch f {
		case addr4, addr6:
			a, _ := netip.AddrFromSlice([]byte(word))
			out = append(out, a.String())
		case proto:
			for name, n := range protocols {
				if n == word[0] {
					out = append(out, name)
				}
			}
		case service:
			out = append(out, strconv.Itoa(int(binary.BigEndian.Uint16([]byte(word)))))
		case scratch:
			n := binary.NativeEndian.Uint32([]byte(word))
			out = append(out, fmt.Sprintf("%x:%x", n>>16, n&0xffff))
		}
	}
	return strings.Join(out, " . ")
}
