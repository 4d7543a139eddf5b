package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// tables are those that have chains of ours.
var tables = []string{"filter", "nat"}

// Backend writes rules of both families through iptables-restore. Not safe for concurrent use.
type Backend struct {
	families []*kernel
	policy   desired.Policy
}

// kernel is one family's tables.
type kernel struct {
	v6                     bool
	command, restore, save string
	fresh                  bool // the kernel holds what the last Sync was given
	rules, last            tally
}

// New finds the tools. The legacy variant is preferred where it is installed: it loads large tables in a fraction of the time.
// IPv6 is served where its tools work.
func New() (*Backend, error) { return open("-legacy", "") }

// NewOther finds the tools of the variant that New does not choose, so that what another proxy wrote with it can be removed. It fails where there is only one.
func NewOther() (*Backend, error) {
	if _, err := exec.LookPath("iptables-legacy"); err != nil {
		return nil, err
	}
	return open("-nft")
}

func open(variants ...string) (*Backend, error) {
	b := &Backend{}
	for _, v6 := range []bool{false, true} {
		k, err := find(v6, variants)
		if err != nil {
			if v6 {
				slog.Info("no rules for IPv6", "reason", err)
				break
			}
			return nil, err
		}
		b.families = append(b.families, k)
	}
	return b, nil
}

func find(v6 bool, variants []string) (*kernel, error) {
	plain := "iptables"
	if v6 {
		plain = "ip6tables"
	}
	err := errors.New(plain + " is not installed; install the package iptables")
	for _, variant := range variants {
		name := plain + variant
		k := &kernel{v6: v6, command: name, restore: name + "-restore", save: name + "-save"}
		if slices.ContainsFunc([]string{k.command, k.restore, k.save}, func(tool string) bool { _, err := exec.LookPath(tool); return err != nil }) {
			continue
		}
		if _, err = run(context.Background(), "", k.command, "-w", "5", "-t", "nat", "-S", "POSTROUTING"); err == nil {
			return k, nil
		}
	}
	return nil, err
}

// run runs a tool, which dies with this process: one that wrote after its proxy was killed would overwrite what the next proxy wrote. The kernel
// watches the thread that started it.
func run(ctx context.Context, input string, command string, args ...string) (string, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdin = strings.NewReader(input)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}

// Sync makes the kernel hold the table, of which the changes are what differs from the last Sync. After an error the next Sync writes everything.
func (b *Backend) Sync(ctx context.Context, t *desired.Table, changes []desired.Change) (desired.Written, error) {
	if !b.policy.Equal(t.Policy) {
		b.policy = t.Policy
		for _, k := range b.families {
			k.fresh = false
		}
	}
	out := desired.Written{Held: map[desired.Place]int{}, Last: map[desired.Place]int{}}
	var errs []error
	for _, k := range b.families {
		k.last = tally{}
		mended, err := k.sync(ctx, t, changes)
		errs = append(errs, err)
		if mended {
			out.Mended[desired.Family(k.v6)]++
		}
		filter, nat := desired.Place{V6: k.v6, Table: "filter"}, desired.Place{V6: k.v6, Table: "nat"}
		out.Held[filter], out.Held[nat] = k.rules.filter, k.rules.nat
		out.Last[filter], out.Last[nat] = k.last.filter, k.last.nat
	}
	return out, errors.Join(errs...)
}

// sync answers whether a write of the changes failed, and all was written instead.
func (k *kernel) sync(ctx context.Context, t *desired.Table, changes []desired.Change) (mended bool, err error) {
	r := rules{Policy: t.Policy, v6: k.v6}
	if k.fresh {
		text, more := r.partial(changes)
		if text == "" {
			return false, nil
		}
		if err := k.write(ctx, text); err == nil {
			k.rules = k.rules.plus(more)
			k.last = written(text)
			return false, nil
		} else if ctx.Err() != nil {
			k.fresh = false
			return false, err
		}
		// Somebody changed our chains: write them all.
		k.fresh, mended = false, true
	}
	found := map[string]held{}
	for _, table := range tables {
		if found[table], err = k.look(ctx, table); err != nil {
			return mended, err
		}
	}
	text, n := r.full(t.All(k.v6), found)
	if err := k.write(ctx, text); err != nil {
		return mended, err
	}
	k.fresh, k.rules, k.last = true, n, n
	return mended, nil
}

// written counts the rules of what iptables-restore was given.
func written(text string) (n tally) {
	filter, nat, _ := strings.Cut(text, "*nat\n")
	if strings.HasPrefix(text, "*nat\n") {
		filter, nat = "", text
	}
	of := func(text string) int { return strings.Count(text, "\n-A ") + strings.Count(text, "\n-I ") }
	return tally{of(filter), of("\n" + nat)}
}

func (k *kernel) write(ctx context.Context, text string) error {
	_, err := run(ctx, text, k.restore, "-w", "5", "--noflush")
	return err
}

// Dropped answers how many packets outside of their connection's window were not forwarded since the rule for it was written. It may be called from any goroutine.
func (b *Backend) Dropped(ctx context.Context) (n uint64) {
	for _, k := range b.families {
		out, err := run(ctx, "", k.command, "-w", "1", "-t", "filter", "-nvxL", "KUBE-FORWARD")
		if err != nil {
			continue // before the first write
		}
		n += drops(out)
	}
	return n
}

// drops adds up the packets of the rules that drop, as the tool lists them.
func drops(list string) (n uint64) {
	for line := range strings.Lines(list) {
		if words := strings.Fields(line); len(words) > 2 && words[2] == "DROP" {
			if packets, err := strconv.ParseUint(words[0], 10, 64); err == nil {
				n += packets
			}
		}
	}
	return n
}

// Check says whether the kernel still leads to our chains, and holds as many rules as were written. If not, the next Sync writes all again.
func (b *Backend) Check(ctx context.Context) bool {
	whole := true
	for _, k := range b.families {
		k.fresh = k.fresh && k.whole(ctx)
		whole = whole && k.fresh
	}
	return whole
}

func (k *kernel) whole(ctx context.Context) bool {
	n := 0
	for _, table := range tables {
		h, err := k.look(ctx, table)
		if err != nil || len(h.missing(table)) > 0 {
			return false
		}
		n += h.rules
	}
	return n == k.rules.sum()
}

// Cleanup removes everything of ours.
func (b *Backend) Cleanup(ctx context.Context) error {
	var errs []error
	for _, k := range b.families {
		errs = append(errs, k.cleanup(ctx))
	}
	return errors.Join(errs...)
}

func (k *kernel) cleanup(ctx context.Context) error {
	k.fresh = false
	var b strings.Builder
	fixed := rules{v6: k.v6}.fixed()
	for name, fixed := range map[string]chains{"filter": fixed.filter, "nat": fixed.nat} {
		h, err := k.look(ctx, name)
		if err != nil {
			return err
		}
		if len(h.chains)+len(h.leads)+h.rules == 0 {
			continue
		}
		e := edit{}
		for name := range fixed {
			e.drop(name)
		}
		for _, rule := range h.leads {
			e.body.WriteString("-D " + rule + "\n")
		}
		for _, name := range h.chains {
			e.drop(name)
		}
		e.write(&b, name)
	}
	if b.Len() == 0 {
		return nil
	}
	return k.write(ctx, b.String())
}
