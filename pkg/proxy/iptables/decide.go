// Package iptables holds the kernel's iptables to a desired.Table.
//
// decide turns a table into chains, pure; Backend remembers what it wrote and restores only chains that differ. One goroutine
// calls a Backend. Chains carry upstream's names, so that either proxy takes over the other's.
package iptables

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// Config is how rules are made.
type Config struct {
	ClusterCIDR   string   // pods' addresses; traffic from elsewhere to a cluster IP is masqueraded
	PodCIDR       string   // this node's pods; masqueraded on their way out of ClusterCIDR. Empty: not ours to do
	MasqueradeAll bool     // masquerade all traffic to cluster IPs
	MasqueradeBit int32    // the mark's bit, 0 to 31
	NodePortsOn   []string // prefixes of the addresses that answer node ports; empty is every local address
}

func (c Config) mark() string { return fmt.Sprintf("%#x", uint32(1)<<c.MasqueradeBit) }

// chains are rules by chain, without the leading "-A chain".
type chains map[string][]string

func (c chains) add(chain, format string, args ...any) {
	c[chain] = append(c[chain], fmt.Sprintf(format, args...))
}

// ruleset is everything of ours in the kernel.
type ruleset struct{ filter, nat chains }

// String prints the ruleset as restore takes it.
func (r ruleset) String() string { return restore(ruleset{}, r, nil) }

// jump is a rule in a built-in chain that leads to ours.
type jump struct {
	table, chain string
	args         []string
	first        bool // before what others put there
}

// jumps are the same on every node.
var jumps = []jump{
	{"filter", "INPUT", strings.Fields("-m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES"), true},
	{"filter", "FORWARD", strings.Fields("-m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES"), true},
	{"filter", "FORWARD", strings.Fields("-m conntrack --ctstate NEW -j KUBE-SERVICES"), true},
	{"filter", "OUTPUT", strings.Fields("-m conntrack --ctstate NEW -j KUBE-SERVICES"), true},
	{"filter", "FORWARD", strings.Fields("-j KUBE-FORWARD"), false},
	{"nat", "PREROUTING", strings.Fields("-j KUBE-SERVICES"), true},
	{"nat", "OUTPUT", strings.Fields("-j KUBE-SERVICES"), true},
	{"nat", "POSTROUTING", strings.Fields("-j KUBE-POSTROUTING"), true},
}

// prefixes of the chains made per service port and endpoint; other chains are few and fixed.
var prefixes = []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"}

// hash names a chain for a service port or endpoint, in 16 letters.
func hash(words ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(words, "")))
	return base32.StdEncoding.EncodeToString(sum[:])[:16]
}

// decide works out every chain.
func decide(t desired.Table, c Config) ruleset {
	r := ruleset{filter: chains{"KUBE-SERVICES": nil, "KUBE-EXTERNAL-SERVICES": nil, "KUBE-FORWARD": nil},
		nat: chains{"KUBE-SERVICES": nil, "KUBE-NODEPORTS": nil, "KUBE-POSTROUTING": nil, "KUBE-MARK-MASQ": nil}}
	mark := c.mark()
	r.nat.add("KUBE-MARK-MASQ", "-j MARK --or-mark %s", mark)
	if c.PodCIDR != "" && c.ClusterCIDR != "" {
		// Pods are known by their own address inside, and by the node's outside.
		r.nat.add("KUBE-POSTROUTING", "-s %s ! -d %s -m addrtype ! --dst-type MULTICAST -j MASQUERADE --random-fully", c.PodCIDR, c.ClusterCIDR)
	}
	r.nat.add("KUBE-POSTROUTING", "-m mark ! --mark %s/%s -j RETURN", mark, mark)
	r.nat.add("KUBE-POSTROUTING", "-j MARK --xor-mark %s", mark)
	r.nat.add("KUBE-POSTROUTING", "-j MASQUERADE --random-fully")
	r.filter.add("KUBE-FORWARD", "-m mark --mark %s/%s -j ACCEPT", mark, mark)
	r.filter.add("KUBE-FORWARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	if c.PodCIDR != "" {
		r.filter.add("KUBE-FORWARD", "-s %s -j ACCEPT", c.PodCIDR)
		r.filter.add("KUBE-FORWARD", "-d %s -j ACCEPT", c.PodCIDR)
	}
	for i := range t.Ports {
		r.port(&t.Ports[i], c)
	}
	if len(c.NodePortsOn) == 0 {
		// Not to 127.0.0.0/8: answering there would need route_localnet, which opens the host's own services to neighbours.
		r.nat.add("KUBE-SERVICES", "! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
	}
	for _, prefix := range c.NodePortsOn {
		r.nat.add("KUBE-SERVICES", "-d %s -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS", prefix)
	}
	return r
}

// port adds the rules of one service port.
func (r *ruleset) port(p *desired.Port, c Config) {
	id := hash(p.Name, p.Protocol)
	match := func(ip string) string {
		return fmt.Sprintf("-d %s/32 -p %s -m %s --dport %d", ip, p.Protocol, p.Protocol, p.Number)
	}
	say := func(what string) string { return fmt.Sprintf("-m comment --comment %q", p.Name+" "+what) }
	outside := slices.Concat(p.ExternalIPs, p.Balancers)

	// From inside, to the cluster IP.
	service := "KUBE-SVC-" + id
	if len(p.Inner) != len(p.Any) {
		service = "KUBE-SVL-" + id
	}
	switch {
	case len(p.Inner) > 0:
		r.nat.add("KUBE-SERVICES", "%s %s -j %s", say("cluster IP"), match(p.ClusterIP), r.balance(service, p, p.Inner, c))
		if p.OuterLocal && service != "KUBE-SVC-"+id {
			r.balance("KUBE-SVC-"+id, p, p.Any, c)
		}
	case len(p.Any) > 0:
		r.filter.add("KUBE-SERVICES", "%s %s -j DROP", say("has no local endpoints"), match(p.ClusterIP))
	default:
		r.filter.add("KUBE-SERVICES", "%s %s -j REJECT", say("has no endpoints"), match(p.ClusterIP))
	}

	// From outside.
	if len(outside) == 0 && p.NodePort == 0 {
		return
	}
	if len(p.Any) == 0 || len(p.Outer) == 0 {
		verdict, why := "REJECT", "has no endpoints"
		if len(p.Any) > 0 {
			// Another node may have one: silence makes clients and balancers try again.
			verdict, why = "DROP", "has no local endpoints"
		}
		for _, ip := range outside {
			r.filter.add("KUBE-EXTERNAL-SERVICES", "%s %s -j %s", say(why), match(ip), verdict)
		}
		if p.NodePort > 0 {
			r.filter.add("KUBE-EXTERNAL-SERVICES", "%s -m addrtype --dst-type LOCAL -p %s -m %s --dport %d -j %s", say(why), p.Protocol, p.Protocol, p.NodePort, verdict)
		}
		if len(p.Any) == 0 {
			return
		}
	}
	ext := "KUBE-EXT-" + id
	if p.OuterLocal {
		all := r.balance("KUBE-SVC-"+id, p, p.Any, c)
		if c.ClusterCIDR != "" {
			r.nat.add(ext, "%s -s %s -j %s", say("pod traffic, any endpoint"), c.ClusterCIDR, all)
		}
		r.nat.add(ext, "%s -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ", say("the node's own traffic"))
		r.nat.add(ext, "%s -m addrtype --src-type LOCAL -j %s", say("the node's own traffic, any endpoint"), all)
		if len(p.Outer) > 0 {
			r.nat.add(ext, "-j %s", r.balance("KUBE-SVL-"+id, p, p.Outer, c))
		}
	} else {
		r.nat.add(ext, "%s -j KUBE-MARK-MASQ", say("from outside"))
		r.nat.add(ext, "-j %s", r.balance("KUBE-SVC-"+id, p, p.Outer, c))
	}
	for _, ip := range p.ExternalIPs {
		r.nat.add("KUBE-SERVICES", "%s %s -j %s", say("external IP"), match(ip), ext)
	}
	for _, ip := range p.Balancers {
		for _, from := range p.Ranges {
			r.nat.add("KUBE-SERVICES", "%s -s %s %s -j %s", say("loadbalancer IP"), from, match(ip), ext)
		}
		if len(p.Ranges) == 0 {
			r.nat.add("KUBE-SERVICES", "%s %s -j %s", say("loadbalancer IP"), match(ip), ext)
		} else {
			r.filter.add("KUBE-EXTERNAL-SERVICES", "%s %s -j DROP", say("source not allowed"), match(ip))
		}
	}
	if p.NodePort > 0 {
		r.nat.add("KUBE-NODEPORTS", "%s -p %s -m %s --dport %d -j %s", say("node port"), p.Protocol, p.Protocol, p.NodePort, ext)
	}
}

// balance fills a chain that hands traffic to the endpoints, evenly, and answers its name.
func (r *ruleset) balance(chain string, p *desired.Port, to []desired.Endpoint, c Config) string {
	if _, done := r.nat[chain]; done {
		return chain
	}
	match := fmt.Sprintf("-d %s/32 -p %s -m %s --dport %d", p.ClusterIP, p.Protocol, p.Protocol, p.Number)
	switch {
	case c.MasqueradeAll:
		r.nat.add(chain, "%s -j KUBE-MARK-MASQ", match)
	case c.ClusterCIDR != "":
		r.nat.add(chain, "! -s %s %s -j KUBE-MARK-MASQ", c.ClusterCIDR, match)
	}
	names := make([]string, len(to))
	for i, e := range to {
		names[i] = r.endpoint(p, e)
	}
	if p.Sticky > 0 {
		for _, name := range names {
			r.nat.add(chain, "-m recent --rcheck --seconds %d --reap --name %s -j %s", p.Sticky, name, name)
		}
	}
	for i, name := range names {
		if left := len(names) - i; left > 1 {
			r.nat.add(chain, "-m statistic --mode random --probability %s -j %s", strconv.FormatFloat(1/float64(left), 'f', 10, 64), name)
		} else {
			r.nat.add(chain, "-j %s", name)
		}
	}
	return chain
}

// endpoint fills the chain of one endpoint and answers its name.
func (r *ruleset) endpoint(p *desired.Port, e desired.Endpoint) string {
	to := fmt.Sprintf("%s:%d", e.IP, e.Port)
	chain := "KUBE-SEP-" + hash(p.Name, p.Protocol, to)
	if _, done := r.nat[chain]; done {
		return chain
	}
	// A pod that reaches itself through its Service must not see its own address as the client's.
	r.nat.add(chain, "-s %s/32 -j KUBE-MARK-MASQ", e.IP)
	sticky := ""
	if p.Sticky > 0 {
		sticky = "-m recent --set --name " + chain + " "
	}
	r.nat.add(chain, "%s-p %s -m %s -j DNAT --to-destination %s", sticky, p.Protocol, p.Protocol, to)
	return chain
}

// restore writes what iptables-restore --noflush needs to go from one ruleset to the other: chains that differ, and the ends
// of those that are gone (with the strays: chains of ours from an earlier life, by table). Empty when nothing differs.
func restore(from, to ruleset, strays map[string][]string) string {
	var b strings.Builder
	for _, t := range []struct {
		name     string
		old, new chains
	}{{"filter", from.filter, to.filter}, {"nat", from.nat, to.nat}} {
		var head, body, tail strings.Builder
		for _, chain := range slices.Sorted(maps.Keys(t.new)) {
			old, known := t.old[chain]
			if known && slices.Equal(old, t.new[chain]) {
				continue
			}
			fmt.Fprintf(&head, ":%s - [0:0]\n", chain)
			for _, rule := range t.new[chain] {
				fmt.Fprintf(&body, "-A %s %s\n", chain, rule)
			}
		}
		gone := slices.Collect(maps.Keys(t.old))
		gone = append(gone, strays[t.name]...)
		slices.Sort(gone)
		for _, chain := range slices.Compact(gone) {
			if _, stays := t.new[chain]; !stays {
				fmt.Fprintf(&head, ":%s - [0:0]\n", chain)
				fmt.Fprintf(&tail, "-X %s\n", chain)
			}
		}
		if head.Len() > 0 {
			fmt.Fprintf(&b, "*%s\n%s%s%sCOMMIT\n", t.name, head.String(), body.String(), tail.String())
		}
	}
	return b.String()
}
