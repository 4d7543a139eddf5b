package nodeipam

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide gives ranges until there are none: "give 10.0.0.0/30 31", "take 10.0.0.0/31".
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		taken := map[netip.Prefix]bool{}
		for line := range strings.Lines(files["script"]) {
			verb, cidr, bits := "", "", 0
			if n, err := fmt.Sscan(line, &verb, &cidr, &bits); n < 2 {
				t.Fatal(err)
			}
			p := netip.MustParsePrefix(cidr)
			switch verb {
			case "take":
				taken[p] = true
			case "free":
				delete(taken, p)
			case "give":
				got, ok := decide(p, bits, taken)
				if !ok {
					b.WriteString("none is left\n")
					continue
				}
				taken[got] = true
				fmt.Fprintln(&b, got)
			default:
				t.Fatalf("no such word: %s", verb)
			}
		}
		return b.String()
	})
}

// TestNoOverlap: ranges given are inside the cluster's, apart from each other, and exactly as many as fit.
func TestNoOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(0, 6).Draw(t, "size")
		cidr := netip.MustParsePrefix(rapid.SampledFrom([]string{"10.244.0.0/16", "10.0.0.0/8", "fd00::/48"}).Draw(t, "cidr"))
		taken := map[netip.Prefix]bool{}
		for i := range 1 << size {
			p, ok := decide(cidr, cidr.Bits()+size, taken)
			if !ok {
				t.Fatalf("none is left after %d", i)
			}
			for q := range taken {
				if q.Overlaps(p) {
					t.Fatalf("%s overlaps %s", p, q)
				}
			}
			if !cidr.Overlaps(p) {
				t.Fatalf("%s is not in %s", p, cidr)
			}
			taken[p] = true
		}
		if p, ok := decide(cidr, cidr.Bits()+size, taken); ok {
			t.Fatalf("%s was given once more", p)
		}
	})
}
