// Package fakelogind is a message bus with a logind for tests of machines that shut down.
//
// Flow: New listens on a socket -> a peer that dials is let in and its calls are answered as logind and systemd would, locks
// by real files -> Announce sends what logind sends before the machine goes down. Methods may be called from any goroutine.
package fakelogind

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

// Bus is a bus on which nobody else lives.
type Bus struct {
	// Dropins is the folder of logind's configuration.
	Dropins string
	// Released gets a word when a lock is given back.
	Released chan struct{}

	socket   string
	listener net.Listener

	mu    sync.Mutex
	delay time.Duration
	conn  *net.UnixConn
	locks int
}

// New serves on a socket in dir until Close. delay is how long this logind is patient at first; it lets itself be raised to
// an hour.
func New(dir string, delay time.Duration) (*Bus, error) {
	b := &Bus{Dropins: filepath.Join(dir, "logind.conf.d"), socket: filepath.Join(dir, "bus"), delay: delay, Released: make(chan struct{}, 9)}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	b.listener = l
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go b.serve(c)
		}
	}()
	return b, nil
}

// Close ends the bus.
func (b *Bus) Close() error { return b.listener.Close() }

// Dial connects to the bus.
func (b *Bus) Dial(ctx context.Context) (*dbus.Conn, error) {
	return dbus.Connect("unix:path="+b.socket, dbus.WithContext(ctx))
}

// Break ends the newest connection.
func (b *Bus) Break() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conn.Close()
}

// Delay is how long this logind is patient now.
func (b *Bus) Delay() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.delay
}

// Locks is how many locks were asked for.
func (b *Bus) Locks() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.locks
}

// serve lets one peer in and answers its calls.
func (b *Bus) serve(c *net.UnixConn) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	if _, err := in.ReadByte(); err != nil {
		return
	}
	for begun := false; !begun; {
		line, err := in.ReadString('\n')
		answer := ""
		switch {
		case err != nil:
			return
		case line == "AUTH\r\n":
			answer = "REJECTED EXTERNAL\r\n"
		case strings.HasPrefix(line, "AUTH"):
			answer = "OK 1234\r\n"
		case strings.HasPrefix(line, "NEGOTIATE"):
			answer = "AGREE_UNIX_FD\r\n"
		default:
			begun = true
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
	b.mu.Lock()
	b.conn = c
	b.mu.Unlock()
	for {
		call, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		b.send(&dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{dbus.FieldReplySerial: dbus.MakeVariant(call.Serial())}},
			b.answer(call.Headers[dbus.FieldMember].Value().(string), call.Body)...)
	}
}

func (b *Bus) answer(method string, args []any) []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch method {
	case "Hello":
		return []any{":1.1"}
	case "Get":
		return []any{dbus.MakeVariant(uint64(b.delay / time.Microsecond))}
	case "KillUnit":
		raw, err := os.ReadFile(filepath.Join(b.Dropins, "99-kubelet.conf"))
		var seconds int
		if _, e := fmt.Sscanf(string(raw), "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=%d\n", &seconds); err == nil && e == nil && args[2] == int32(syscall.SIGHUP) {
			b.delay = min(time.Duration(seconds)*time.Second, time.Hour)
		}
	case "Inhibit":
		r, w, err := os.Pipe()
		if err != nil || fmt.Sprint(args) != "[shutdown kubelet Kubelet needs time to handle node shutdown delay]" {
			return []any{fmt.Sprint(args, err)}
		}
		b.locks++
		go func() {
			_, _ = r.Read(make([]byte, 1))
			_ = r.Close()
			b.Released <- struct{}{}
		}()
		return []any{dbus.UnixFD(w.Fd()), w}
	}
	return nil
}

func (b *Bus) send(m *dbus.Message, body ...any) {
	var lock *os.File
	if len(body) == 2 {
		lock, body = body[1].(*os.File), body[:1]
	}
	m.Body = body
	m.Headers[dbus.FieldSender] = dbus.MakeVariant("org.freedesktop.login1")
	if len(body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	if lock != nil {
		m.Headers[dbus.FieldUnixFDs] = dbus.MakeVariant(uint32(1))
	}
	var out bytes.Buffer
	fds, err := m.EncodeToWithFDs(&out, binary.LittleEndian)
	if err != nil {
		panic(err)
	}
	// A message counts from 1.
	binary.LittleEndian.PutUint32(out.Bytes()[8:], 7)
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	b.mu.Lock()
	_, _, _ = b.conn.WriteMsgUnix(out.Bytes(), rights, nil)
	b.mu.Unlock()
	if lock != nil {
		_ = lock.Close()
	}
}

// Announce tells that a shutdown begins, or is called off.
func (b *Bus) Announce(down bool) {
	b.send(&dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/org/freedesktop/login1")),
		dbus.FieldInterface: dbus.MakeVariant("org.freedesktop.login1.Manager"), dbus.FieldMember: dbus.MakeVariant("PrepareForShutdown")}}, down)
}
