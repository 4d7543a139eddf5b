package netlab

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Answer listens at an address of the calling thread's space, over "tcp" or "udp", until the test ends, and tells each caller name and
// the address it is seen under: "name from address".
func Answer(t *testing.T, network, address, name string) {
	t.Helper()
	stop, err := Listen(network, address, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

// Listen is Answer until stop is called. The socket belongs to the calling thread's space, whoever uses it afterwards.
func Listen(network, address, name string) (stop func(), err error) {
	if network == "udp" {
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			return nil, err
		}
		go func() {
			said := make([]byte, 16)
			for {
				_, from, err := c.ReadFrom(said)
				if err != nil {
					return
				}
				// A caller that has gone needs no answer.
				_, _ = c.WriteTo([]byte(introduce(name, from)), from)
			}
		}()
		return func() { _ = c.Close() }, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go speak(c, name)
		}
	}()
	return func() { _ = l.Close() }, nil
}

// speak says who it is, and afterwards what it is told: a caller that stays sees that its connection does.
func speak(c net.Conn, name string) {
	defer c.Close() //nolint:errcheck // the caller reads until the end
	if _, err := io.WriteString(c, introduce(name, c.RemoteAddr())+"\n"); err == nil {
		_, _ = io.Copy(c, c) // until the caller ends it
	}
}

func introduce(name string, to net.Addr) string {
	host, _, _ := net.SplitHostPort(to.String())
	return name + " from " + host
}

// What Ask answers where nobody does.
const (
	Refused = "refused"
	Silence = "silence"
)

// Ask calls an address from the calling thread's space and answers what it is told; Refused where the call is refused, Silence
// where nothing comes within patience, or the error.
func Ask(network, address string, patience time.Duration) string {
	// One attempt on this thread: a dialler with several addresses would leave it.
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return wrong(err)
	}
	defer c.Close() //nolint:errcheck // nothing is left to say
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return wrong(err)
	}
	if network == "udp" {
		if _, err := io.WriteString(c, "who"); err != nil {
			return wrong(err)
		}
	}
	text := make([]byte, 256)
	n, err := c.Read(text)
	if err != nil {
		return wrong(err)
	}
	return strings.TrimSuffix(string(text[:n]), "\n")
}

func wrong(err error) string {
	var late net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.As(err, &late) && late.Timeout():
		return Silence
	}
	return err.Error()
}

// Who is Ask without where the caller was seen.
func Who(network, address string, patience time.Duration) string {
	name, _, _ := strings.Cut(Ask(network, address, patience), " from ")
	return name
}
