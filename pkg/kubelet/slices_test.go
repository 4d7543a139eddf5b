package kubelet

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

// fakeSystemd speaks as systemd does on its own socket, and notes what it is asked.
type fakeSystemd struct {
	mu    sync.Mutex
	units map[string]bool
	said  []string
}

func (f *fakeSystemd) note(what, name string, props []property) {
	line := what + " " + name
	for _, p := range props {
		switch p.Name {
		case "Description", "DefaultDependencies", "MemoryAccounting", "CPUAccounting", "TasksAccounting":
		default:
			line += fmt.Sprintf(" %s=%v", p.Name, p.Value.Value())
		}
	}
	f.said = append(f.said, line)
}

func (f *fakeSystemd) StartTransientUnit(name, mode string, props []property, _ []unit) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.units[name] {
		return "", dbus.NewError("org.freedesktop.systemd1.UnitExists", nil)
	}
	f.units[name] = true
	f.note("start", name, props)
	return "/org/freedesktop/systemd1/job/1", nil
}

func (f *fakeSystemd) SetUnitProperties(name string, _ bool, props []property) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.units[name] {
		return dbus.NewError("org.freedesktop.systemd1.NoSuchUnit", nil)
	}
	f.note("set", name, props)
	return nil
}

func (f *fakeSystemd) StopUnit(name, _ string) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.units[name] {
		return "", dbus.NewError("org.freedesktop.systemd1.NoSuchUnit", nil)
	}
	delete(f.units, name)
	f.note("stop", name, nil)
	return "/org/freedesktop/systemd1/job/2", nil
}

// greet lets a peer in, whoever it says to be, and then carries what it says to the other.
func greet(from, to net.Conn) {
	defer func() { _ = to.Close() }()
	in := bufio.NewReader(from)
	if _, err := in.ReadByte(); err != nil {
		return
	}
	for {
		line, err := in.ReadString('\n')
		answer := "OK 1234"
		switch {
		case err != nil:
			return
		case line == "BEGIN\r\n":
			_, _ = io.Copy(to, in)
			return
		case line == "AUTH\r\n":
			answer = "REJECTED EXTERNAL"
		}
		if _, err := io.WriteString(from, answer+"\r\n"); err != nil {
			return
		}
	}
}

func TestSlices(t *testing.T) {
	f := &fakeSystemd{units: map[string]bool{}}
	dials := 0
	var theirs *dbus.Conn
	dial := func() (*dbus.Conn, error) {
		dials++
		ours, relayed := net.Pipe()
		other, relay := net.Pipe()
		go greet(relayed, relay)
		go greet(relay, relayed)
		conn, err := dbus.NewConn(other)
		if err == nil {
			err = conn.Export(f, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
		}
		if err == nil {
			err = conn.Auth(nil)
		}
		if err != nil {
			return nil, err
		}
		theirs = conn
		mine, err := dbus.NewConn(ours)
		if err != nil {
			return nil, err
		}
		return mine, mine.Auth(nil)
	}
	c := newCgroups("", "systemd", slog.New(slog.DiscardHandler))
	c.slices.dial, c.pids, c.v2 = dial, 100, true
	pod := podOf(t, "p", "{containers: [{name: c, resources: {requests: {cpu: 500m, memory: 16Mi}, limits: {cpu: 250m, memory: 32Mi}}}]}")
	if err := c.Create(pod); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(pod); err != nil {
		t.Fatal(err)
	}
	if err := c.weight("burstable", 1024); err == nil {
		t.Error("a slice which is not there was weighed")
	}
	_ = theirs.Close()
	if err := c.slices.remove(c.Parent(pod)); err != nil {
		t.Error("after the connection broke:", err)
	}
	if err := c.slices.remove(c.Parent(pod)); err != nil {
		t.Error("what is gone is gone:", err)
	}
	want := `start kubepods-burstable-poduid_x.slice CPUQuotaPerSecUSec=250000 MemoryMax=33554432 CPUWeight=20 TasksMax=100
set kubepods-burstable-poduid_x.slice CPUQuotaPerSecUSec=250000 MemoryMax=33554432 CPUWeight=20 TasksMax=100
stop kubepods-burstable-poduid_x.slice`
	if got := strings.Join(f.said, "\n"); got != want || dials != 2 {
		t.Errorf("%d connections, systemd was told\n%s\nwant\n%s", dials, got, want)
	}
	if got := slicePath("kubepods-burstable-poduid_x.slice"); got != "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poduid_x.slice" {
		t.Error(got)
	}
}
