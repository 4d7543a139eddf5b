package ipvs

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"
)

// Commands and attributes of IPVS's messages, as <linux/ip_vs.h> numbers them.
const (
	newService, setService, delService = 1, 2, 3
	newDest, setDest, delDest          = 5, 6, 7

	attrService, attrDest = 1, 2

	serviceFamily, serviceProtocol, serviceAddress, servicePort          = 1, 2, 3, 4
	serviceScheduler, serviceFlags, serviceTimeout, serviceNetmask       = 6, 7, 8, 9
	destAddress, destPort, destForward, destWeight, destUpper, destLower = 1, 2, 3, 4, 5, 6
	destFamily                                                           = 11
)

func family(a netip.Addr) uint8 {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// name is a virtual server as questions about it need it.
func name(f front) *ipvs.Service {
	return &ipvs.Service{Address: f.at.Addr().AsSlice(), Protocol: protocols[f.protocol], Port: f.at.Port(), AddressFamily: uint16(family(f.at.Addr()))}
}

// ask queues a request about a virtual server, and one of its real servers where the address is valid.
func (b *Backend) ask(command uint8, r request, f front, s server, weight uint32) error {
	l := b.servers
	l.begin(b.number, 0, r)
	l.raw(command, 1, 0, 0)
	netmask := uint32(0xffffffff)
	if f.at.Addr().Is6() {
		netmask = 128
	}
	var flags uint32
	if s.sticky > 0 {
		flags = persistent
	}
	outer := l.nest(attrService)
	l.attr(serviceFamily, native16(uint16(family(f.at.Addr()))))
	l.attr(serviceProtocol, native16(protocols[f.protocol]))
	l.attr(serviceAddress, f.at.Addr().AsSlice())
	l.attr(servicePort, binary.BigEndian.AppendUint16(nil, f.at.Port()))
	if command == newService || command == setService {
		l.attr(serviceScheduler, append([]byte(b.config.Scheduler), 0))
		l.attr(serviceFlags, append(native32(flags), native32(0xffffffff)...))
		l.attr(serviceTimeout, native32(uint32(s.sticky)))
		l.attr(serviceNetmask, native32(netmask))
	}
	l.close(outer)
	if at := r.at; at.IsValid() {
		outer := l.nest(attrDest)
		l.attr(destAddress, at.Addr().AsSlice())
		l.attr(destPort, binary.BigEndian.AppendUint16(nil, at.Port()))
		l.attr(destFamily, native16(uint16(family(at.Addr()))))
		if command != delDest {
			l.attr(destForward, native32(ipvs.ConnectionFlagMasq))
			l.attr(destWeight, native32(weight))
			l.attr(destUpper, native32(0))
			l.attr(destLower, native32(0))
		}
		l.close(outer)
	}
	return l.end()
}

// put queues what makes a virtual server as it should be.
func (b *Backend) put(f front, was, is server) error {
	_, there := b.held[f]
	switch {
	case !there:
		if err := b.ask(newService, request{doing: "make virtual server", of: f.at}, f, is, 0); err != nil {
			return err
		}
	case was.sticky != is.sticky:
		if err := b.ask(setService, request{doing: "change virtual server", of: f.at}, f, is, 0); err != nil {
			return err
		}
	}
	for _, at := range is.real {
		if slices.Contains(was.real, at) {
			continue
		}
		command := uint8(newDest)
		if _, back := b.leaving[f][at]; back {
			delete(b.leaving[f], at)
			command = setDest
		}
		if err := b.ask(command, request{doing: "add to virtual server", of: f.at, at: at}, f, is, 1); err != nil {
			return err
		}
	}
	for _, at := range was.real {
		if slices.Contains(is.real, at) {
			continue
		}
		if f.protocol == "udp" {
			if err := b.ask(delDest, request{doing: "take from virtual server", of: f.at, at: at}, f, is, 0); err != nil {
				return err
			}
			continue
		}
		// It gets no new connections; those that it has end by themselves, and Check sees when.
		if err := b.ask(setDest, request{doing: "drain of virtual server", of: f.at, at: at}, f, is, 0); err != nil {
			return err
		}
		b.leave(f, at)
	}
	return nil
}

// drop queues a virtual server's end.
func (b *Backend) drop(f front) error {
	delete(b.held, f)
	delete(b.leaving, f)
	return b.ask(delService, request{doing: "remove virtual server", of: f.at, fine: unix.ESRCH}, f, server{}, 0)
}
