package nftables

import (
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// dynsetDelete takes an element out; x/sys does not name it.
const dynsetDelete = 2

// pick hands traffic to the endpoint of a random place, and where clients are to stay to the one they had.
//
// In the words of nft a random number is of no type that a map can be declared with, and nothing looks up what another map answered: nft stops when
// it lists that. So numbers go through the packet's priority. These rules meet only a connection's first packet, and of what it forwards the kernel
// sets the priority anew.
func (l layout) pick(d dispatch, of int, from uint32) []rule {
	key, named := l.target(), func(set string) string { return set }
	if d.node {
		key, named = l.protoAt(), func(set string) string { return "nodeport-" + set }
	}
	client := key - l.words()
	family := uint32(unix.NFPROTO_IPV4)
	if l.v6 {
		family = unix.NFPROTO_IPV6
	}
	numbered := l.frontText(d.node) + " . meta priority"
	theirs := l.ip() + " saddr . " + l.frontText(d.node)
	load := piece{exprs: append([]expr.Any{l.load(true, client)}, l.front(d.node).exprs...)}
	find := func(from uint32, set string) expr.Any {
		return &expr.Lookup{SourceRegister: from, DestRegister: l.found(), IsDestRegSet: true, SetName: named(set)}
	}
	carry := []expr.Any{&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: l.found(), SourceRegister: true}, &expr.Meta{Key: expr.MetaKeyPRIORITY, Register: l.found()}}
	random := func(of int) piece {
		return piece{fmt.Sprintf("meta priority set numgen random mod %d offset %d", of, from),
			append([]expr.Any{&expr.Numgen{Register: l.found(), Modulus: uint32(of), Type: unix.NFT_NG_RANDOM, Offset: from}}, carry...)}
	}
	dnat := func(set string) piece {
		return piece{"dnat to " + numbered + " map @" + named(set), []expr.Any{find(key, set),
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: l.found(), RegProtoMin: l.found() + l.words(), Specified: true}}}
	}
	// A packet may come here just before a transaction, and find the last places gone just after it: the first one stays.
	spread := []int{of, 1}
	var out []rule
	if d.sticky == 0 {
		for _, of := range spread {
			out = append(out, join(load, random(of), dnat("endpoints")))
		}
		return out
	}
	lead := func(key uint32, words, set string) piece {
		return piece{"meta priority set " + words + " map @" + named(set), append([]expr.Any{find(key, set)}, carry...)}
	}
	living := piece{numbered + " @" + named("living"), []expr.Any{lookup(key, named("living"), false)}}
	affinity := func(op uint32, word string, timeout time.Duration) piece {
		return piece{fmt.Sprintf("%s @%s { %s%s : meta priority }", word, named("affinity"), theirs, lasting(timeout)), []expr.Any{
			&expr.Dynset{SrcRegKey: client, SrcRegData: l.found(), SetName: named("affinity"), Operation: op, Timeout: timeout}}}
	}
	// An update keeps what an element leads to: one that leads to an endpoint that has gone is taken out first.
	forget, remember := affinity(dynsetDelete, "delete", 0), affinity(unix.NFT_DYNSET_OP_UPDATE, "update", durationSeconds(d.sticky))
	out = append(out, join(load, lead(client, theirs, "affinity"), living, remember, dnat("alive")))
	for _, of := range spread {
		out = append(out, join(load, random(of), lead(key, numbered, "places"), forget, remember, dnat("alive")))
	}
	return out
}

func lasting(timeout time.Duration) string {
	if timeout == 0 {
		return ""
	}
	return fmt.Sprintf(" timeout %ds", timeout/time.Second)
}
