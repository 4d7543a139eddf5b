package ipvs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// full is how many bytes of requests are sent together; the kernel's usual socket buffer holds several times as many.
const full = 48 << 10

// request is what a queued request is about, for when it fails.
type request struct {
	doing string
	of    netip.AddrPort // the virtual server, or the address alone
	at    netip.AddrPort // the real server, if any
	fine  unix.Errno     // an answer that is no failure
}

// line sends requests of one netlink protocol, many in one message: the kernel carries them out in turn before the send returns, and
// answers those that failed, and the last. For one goroutine.
type line struct {
	fd     int
	seq    uint32
	first  uint32 // of the requests queued
	buf    []byte
	asked  []request
	at     int // where the request being written starts
	answer [64 << 10]byte
}

func open(protocol int) (*line, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		// An answer comes before the send returns; one that does not come at all is an error, not a proxy that stands still.
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1))
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set up netlink: %w", err)
	}
	return &line{fd: fd}, nil
}

func native16(v uint16) []byte { return binary.NativeEndian.AppendUint16(nil, v) }
func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// begin starts a request of a kind; its body follows, then end.
func (l *line) begin(kind, flags uint16, r request) {
	l.seq++
	if len(l.asked) == 0 {
		l.first = l.seq
	}
	l.asked = append(l.asked, r)
	l.at = len(l.buf)
	l.buf = binary.NativeEndian.AppendUint32(l.buf, 0)
	l.buf = binary.NativeEndian.AppendUint16(l.buf, kind)
	l.buf = binary.NativeEndian.AppendUint16(l.buf, unix.NLM_F_REQUEST|flags)
	l.buf = binary.NativeEndian.AppendUint32(l.buf, l.seq)
	l.buf = binary.NativeEndian.AppendUint32(l.buf, 0)
}

func (l *line) raw(bytes ...byte) { l.buf = append(l.buf, bytes...) }

func (l *line) attr(kind uint16, value []byte) {
	at := l.nest(kind)
	l.buf = append(l.buf, value...)
	l.close(at)
}

// nest starts an attribute that holds others, until close.
func (l *line) nest(kind uint16) int {
	at := len(l.buf)
	l.buf = binary.NativeEndian.AppendUint16(l.buf, 0)
	l.buf = binary.NativeEndian.AppendUint16(l.buf, kind)
	return at
}

func (l *line) close(at int) {
	binary.NativeEndian.PutUint16(l.buf[at:], uint16(len(l.buf)-at))
	for len(l.buf)%4 != 0 {
		l.buf = append(l.buf, 0)
	}
}

// end finishes a request, and sends what is queued when that is much.
func (l *line) end() error {
	binary.NativeEndian.PutUint32(l.buf[l.at:], uint32(len(l.buf)-l.at))
	if len(l.buf) < full {
		return nil
	}
	return l.flush()
}

// forget drops what is queued.
func (l *line) forget() { l.buf, l.asked = l.buf[:0], l.asked[:0] }

// flush sends what is queued and answers the first failure.
func (l *line) flush() error {
	if len(l.asked) == 0 {
		return nil
	}
	defer l.forget()
	flags := binary.NativeEndian.Uint16(l.buf[l.at+6:])
	binary.NativeEndian.PutUint16(l.buf[l.at+6:], flags|unix.NLM_F_ACK)
	if err := unix.Sendto(l.fd, l.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send %d requests to the kernel: %w", len(l.asked), err)
	}
	var first error
	for {
		n, _, err := unix.Recvfrom(l.fd, l.answer[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for the kernel's answer to %d requests: %w", len(l.asked), err)
		}
		for rest := l.answer[:n]; len(rest) >= unix.SizeofNlMsghdr+4; {
			size := int(binary.NativeEndian.Uint32(rest))
			kind, seq := binary.NativeEndian.Uint16(rest[4:]), binary.NativeEndian.Uint32(rest[8:])
			if size < unix.SizeofNlMsghdr+4 || size > len(rest) {
				break
			}
			number := -int32(binary.NativeEndian.Uint32(rest[unix.SizeofNlMsghdr:]))
			rest = rest[min(len(rest), (size+3)&^3):]
			if kind != unix.NLMSG_ERROR || seq-l.first >= uint32(len(l.asked)) {
				continue // an answer to a flush that was given up
			}
			if r := l.asked[seq-l.first]; number != 0 && unix.Errno(number) != r.fine && first == nil {
				first = r.failed(unix.Errno(number))
			}
			if seq == l.seq {
				return first
			}
		}
	}
}

func (r request) failed(err error) error {
	switch {
	case r.at.IsValid():
		return fmt.Errorf("%s %v: %v: %w", r.doing, r.of, r.at, err)
	case r.of.Port() == 0:
		return fmt.Errorf("%s %v: %w", r.doing, r.of.Addr(), err)
	}
	return fmt.Errorf("%s %v: %w", r.doing, r.of, err)
}
