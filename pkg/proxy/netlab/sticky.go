package netlab

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// Sticky answers a Service that keeps a client for two seconds, with endpoints that answer at 10.244.0.5, and what is to be
// called once it is written: a client that asks in time stays, and one that has asked nothing for so long is led anywhere again.
func Sticky(t *testing.T) (p desired.Port, follow func(ask func(address string) string)) {
	t.Helper()
	p = desired.Port{Name: "x/sticky", Protocol: "tcp", ClusterIP: netip.MustParseAddr("10.96.0.11"), Number: 80, Sticky: 2}
	for port := range 16 {
		at := fmt.Sprintf("10.244.0.5:%d", 8080+port)
		Answer(t, "tcp", at, at)
		p.Any = append(p.Any, desired.Endpoint{At: netip.MustParseAddrPort(at), Local: true})
	}
	p.Inner, p.Outer = p.Any, p.Any
	return p, func(ask func(string) string) {
		t.Helper()
		first := ask("10.96.0.11:80")
		for range 4 {
			time.Sleep(700 * time.Millisecond)
			if got := ask("10.96.0.11:80"); got != first {
				t.Fatalf("a client that asked in time went from %s to %s", first, got)
			}
		}
		for range 5 {
			time.Sleep(3 * time.Second)
			if got := ask("10.96.0.11:80"); got != first {
				return
			}
		}
		t.Errorf("five times a client stayed with %s for longer than it was to", first)
	}
}
