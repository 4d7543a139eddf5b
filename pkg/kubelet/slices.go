package kubelet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// systemd makes and bounds slices where it owns the cgroups: whoever writes its files beside it is overruled when it
// reloads. It is spoken to on its own socket, which needs no message bus.
type systemd struct {
	// dial connects to systemd; it is asked again after a connection broke.
	dial func() (*dbus.Conn, error)

	mu   sync.Mutex
	conn *dbus.Conn
}

const systemdSocket = "unix:path=/run/systemd/private"

func dialSystemd() (*dbus.Conn, error) {
	conn, err := dbus.Dial(systemdSocket)
	if err != nil {
		return nil, fmt.Errorf("connecting to systemd: %w; give --cgroup-driver cgroupfs where there is none", err)
	}
	if err := conn.Auth(nil); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting to systemd: %w", err)
	}
	return conn, nil
}

// call asks systemd for something that may be asked twice: a connection which turns out to be broken is made anew.
func (s *systemd) call(method string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for try := 0; ; try++ {
		if s.conn == nil {
			conn, err := s.dial()
			if err != nil {
				return err
			}
			s.conn = conn
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := s.conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").CallWithContext(ctx, "org.freedesktop.systemd1.Manager."+method, 0, args...).Err
		cancel()
		var answer dbus.Error
		if err == nil || errors.As(err, &answer) || try > 0 {
			return err
		}
		_ = s.conn.Close()
		s.conn = nil
	}
}

// property and unit are how systemd takes them.
type property struct {
	Name  string
	Value dbus.Variant
}

type unit struct {
	Name       string
	Properties []property
}

// ensure makes a slice with its bounds, or writes them to the one there is.
func (s *systemd) ensure(slice string, v2 bool, l limits) error {
	props := []property{{"Description", dbus.MakeVariant("pods of the kubelet: " + slice)}, {"DefaultDependencies", dbus.MakeVariant(false)},
		{"MemoryAccounting", dbus.MakeVariant(true)}, {"CPUAccounting", dbus.MakeVariant(true)}, {"TasksAccounting", dbus.MakeVariant(true)}}
	err := s.call("StartTransientUnit", slice, "replace", append(props, sliceBounds(v2, l)...), []unit{})
	var known dbus.Error
	if errors.As(err, &known) && known.Name == "org.freedesktop.systemd1.UnitExists" {
		return s.bound(slice, v2, l)
	}
	if err != nil {
		return fmt.Errorf("making slice %s: %w", slice, err)
	}
	return nil
}

// bound writes the bounds of a slice; they hold until the machine starts anew.
func (s *systemd) bound(slice string, v2 bool, l limits) error {
	if err := s.call("SetUnitProperties", slice, true, sliceBounds(v2, l)); err != nil {
		return fmt.Errorf("bounding slice %s: %w", slice, err)
	}
	return nil
}

// remove stops a slice, and with it what still runs in it. One that is gone is no error.
func (s *systemd) remove(slice string) error {
	err := s.call("StopUnit", slice, "replace")
	var known dbus.Error
	if errors.As(err, &known) && known.Name == "org.freedesktop.systemd1.NoSuchUnit" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stopping slice %s: %w", slice, err)
	}
	return nil
}

// sliceBounds are limits as systemd's properties; 0 is no limit.
func sliceBounds(v2 bool, l limits) []property {
	most := func(n int64) dbus.Variant {
		if n <= 0 {
			return dbus.MakeVariant(uint64(math.MaxUint64))
		}
		return dbus.MakeVariant(uint64(n))
	}
	period := l.period
	if period <= 0 {
		period = defaultPeriod
	}
	quota := int64(0)
	if l.quota > 0 {
		// Per second, and in whole hundredths of it, which is what systemd keeps.
		quota = (l.quota*1000000/period + 9999) / 10000 * 10000
	}
	memory, weight, shares := "MemoryMax", "CPUWeight", uint64(1+(max(l.shares, 2)-2)*9999/262142)
	if !v2 {
		memory, weight, shares = "MemoryLimit", "CPUShares", uint64(l.shares)
	}
	out := []property{{"CPUQuotaPerSecUSec", most(quota)}, {memory, most(l.memory)}}
	if period != defaultPeriod {
		out = append(out, property{"CPUQuotaPeriodUSec", dbus.MakeVariant(uint64(period))})
	}
	if l.shares > 0 {
		out = append(out, property{weight, dbus.MakeVariant(shares)})
	}
	if l.pids > 0 {
		out = append(out, property{"TasksMax", dbus.MakeVariant(uint64(l.pids))})
	}
	return out
}

// slicePath is where a slice's cgroup lies below the mount: a-b.slice within a.slice.
func slicePath(slice string) string {
	name := strings.TrimSuffix(slice, ".slice")
	path := "/"
	for i, part := range strings.Split(name, "-") {
		if i == 0 {
			name = part
		} else {
			name += "-" + part
		}
		path = filepath.Join(path, name+".slice")
	}
	return path
}
