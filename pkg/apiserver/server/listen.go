package server

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// listen takes the port.
func listen(ctx context.Context, c *Config) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		set := func(yes bool, opt int) {
			if yes && failed == nil {
				if err := conn.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, opt, 1) }); err != nil {
					failed = err
				}
			}
		}
		set(c.ShareAddress, unix.SO_REUSEADDR)
		set(c.SharePort, unix.SO_REUSEPORT)
		return failed
	}}
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(c.BindAddress, strconv.Itoa(c.SecurePort)))
	if err != nil {
		return nil, fmt.Errorf("listening on --bind-address and --secure-port: %w; free that port or choose another", err)
	}
	return l, nil
}
