package iptables

import (
	"context"
	"slices"
	"strings"
)

// held is what one table of the kernel has of ours, or of another proxy of the same names.
type held struct {
	chains []string // per service port and endpoint, and another's that are not among the fixed ones
	leads  []string // rules of others' chains that lead to one of ours: chain and rule, as the tool lists them
	rules  int      // in our chains
}

// foreign are chains of upstream's proxy, by table, of its modes iptables and ipvs, that ours have no use for.
var foreign = map[string][]string{
	"filter": {"KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL", "KUBE-PROXY-CANARY", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-NODE-PORT", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER"},
	"nat":    {"KUBE-PROXY-CANARY", "KUBE-LOAD-BALANCER", "KUBE-NODE-PORT"},
}

// look reads a table once: the kernel gives it only whole, so that each question of its own costs as much.
func (k *kernel) look(ctx context.Context, table string) (held, error) {
	out, err := run(ctx, "", k.save, "-t", table)
	if err != nil {
		return held{}, err
	}
	return parse(table, out), nil
}

// parse reads what the tool lists of a table.
func parse(table, list string) (h held) {
	fixed := rules{}.fixed()
	own := map[string]chains{"filter": fixed.filter, "nat": fixed.nat}[table]
	for line := range strings.Lines(list) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, ":"); ok {
			name, _, _ = strings.Cut(name, " ")
			if slices.Contains(foreign[table], name) || perService(name) {
				h.chains = append(h.chains, name)
			}
			continue
		}
		rule, ok := strings.CutPrefix(line, "-A ")
		if !ok {
			continue
		}
		chain, _, _ := strings.Cut(rule, " ")
		if _, ours := own[chain]; ours || perService(chain) {
			h.rules++
			continue
		}
		to := target(rule)
		if _, ours := own[to]; ours || slices.Contains(foreign[table], to) {
			h.leads = append(h.leads, rule)
		}
	}
	return h
}

// target is the chain that a rule leads to, without options of it.
func target(rule string) string {
	words := strings.Fields(rule)
	if at := slices.Index(words, "-j"); at >= 0 && at+1 < len(words) {
		return words[at+1]
	}
	return ""
}

func perService(chain string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(chain, p) })
}

// missing answers which of our jumps a table lacks, in the order in which they are to be written.
func (h held) missing(table string) (out []jump) {
	for _, j := range jumps {
		if j.table == table && !slices.Contains(h.leads, j.chain+" "+j.rule) {
			out = append(out, j)
		}
	}
	return out
}

// strays answers the rules by which others lead to chains that we do not make.
func (h held) strays(table string) (out []string) {
	for _, rule := range h.leads {
		if slices.Contains(foreign[table], target(rule)) {
			out = append(out, rule)
		}
	}
	return out
}
