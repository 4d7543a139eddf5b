package nodeipam

import (
	"math/big"
	"net/netip"
)

// decide picks the first range of the given number of bits in cidr that is not taken.
func decide(cidr netip.Prefix, bits int, taken map[netip.Prefix]bool) (netip.Prefix, bool) {
	size := cidr.Addr().BitLen()
	if bits < cidr.Bits() || bits > size {
		return netip.Prefix{}, false
	}
	step := new(big.Int).Lsh(big.NewInt(1), uint(size-bits))
	at := new(big.Int).SetBytes(cidr.Masked().Addr().AsSlice())
	count := uint64(1) << min(bits-cidr.Bits(), 16)
	for range count {
		a, ok := netip.AddrFromSlice(at.FillBytes(make([]byte, size/8)))
		if !ok {
			return netip.Prefix{}, false
		}
		if p := netip.PrefixFrom(a, bits); !overlaps(p, taken) {
			return p, true
		}
		at.Add(at, step)
	}
	return netip.Prefix{}, false
}

func overlaps(p netip.Prefix, taken map[netip.Prefix]bool) bool {
	if taken[p] {
		return true
	}
	for t := range taken {
		if t.Bits() != p.Bits() && t.Overlaps(p) {
			return true
		}
	}
	return false
}
