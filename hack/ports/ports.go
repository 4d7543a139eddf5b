// Package ports gives tests ports of loopback to start programs on.
//
// A port that the kernel gave and that was closed again is anybody's: until the program listens on it, a connection of
// another test may leave by it, and the program finds it in use. So they are taken from below the range that connections
// leave by and that of node ports, and a claim that every test process of this machine can see is held as long as the test.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// first and end bound what is given: above what daemons listen on by default, below node ports.
const first, end = 12000, 30000

// Free is a port of 127.0.0.1 that is the test's until it ends.
func Free(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := first + rand.IntN(end-first)
		// A name in the kernel's own space of sockets ends with its holder, however that ends.
		claim, err := net.Listen("unix", fmt.Sprintf("@sextant/port/%d", port))
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			_ = claim.Close()
			continue
		}
		_ = l.Close()
		t.Cleanup(func() { _ = claim.Close() })
		return port
	}
	t.Fatalf("of a thousand ports between %d and %d none was free", first, end)
	return 0
}
