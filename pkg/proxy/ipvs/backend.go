package ipvs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/nftables"
)

const (
	// device holds the Services' addresses; the name is upstream's.
	device = "kube-ipvs0"
	// persistent is IPVS's flag of a service whose clients stay.
	persistent = 1
	// patience is how long a real server that must go may keep its connections.
	patience = 15 * time.Minute
)

var protocols = map[string]uint16{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// Config is what the mode's flags say.
type Config struct {
	Scheduler            string         // of new connections; rr when empty
	Exclude              []netip.Prefix // virtual servers there are somebody else's
	StrictARP            bool           // answer no ARP for the Services' addresses
	TCP, TCPFin, UDPIdle time.Duration  // timeouts; 0 leaves the kernel's
}

// Backend writes virtual servers of both families. Not safe for concurrent use.
type Backend struct {
	config  Config
	handle  *ipvs.Handle
	servers *line
	routes  *line  // of addresses
	number  uint16 // of the family of messages to IPVS
	beside  *nftables.Backend
	fresh   bool // the kernel holds held
	policy  desired.Policy
	node    []netip.Addr
	held    map[front]server
	bound   map[netip.Addr]int // by how many Services
	leaving map[front]map[netip.AddrPort]time.Time
}

// New finds IPVS in the kernel, and says so where it is missing.
func New(c Config) (*Backend, error) {
	family, err := netlink.GenlFamilyGet("IPVS")
	if err != nil {
		// The module may be there, and not loaded; where it is not, the next question says so.
		_ = exec.Command("modprobe", "ip_vs").Run()
		if family, err = netlink.GenlFamilyGet("IPVS"); err != nil {
			return nil, fmt.Errorf("--proxy-mode ipvs: this kernel has no IPVS (%w): load the module ip_vs, or use --proxy-mode=nftables", err)
		}
	}
	handle, err := ipvs.New("")
	if err != nil {
		return nil, fmt.Errorf("open IPVS: %w", err)
	}
	servers, err := open(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	routes, err := open(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	beside, err := nftables.NewBeside()
	if err != nil {
		return nil, err
	}
	if c.Scheduler == "" {
		c.Scheduler = "rr"
	}
	return &Backend{config: c, handle: handle, servers: servers, routes: routes, number: family.ID, beside: beside}, nil
}

// Sync makes the kernel hold the table, of which the changes are what differs from the last Sync. Virtual servers are counted as a table of that
// name. After an error the next Sync compares everything.
func (b *Backend) Sync(ctx context.Context, t *desired.Table, changes []desired.Change) (desired.Written, error) {
	out, err := b.beside.Sync(ctx, t, changes)
	if err != nil {
		return out, err
	}
	if !b.policy.Equal(t.Policy) {
		b.policy, b.fresh = t.Policy, false
	}
	if b.fresh {
		err = b.partial(changes)
	}
	if !b.fresh || err != nil {
		err = b.full(t)
	}
	b.fresh = err == nil
	for f := range b.held {
		out.Held[desired.Place{V6: f.at.Addr().Is6(), Table: "ipvs"}]++
	}
	return out, err
}

// of answers the virtual servers of ports of both families.
func (b *Backend) of(each func(v6 bool) iter.Seq[*desired.Port]) plan {
	p := decide(each(false), b.node)
	maps.Copy(p, decide(each(true), b.node))
	return p
}

func (b *Backend) partial(changes []desired.Change) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	count := map[netip.Addr]int{} // by how many Services more
	for _, c := range changes {
		for a := range bound(c.Before) {
			count[a]--
		}
		for a := range bound(c.After) {
			count[a]++
		}
	}
	var unbound []netip.Addr
	for a, n := range count {
		was := b.bound[a]
		switch b.bound[a] += n; {
		case was == 0 && n > 0:
			if err := b.bind(link, a); err != nil {
				return err
			}
		case was > 0 && was+n <= 0:
			unbound = append(unbound, a)
		}
		if b.bound[a] <= 0 {
			delete(b.bound, a)
		}
	}
	if err := b.routes.flush(); err != nil {
		return err
	}
	for _, c := range changes {
		was := b.of(func(v6 bool) iter.Seq[*desired.Port] { return desired.Of(c.Before, v6) })
		is := b.of(func(v6 bool) iter.Seq[*desired.Port] { return desired.Of(c.After, v6) })
		for f, s := range is {
			if err := b.put(f, b.held[f], s); err != nil {
				return err
			}
			b.held[f] = s
		}
		for f := range was {
			if _, stays := is[f]; !stays {
				if err := b.drop(f); err != nil {
					return err
				}
			}
		}
	}
	if err := b.servers.flush(); err != nil {
		return err
	}
	for _, a := range unbound {
		if err := b.unbind(link, a); err != nil {
			return err
		}
	}
	return b.routes.flush()
}

// full compares everything that the kernel has with the table.
func (b *Backend) full(t *desired.Table) error {
	b.servers.forget()
	b.routes.forget()
	link, err := b.raise()
	if err != nil {
		return err
	}
	if b.node, err = b.addresses(t.Policy); err != nil {
		return err
	}
	want := b.of(t.All)
	b.bound = map[netip.Addr]int{}
	for ports := range t.Each() {
		for a := range bound(ports) {
			b.bound[a]++
		}
	}
	if err := b.bindOnly(link); err != nil {
		return err
	}
	if err := b.read(); err != nil {
		return err
	}
	for f := range b.held {
		if _, stays := want[f]; !stays {
			if err := b.drop(f); err != nil {
				return err
			}
		}
	}
	for f, s := range want {
		if err := b.put(f, b.held[f], s); err != nil {
			return err
		}
		b.held[f] = s
	}
	return b.servers.flush()
}

// read learns which virtual servers the kernel has, but those of others.
func (b *Backend) read() error {
	b.held, b.leaving = map[front]server{}, map[front]map[netip.AddrPort]time.Time{}
	services, err := b.handle.GetServices()
	if err != nil {
		return fmt.Errorf("list virtual servers: %w", err)
	}
	for _, s := range services {
		ip, _ := netip.AddrFromSlice(s.Address)
		f := front{at: netip.AddrPortFrom(ip.Unmap(), s.Port)}
		for name, number := range protocols {
			if number == s.Protocol {
				f.protocol = name
			}
		}
		if f.protocol == "" || slices.ContainsFunc(b.config.Exclude, func(p netip.Prefix) bool { return p.Contains(f.at.Addr()) }) {
			continue
		}
		real, err := b.handle.GetDestinations(s)
		if err != nil {
			return fmt.Errorf("list real servers of %v: %w", f.at, err)
		}
		held := server{}
		if s.Flags&persistent != 0 {
			held.sticky = int32(s.Timeout)
		}
		for _, d := range real {
			ip, _ := netip.AddrFromSlice(d.Address)
			at := netip.AddrPortFrom(ip.Unmap(), d.Port)
			if d.Weight == 0 {
				b.leave(f, at)
				continue
			}
			held.real = append(held.real, at)
		}
		b.held[f] = held
	}
	return nil
}

func (b *Backend) leave(f front, at netip.AddrPort) {
	if b.leaving[f] == nil {
		b.leaving[f] = map[netip.AddrPort]time.Time{}
	}
	b.leaving[f][at] = time.Now()
}

// raise makes the device that holds the addresses, and sets IPVS up. Where the kernel has no dummy device, a bridge stands in.
func (b *Backend) raise() (netlink.Link, error) {
	link, err := netlink.LinkByName(device)
	if err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = device
		if err = netlink.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}); errors.Is(err, unix.EOPNOTSUPP) {
			err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
		}
		if err != nil {
			return nil, fmt.Errorf("make the interface %s: %w", device, err)
		}
		if link, err = netlink.LinkByName(device); err != nil {
			return nil, fmt.Errorf("find %s: %w", device, err)
		}
	}
	settings := map[string]string{"vs/conntrack": "1", "vs/conn_reuse_mode": "0", "vs/expire_nodest_conn": "1", "vs/expire_quiescent_template": "1"}
	if b.config.StrictARP {
		settings["conf/all/arp_ignore"], settings["conf/all/arp_announce"] = "1", "2"
	}
	for name, value := range settings {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	if c := b.config; c.TCP+c.TCPFin+c.UDPIdle > 0 {
		if err := b.handle.SetConfig(&ipvs.Config{TimeoutTCP: c.TCP, TimeoutTCPFin: c.TCPFin, TimeoutUDP: c.UDPIdle}); err != nil {
			return nil, fmt.Errorf("set IPVS's timeouts: %w", err)
		}
	}
	return link, nil
}

// addresses are this node's that answer node ports.
func (b *Backend) addresses(p desired.Policy) ([]netip.Addr, error) {
	var own int
	if link, err := netlink.LinkByName(device); err == nil {
		own = link.Attrs().Index
	}
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range list {
		ip, _ := netip.AddrFromSlice(a.IP)
		ip = ip.Unmap()
		if a.LinkIndex == own || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		if p.NodePortsAll || slices.ContainsFunc(p.NodePortsOn, func(on netip.Prefix) bool { return on.Contains(ip) }) {
			out = append(out, ip)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// Check lets real servers go whose connections have ended, and says whether the kernel still holds what was written.
func (b *Backend) Check(ctx context.Context) bool {
	whole := b.beside.Check(ctx) && b.fresh
	node, err := b.addresses(b.policy)
	whole = whole && err == nil && slices.Equal(node, b.node)
	services, err := b.handle.GetServices()
	if err != nil {
		b.fresh = false
		return false
	}
	found := map[front]bool{}
	for _, s := range services {
		ip, _ := netip.AddrFromSlice(s.Address)
		for name, number := range protocols {
			if number == s.Protocol {
				found[front{name, netip.AddrPortFrom(ip.Unmap(), s.Port)}] = true
			}
		}
	}
	for f := range b.held {
		whole = whole && found[f]
	}
	for f, gone := range b.leaving {
		if len(gone) > 0 {
			b.release(f, gone)
		}
	}
	b.fresh = whole
	return whole
}

// release takes out the real servers that were drained.
func (b *Backend) release(f front, gone map[netip.AddrPort]time.Time) {
	s := name(f)
	real, err := b.handle.GetDestinations(s)
	if err != nil {
		return
	}
	for _, d := range real {
		ip, _ := netip.AddrFromSlice(d.Address)
		at := netip.AddrPortFrom(ip.Unmap(), d.Port)
		since, leaves := gone[at]
		if leaves && (d.ActiveConnections == 0 || time.Since(since) > patience) && b.handle.DelDestination(s, d) == nil {
			delete(gone, at)
		}
	}
}

// Cleanup removes the virtual servers at addresses of the device, those of node ports, the device, and the rules beside.
func (b *Backend) Cleanup(ctx context.Context) error {
	errs := []error{b.beside.Cleanup(ctx)}
	b.fresh = false
	link, err := netlink.LinkByName(device)
	if err != nil {
		// Without the device nothing here is ours: another balancer may have virtual servers.
		return errors.Join(errs...)
	}
	if err := b.read(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	b.servers.forget()
	for f := range b.held {
		errs = append(errs, b.drop(f))
	}
	b.routes.forget()
	b.bound = map[netip.Addr]int{}
	errs = append(errs, b.servers.flush(), b.bindOnly(link))
	if err := netlink.LinkDel(link); err != nil {
		errs = append(errs, fmt.Errorf("remove %s: %w", device, err))
	}
	return errors.Join(errs...)
}
