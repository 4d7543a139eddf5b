package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// flow is what the kernel remembers of a connection, or of what goes to and fro over UDP.
type flow struct {
	protocol   uint8
	to, end    netip.AddrPort // where the client sends, and who answers
	connecting bool           // of TCP: not both ends have spoken
}

// Attributes of the kernel's flows, as <linux/netfilter/nfnetlink_conntrack.h> numbers them.
const (
	ctForward, ctReverse, ctStatus, ctID, ctZone, ctFilter, ctStatusMask = 1, 2, 3, 12, 18, 25, 26
	ctIP, ctProto                                                        = 1, 2
	ctProtoNumber, ctSourcePort, ctTargetPort                            = 1, 2, 3
	ctSource4, ctTarget4, ctSource6, ctTarget6                           = 1, 2, 3, 4
	ctFilterForward                                                      = 1
	byProtoNumber                                                        = 1 << 3
	statusAssured, statusLedElsewhere                                    = 1 << 2, 1 << 5
	// together is how many flows are deleted with one message.
	together = 200
)

// forget deletes a protocol's flows that match, in those families, and answers how many there were.
//
// A busy node has hundreds of thousands of flows, most of them of TCP and long over. The kernel leaves out what is not asked for: of TCP, all but those that still
// connect and were led nowhere. A kernel before 5.8 answers all. A flow is asked for again just before it is deleted: listing takes its time.
func forget(protocol uint8, families [2]bool, matches func(flow) bool) (uint, error) {
	var total uint
	var errs []error
	for f, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if !families[f] {
			continue
		}
		var gone []listed
		err := list(protocol, family, func(f flow, raw []byte) {
			if f.protocol == protocol && matches(f) {
				gone = append(gone, listed{f, raw})
			}
		})
		n := uint(0)
		if err == nil && len(gone) > 0 {
			n, err = deleteFlows(family, gone, matches)
		}
		total += n
		if err != nil {
			errs = append(errs, fmt.Errorf("delete stale flows: %w", err))
		}
	}
	return total, errors.Join(errs...)
}

// listed is a flow as the kernel wrote it.
type listed struct {
	flow
	raw []byte
}

// list yields the flows of a protocol and family.
func list(protocol, family uint8, yield func(flow, []byte)) error {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	nest := func(kind int) *nl.RtAttr { return nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil) }
	like, filter := nest(ctForward), nest(ctFilter)
	proto := nest(ctProto)
	proto.AddRtAttr(ctProtoNumber, []byte{protocol})
	like.AddChild(proto)
	filter.AddRtAttr(ctFilterForward, binary.NativeEndian.AppendUint32(nil, byProtoNumber))
	r.AddData(like)
	if protocol == unix.IPPROTO_TCP {
		r.AddData(nl.NewRtAttr(ctStatus, binary.BigEndian.AppendUint32(nil, 0)))
		r.AddData(nl.NewRtAttr(ctStatusMask, binary.BigEndian.AppendUint32(nil, statusAssured|statusLedElsewhere)))
	}
	r.AddData(filter)
	return r.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(raw []byte) bool {
		if len(raw) > nl.SizeofNfgenmsg {
			raw = raw[nl.SizeofNfgenmsg:]
			yield(readFlow(raw), raw)
		}
		return true
	})
}

// attributes yields those of a message, or within another.
func attributes(raw []byte, yield func(kind uint16, value []byte)) {
	for len(raw) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(raw))
		if size < unix.SizeofRtAttr || size > len(raw) {
			return
		}
		yield(binary.NativeEndian.Uint16(raw[2:])&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), raw[unix.SizeofRtAttr:size])
		raw = raw[min(len(raw), (size+3)&^3):]
	}
}

func readFlow(raw []byte) (f flow) {
	attributes(raw, func(kind uint16, value []byte) {
		switch kind {
		case ctForward:
			_, f.to, f.protocol = ends(value)
		case ctReverse:
			f.end, _, _ = ends(value)
		case ctStatus:
			f.connecting = len(value) == 4 && f.protocol == unix.IPPROTO_TCP && binary.BigEndian.Uint32(value)&statusAssured == 0
		}
	})
	return f
}

// ends reads one direction of a flow.
func ends(raw []byte) (from, to netip.AddrPort, protocol uint8) {
	var source, target netip.Addr
	var ports [2]uint16
	attributes(raw, func(kind uint16, value []byte) {
		attributes(value, func(inner uint16, value []byte) {
			switch {
			case kind == ctIP && (inner == ctSource4 || inner == ctSource6):
				source, _ = netip.AddrFromSlice(value) // an address that is none matches nothing
			case kind == ctIP && (inner == ctTarget4 || inner == ctTarget6):
				target, _ = netip.AddrFromSlice(value)
			case kind == ctProto && inner == ctProtoNumber && len(value) == 1:
				protocol = value[0]
			case kind == ctProto && (inner == ctSourcePort || inner == ctTargetPort) && len(value) == 2:
				ports[inner-ctSourcePort] = binary.BigEndian.Uint16(value)
			}
		})
	})
	return netip.AddrPortFrom(source, ports[0]), netip.AddrPortFrom(target, ports[1]), protocol
}

// deleteFlows deletes flows, many in a message. Each is named by its number, too: a client that calls again meanwhile has another one.
func deleteFlows(family uint8, gone []listed, matches func(flow) bool) (n uint, err error) {
	conn, err := mdlayher.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("open netlink: %w", err)
	}
	defer conn.Close() //nolint:errcheck // all is answered
	for part := range slices.Chunk(gone, together) {
		var ask []mdlayher.Message
		for _, l := range part {
			if !matches(l.flow) {
				continue
			}
			body := []byte{family, nl.NFNETLINK_V0, 0, 0}
			attributes(l.raw, func(kind uint16, value []byte) {
				if kind == ctForward {
					kind |= unix.NLA_F_NESTED
				} else if kind != ctID && kind != ctZone {
					return
				}
				body = binary.NativeEndian.AppendUint16(body, uint16(unix.SizeofRtAttr+len(value)))
				body = append(binary.NativeEndian.AppendUint16(body, kind), value...)
				body = append(body, make([]byte, -len(body)&3)...)
			})
			ask = append(ask, mdlayher.Message{Header: mdlayher.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | nl.IPCTNL_MSG_CT_DELETE,
				Flags: mdlayher.Request | mdlayher.Acknowledge}, Data: body})
		}
		if len(ask) == 0 {
			continue
		}
		if _, err := conn.SendMessages(ask); err != nil {
			return n, err
		}
		var failed error
		for range ask {
			switch _, err := conn.Receive(); {
			case err == nil:
				n++
			case errors.Is(err, fs.ErrNotExist): // it ended by itself
			default:
				failed = err
			}
		}
		if failed != nil {
			return n, failed
		}
	}
	return n, nil
}
