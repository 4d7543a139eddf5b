package shutdown

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	loginName  = "org.freedesktop.login1"
	loginPath  = dbus.ObjectPath("/org/freedesktop/login1")
	loginIface = "org.freedesktop.login1.Manager"
	// dropin is the file by which the kubelet raises logind's patience; it is upstream's.
	dropin = "99-kubelet.conf"
)

// reload is how long logind may take to read its configuration again.
const reload = 5 * time.Second

// logind is a connection to systemd's keeper of sessions, which delays shutdowns for who asks.
type logind struct {
	conn   *dbus.Conn
	object dbus.BusObject
	// shutdowns tells that one begins, or is called off; closed when logind is gone.
	shutdowns chan bool
	lock      *os.File
}

// connect subscribes before anything else, so that no shutdown is missed.
func connect(ctx context.Context, dial func(context.Context) (*dbus.Conn, error)) (*logind, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to the system bus: %w", err)
	}
	l := &logind{conn: conn, object: conn.Object(loginName, loginPath), shutdowns: make(chan bool, 1)}
	signals := make(chan *dbus.Signal, 8)
	conn.Signal(signals)
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchObjectPath(loginPath), dbus.WithMatchInterface(loginIface), dbus.WithMatchMember("PrepareForShutdown")); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listening to logind: %w", err)
	}
	go func() {
		// The library closes signals with the connection.
		defer close(l.shutdowns)
		for s := range signals {
			if s.Name != loginIface+".PrepareForShutdown" || len(s.Body) != 1 {
				continue
			}
			if down, ok := s.Body[0].(bool); ok {
				select {
				case l.shutdowns <- down:
				case <-ctx.Done():
				}
			}
		}
	}()
	return l, nil
}

func (l *logind) close() {
	l.release()
	_ = l.conn.Close()
}

// delay is how long logind lets a shutdown be delayed.
func (l *logind) delay(ctx context.Context) (time.Duration, error) {
	var v dbus.Variant
	if err := l.object.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, loginIface, "InhibitDelayMaxUSec").Store(&v); err != nil {
		return 0, fmt.Errorf("asking logind for InhibitDelayMaxUSec: %w", err)
	}
	usec, ok := v.Value().(uint64)
	if !ok {
		return 0, fmt.Errorf("logind's InhibitDelayMaxUSec is %s", v)
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// patience sees to it that logind waits as long as is needed: by a file of its configuration where it does not.
func (l *logind) patience(ctx context.Context, need time.Duration, dropins string) error {
	have, err := l.delay(ctx)
	if err != nil || have >= need {
		return err
	}
	if err := os.MkdirAll(dropins, 0o755); err != nil {
		return fmt.Errorf("raising logind's InhibitDelayMaxSec: %w", err)
	}
	text := fmt.Sprintf("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=%.0f\n", need.Seconds())
	if err := os.WriteFile(filepath.Join(dropins, dropin), []byte(text), 0o644); err != nil {
		return fmt.Errorf("raising logind's InhibitDelayMaxSec: %w", err)
	}
	systemd := l.conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	if err := systemd.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.KillUnit", 0, "systemd-logind.service", "all", int32(syscall.SIGHUP)).Err; err != nil {
		return fmt.Errorf("having logind read its configuration again: %w", err)
	}
	for deadline := time.Now().Add(reload); ; {
		if have, err = l.delay(ctx); err != nil || have >= need {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("logind's InhibitDelayMaxSec is %s, less than the %s which pods may take; raise it in /etc/systemd/logind.conf, or lower shutdownGracePeriod", have, need)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(glance):
		}
	}
}

// hold asks logind to wait; it does so for as long as the file it gives is open.
func (l *logind) hold(ctx context.Context) error {
	var fd dbus.UnixFD
	if err := l.object.CallWithContext(ctx, loginIface+".Inhibit", 0, "shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay").Store(&fd); err != nil {
		return fmt.Errorf("asking logind for an inhibitor lock: %w", err)
	}
	l.lock = os.NewFile(uintptr(fd), "inhibitor")
	return nil
}

// release lets logind go on.
func (l *logind) release() {
	if l.lock != nil {
		_ = l.lock.Close()
		l.lock = nil
	}
}
