package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// Backend writes rules through iptables-restore. Not safe for concurrent use.
type Backend struct {
	Config Config

	command, restore, save string
	written                ruleset
	fresh                  bool // written is what the kernel holds
}

// New finds the tools. The legacy variant is preferred where it is installed: it loads large tables in a fraction of the time.
func New(c Config) (*Backend, error) {
	for _, name := range []string{"iptables-legacy", "iptables"} {
		b := &Backend{Config: c, command: name, restore: name + "-restore", save: name + "-save"}
		found := true
		for _, tool := range []string{b.command, b.restore, b.save} {
			if _, err := exec.LookPath(tool); err != nil {
				found = false
			}
		}
		if !found {
			continue
		}
		if _, err := b.run(context.Background(), "", b.command, "-w", "5", "-t", "nat", "-S", "POSTROUTING"); err != nil {
			if name == "iptables" {
				return nil, err
			}
			continue
		}
		return b, nil
	}
	return nil, errors.New("iptables is not installed, or the kernel has no nat table; install the package iptables")
}

func (b *Backend) run(ctx context.Context, input string, command string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Stdin = strings.NewReader(input)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}

// Sync makes the kernel hold the table. It answers the number of rules.
func (b *Backend) Sync(ctx context.Context, t desired.Table) (int, error) {
	want := decide(t, b.Config)
	from, strays := b.written, map[string][]string{}
	if !b.fresh {
		from = ruleset{}
		for _, table := range []string{"filter", "nat"} {
			found, err := b.ours(ctx, table)
			if err != nil {
				return 0, err
			}
			strays[table] = found
		}
	}
	if text := restore(from, want, strays); text != "" {
		if _, err := b.run(ctx, text, b.restore, "-w", "5", "--noflush"); err != nil {
			b.fresh = false
			return 0, err
		}
	}
	if !b.fresh {
		if err := b.connect(ctx); err != nil {
			return 0, err
		}
	}
	b.written, b.fresh = want, true
	rules := 0
	for _, table := range []chains{want.filter, want.nat} {
		for _, lines := range table {
			rules += len(lines)
		}
	}
	return rules, nil
}

// ours lists the chains per service port and endpoint that the kernel has.
func (b *Backend) ours(ctx context.Context, table string) ([]string, error) {
	out, err := b.run(ctx, "", b.save, "-t", table)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, ":"); ok {
			name, _, _ = strings.Cut(name, " ")
			if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// connect makes the built-in chains lead to ours.
func (b *Backend) connect(ctx context.Context) error {
	for _, j := range jumps {
		if b.has(ctx, j) {
			continue
		}
		verb := "-A"
		if j.first {
			verb = "-I"
		}
		if _, err := b.run(ctx, "", b.command, append([]string{"-w", "5", "-t", j.table, verb, j.chain}, j.args...)...); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) has(ctx context.Context, j jump) bool {
	_, err := b.run(ctx, "", b.command, append([]string{"-w", "5", "-t", j.table, "-C", j.chain}, j.args...)...)
	return err == nil
}

// Check says whether the kernel still leads to our chains. If somebody flushed them, the next Sync writes all again.
func (b *Backend) Check(ctx context.Context) bool {
	b.fresh = b.fresh && !slices.ContainsFunc(jumps, func(j jump) bool { return !b.has(ctx, j) })
	return b.fresh
}

// Cleanup removes everything of ours.
func (b *Backend) Cleanup(ctx context.Context) error {
	for _, j := range jumps {
		for b.has(ctx, j) {
			if _, err := b.run(ctx, "", b.command, append([]string{"-w", "5", "-t", j.table, "-D", j.chain}, j.args...)...); err != nil {
				return err
			}
		}
	}
	empty := decide(desired.Table{}, b.Config)
	strays := map[string][]string{}
	for table, fixed := range map[string]chains{"filter": empty.filter, "nat": empty.nat} {
		found, err := b.ours(ctx, table)
		if err != nil {
			return err
		}
		for name := range fixed {
			found = append(found, name)
		}
		strays[table] = found
	}
	b.written, b.fresh = ruleset{}, false
	_, err := b.run(ctx, restore(ruleset{}, ruleset{}, strays), b.restore, "-w", "5", "--noflush")
	return err
}
