// Package iptables holds the kernel's iptables to a desired.Table.
//
// fixed and portRules turn policy and service ports into chains, pure; Backend writes everything once, and afterwards only what a changed
// Service's chains differ in: what it wrote before follows from the ports of before, so nothing is remembered twice. One goroutine
// calls a Backend. Chains carry upstream's names, so that either proxy takes over the other's.
package iptables

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// chains are rules by chain, without the leading "-A chain".
type chains map[string][]string

func (c chains) add(chain, rule string) { c[chain] = append(c[chain], rule) }

// ruleset is chains of ours in the kernel.
type ruleset struct{ filter, nat chains }

func newRuleset() ruleset { return ruleset{filter: chains{}, nat: chains{}} }

// shared are the chains to which every service port adds its own rules; all others belong to one port alone.
var shared = []string{"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS"}

// jump is a rule in a built-in chain that leads to ours.
type jump struct {
	table, chain string
	rule         string // as the tool lists it
	first        bool   // before what others put there
}

// jumps are the same on every node.
var jumps = []jump{
	{"filter", "INPUT", "-m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES", true},
	{"filter", "FORWARD", "-m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES", true},
	{"filter", "FORWARD", "-m conntrack --ctstate NEW -j KUBE-SERVICES", true},
	{"filter", "OUTPUT", "-m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES", true}, // from the node, too, what is guarded or has no endpoint is refused
	{"filter", "OUTPUT", "-m conntrack --ctstate NEW -j KUBE-SERVICES", true},
	{"filter", "FORWARD", "-j KUBE-FORWARD", false},
	{"nat", "PREROUTING", "-j KUBE-SERVICES", true},
	{"nat", "OUTPUT", "-j KUBE-SERVICES", true},
	{"nat", "POSTROUTING", "-j KUBE-POSTROUTING", true},
}

// prefixes of the chains made per service port and endpoint; other chains are few and fixed.
var prefixes = []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"}

// hash names a chain for a service port or endpoint, in 16 letters.
func hash(words ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(words, "")))
	return base32.StdEncoding.EncodeToString(sum[:])[:16]
}

// rules makes a family's rules of a policy.
type rules struct {
	desired.Policy
	v6 bool
}

func (r rules) half(pair [2]netip.Prefix) netip.Prefix { return pair[desired.Family(r.v6)] }

// inside matches traffic from pods, or with not any other; empty where nothing is known to be inside.
func (r rules) inside(not bool) string {
	bang := ""
	if not {
		bang = "! "
	}
	switch inside := r.half(r.Inside); {
	case r.InsideLink != "":
		return bang + "-i " + r.InsideLink + " "
	case inside.IsValid():
		return bang + "-s " + inside.String() + " "
	}
	return ""
}

// fixed are the chains that hold whatever the Services are. KUBE-SERVICES ends with what leads to the node ports.
func (r rules) fixed() ruleset {
	out := ruleset{filter: chains{"KUBE-SERVICES": nil, "KUBE-EXTERNAL-SERVICES": nil, "KUBE-FORWARD": nil},
		nat: chains{"KUBE-SERVICES": nil, "KUBE-NODEPORTS": nil, "KUBE-POSTROUTING": nil, "KUBE-MARK-MASQ": nil}}
	mark := fmt.Sprintf("%#x", r.Mark())
	out.nat.add("KUBE-MARK-MASQ", "-j MARK --or-mark "+mark)
	mine := r.half(r.NodePods)
	if all := r.half(r.Pods); mine.IsValid() && all.IsValid() {
		// Pods are known by their own address inside, and by the node's outside.
		out.nat.add("KUBE-POSTROUTING", fmt.Sprintf("-s %v ! -d %v -m addrtype ! --dst-type MULTICAST -j MASQUERADE --random-fully", mine, all))
	}
	out.nat.add("KUBE-POSTROUTING", fmt.Sprintf("-m mark ! --mark %s/%s -j RETURN", mark, mark))
	out.nat.add("KUBE-POSTROUTING", "-j MARK --xor-mark "+mark)
	out.nat.add("KUBE-POSTROUTING", "-j MASQUERADE --random-fully")
	if r.DropInvalid {
		// Past the translation back it would reach the client from an address that it does not know, and end its connection.
		out.filter.add("KUBE-FORWARD", "-m conntrack --ctstate INVALID -j DROP")
	}
	out.filter.add("KUBE-FORWARD", fmt.Sprintf("-m mark --mark %s/%s -j ACCEPT", mark, mark))
	out.filter.add("KUBE-FORWARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	if mine.IsValid() {
		out.filter.add("KUBE-FORWARD", fmt.Sprintf("-s %v -j ACCEPT", mine))
		out.filter.add("KUBE-FORWARD", fmt.Sprintf("-d %v -j ACCEPT", mine))
	}
	// Not to 127.0.0.0/8: answering there would need route_localnet, which opens the host's own services to neighbours.
	loopback := "127.0.0.0/8"
	if r.v6 {
		loopback = "::1/128"
	}
	if r.NodePortsAll {
		out.nat.add("KUBE-SERVICES", fmt.Sprintf("! -d %s -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS", loopback))
	}
	for _, prefix := range r.NodePortsOn {
		if prefix.Addr().Is6() == r.v6 && !r.NodePortsAll && !prefix.Addr().IsLoopback() {
			out.nat.add("KUBE-SERVICES", fmt.Sprintf("-d %v -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS", prefix))
		}
	}
	return out
}

// portRules adds the chains of one service port, and what it adds to the shared ones.
func (r rules) portRules(out ruleset, p *desired.Port) {
	id := hash(p.Name, p.Protocol)
	match := func(ip netip.Addr) string { return matchFront(ip, p) }
	say := func(what string) string { return `-m comment --comment "` + p.Name + " " + what + `" ` }
	outside := slices.Concat(p.ExternalIPs, p.Balancers)

	// From inside, to the cluster IP.
	service := "KUBE-SVC-" + id
	if p.InnerLocal {
		service = "KUBE-SVL-" + id
	}
	switch {
	case len(p.Inner) > 0:
		out.nat.add("KUBE-SERVICES", say("cluster IP")+match(p.ClusterIP)+" -j "+r.balance(out, service, p, p.Inner))
	case len(p.Any) > 0:
		out.filter.add("KUBE-SERVICES", say("has no local endpoints")+match(p.ClusterIP)+" -j DROP")
	default:
		out.filter.add("KUBE-SERVICES", say("has no endpoints")+match(p.ClusterIP)+" -j REJECT")
	}

	// From outside.
	if len(outside) == 0 && p.NodePort == 0 {
		return
	}
	nodePort := fmt.Sprintf("-p %s -m %s --dport %d", p.Protocol, p.Protocol, p.NodePort)
	if len(p.Any) == 0 || len(p.Outer) == 0 {
		verdict, why := " -j REJECT", "has no endpoints"
		if len(p.Any) > 0 || len(p.Outer) > 0 {
			// Another node may have one: silence makes clients and balancers try again.
			verdict, why = " -j DROP", "has no local endpoints"
		}
		for _, ip := range outside {
			out.filter.add("KUBE-EXTERNAL-SERVICES", say(why)+match(ip)+verdict)
		}
		if p.NodePort > 0 {
			out.filter.add("KUBE-EXTERNAL-SERVICES", say(why)+"-m addrtype --dst-type LOCAL "+nodePort+verdict)
		}
		if len(p.Any) == 0 {
			return
		}
	}
	ext := "KUBE-EXT-" + id
	if p.OuterLocal {
		all := r.balance(out, "KUBE-SVC-"+id, p, p.Any)
		if inside := r.inside(false); inside != "" {
			out.nat.add(ext, say("pod traffic, any endpoint")+inside+"-j "+all)
		}
		out.nat.add(ext, say("the node's own traffic")+"-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ")
		out.nat.add(ext, say("the node's own traffic, any endpoint")+"-m addrtype --src-type LOCAL -j "+all)
		if len(p.Outer) > 0 {
			out.nat.add(ext, "-j "+r.balance(out, "KUBE-SVL-"+id, p, p.Outer))
		}
	} else {
		out.nat.add(ext, say("from outside")+"-j KUBE-MARK-MASQ")
		out.nat.add(ext, "-j "+r.balance(out, "KUBE-SVC-"+id, p, p.Outer))
	}
	for _, ip := range p.ExternalIPs {
		out.nat.add("KUBE-SERVICES", say("external IP")+match(ip)+" -j "+ext)
	}
	for _, ip := range p.Balancers {
		if !p.Guarded {
			out.nat.add("KUBE-SERVICES", say("loadbalancer IP")+match(ip)+" -j "+ext)
			continue
		}
		for _, from := range p.Ranges {
			out.nat.add("KUBE-SERVICES", say("loadbalancer IP")+"-s "+from.String()+" "+match(ip)+" -j "+ext)
		}
		out.filter.add("KUBE-EXTERNAL-SERVICES", say("source not allowed")+match(ip)+" -j DROP")
	}
	if p.NodePort > 0 {
		out.nat.add("KUBE-NODEPORTS", say("node port")+nodePort+" -j "+ext)
	}
}

func matchFront(ip netip.Addr, p *desired.Port) string {
	return "-d " + netip.PrefixFrom(ip, ip.BitLen()).String() + " -p " + p.Protocol + " -m " + p.Protocol + " --dport " + strconv.Itoa(int(p.Number))
}

// balance fills a chain that hands traffic to the endpoints, evenly, and answers its name.
func (r rules) balance(out ruleset, chain string, p *desired.Port, to []desired.Endpoint) string {
	if _, done := out.nat[chain]; done {
		return chain
	}
	match := matchFront(p.ClusterIP, p)
	if outside := r.inside(true); r.MasqueradeAll {
		out.nat.add(chain, match+" -j KUBE-MARK-MASQ")
	} else if outside != "" {
		out.nat.add(chain, outside+match+" -j KUBE-MARK-MASQ")
	}
	names := make([]string, len(to))
	for i, e := range to {
		names[i] = r.endpoint(out, p, e)
	}
	if p.Sticky > 0 {
		for _, name := range names {
			out.nat.add(chain, fmt.Sprintf("-m recent --rcheck --seconds %d --reap --name %s -j %s", p.Sticky, name, name))
		}
	}
	for i, name := range names {
		if left := len(names) - i; left > 1 {
			out.nat.add(chain, "-m statistic --mode random --probability "+strconv.FormatFloat(1/float64(left), 'f', 10, 64)+" -j "+name)
		} else {
			out.nat.add(chain, "-j "+name)
		}
	}
	return chain
}

// endpoint fills the chain of one endpoint and answers its name.
func (r rules) endpoint(out ruleset, p *desired.Port, e desired.Endpoint) string {
	to := e.At.String()
	chain := "KUBE-SEP-" + hash(p.Name, p.Protocol, to)
	if _, done := out.nat[chain]; done {
		return chain
	}
	// A pod that reaches itself through its Service must not see its own address as the client's.
	out.nat.add(chain, "-s "+netip.PrefixFrom(e.At.Addr(), e.At.Addr().BitLen()).String()+" -j KUBE-MARK-MASQ")
	sticky := ""
	if p.Sticky > 0 {
		sticky = "-m recent --set --name " + chain + " "
	}
	out.nat.add(chain, sticky+"-p "+p.Protocol+" -m "+p.Protocol+" -j DNAT --to-destination "+to)
	return chain
}

// full writes what iptables-restore --noflush needs to hold the table and nothing else of ours, and to lead to it: found is what the kernel has from an
// earlier life, by table. It answers how many rules that is, without those that lead to ours.
func (r rules) full(ports func(func(*desired.Port) bool), found map[string]held) (string, tally) {
	all := newRuleset()
	for p := range ports {
		r.portRules(all, p)
	}
	fixed := r.fixed()
	for _, t := range []struct{ to, from chains }{{all.filter, fixed.filter}, {all.nat, fixed.nat}} {
		for chain, lines := range t.from {
			t.to[chain] = append(t.to[chain], lines...)
		}
	}
	var b strings.Builder
	for _, t := range []struct {
		name   string
		chains chains
	}{{"filter", all.filter}, {"nat", all.nat}} {
		e := edit{}
		e.put(t.chains)
		for _, j := range found[t.name].missing(t.name) {
			verb := "-A "
			if j.first {
				verb = "-I "
			}
			e.body.WriteString(verb + j.chain + " " + j.rule + "\n")
		}
		for _, rule := range found[t.name].strays(t.name) {
			e.body.WriteString("-D " + rule + "\n")
		}
		for _, chain := range found[t.name].chains {
			if _, stays := t.chains[chain]; !stays {
				e.drop(chain)
			}
		}
		e.write(&b, t.name)
	}
	return b.String(), count(all)
}

// tally is a number of rules by table.
type tally struct{ filter, nat int }

func (t tally) sum() int { return t.filter + t.nat }

func (t tally) plus(o tally) tally { return tally{t.filter + o.filter, t.nat + o.nat} }

func count(r ruleset) tally {
	of := func(c chains) (n int) {
		for _, lines := range c {
			n += len(lines)
		}
		return n
	}
	return tally{of(r.filter), of(r.nat)}
}

// partial writes what leads from the ports of before to those of after, touching no rule of any other Service; empty when nothing
// differs. It answers by how many rules the number grows.
func (r rules) partial(changes []desired.Change) (string, tally) {
	was, is := newRuleset(), newRuleset()
	for _, c := range changes {
		for p := range desired.Of(c.Before, r.v6) {
			r.portRules(was, p)
		}
		for p := range desired.Of(c.After, r.v6) {
			r.portRules(is, p)
		}
	}
	now, then := count(is), count(was)
	more := tally{now.filter - then.filter, now.nat - then.nat}
	var b strings.Builder
	for _, t := range []struct {
		name     string
		old, new chains
	}{{"filter", was.filter, is.filter}, {"nat", was.nat, is.nat}} {
		e := edit{}
		for _, chain := range shared {
			e.lines(chain, t.old[chain], t.new[chain])
			delete(t.old, chain)
			delete(t.new, chain)
		}
		own := chains{}
		for chain, lines := range t.new {
			if old, known := t.old[chain]; !known || !slices.Equal(old, lines) {
				own[chain] = lines
			}
		}
		e.put(own)
		for _, chain := range slices.Sorted(maps.Keys(t.old)) {
			if _, stays := t.new[chain]; !stays {
				e.drop(chain)
			}
		}
		e.write(&b, t.name)
	}
	return b.String(), more
}

// edit is one table's part of a restore: chains made or emptied, rules, chains deleted.
type edit struct{ head, body, tail strings.Builder }

// put writes whole chains.
func (e *edit) put(c chains) {
	for _, chain := range slices.Sorted(maps.Keys(c)) {
		say(&e.head, ":", chain, " - [0:0]\n")
		for _, rule := range c[chain] {
			say(&e.body, "-A ", chain, " ", rule, "\n")
		}
	}
}

// lines takes rules out of a shared chain and puts others at its start. Their order does not matter: each matches another address.
func (e *edit) lines(chain string, old, now []string) {
	stay := map[string]bool{}
	for _, rule := range now {
		stay[rule] = true
	}
	had := map[string]bool{}
	for _, rule := range old {
		had[rule] = true
		if !stay[rule] {
			e.body.WriteString("-D " + chain + " " + rule + "\n")
		}
	}
	for _, rule := range now {
		if !had[rule] {
			e.body.WriteString("-I " + chain + " " + rule + "\n")
		}
	}
}

// drop empties a chain and deletes it.
func (e *edit) drop(chain string) {
	e.head.WriteString(":" + chain + " - [0:0]\n")
	e.tail.WriteString("-X " + chain + "\n")
}

func (e *edit) write(b *strings.Builder, table string) {
	if size := e.head.Len() + e.body.Len(); size > 0 {
		b.Grow(size + e.tail.Len() + len(table) + len("*\nCOMMIT\n"))
		say(b, "*", table, "\n", e.head.String(), e.body.String(), e.tail.String(), "COMMIT\n")
	}
}

// say writes words one by one: a large table is tens of megabytes, which are not to be joined first.
func say(b *strings.Builder, words ...string) {
	for _, w := range words {
		b.WriteString(w)
	}
}

// Print answers a table's whole rules for both families, as iptables-restore takes them.
func Print(t *desired.Table) string {
	var b strings.Builder
	for _, v6 := range []bool{false, true} {
		text, _ := rules{Policy: t.Policy, v6: v6}.full(t.All(v6), nil)
		if v6 {
			b.WriteString("# IPv6\n")
		}
		b.WriteString(text)
	}
	return b.String()
}
