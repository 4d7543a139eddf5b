package metrics

import "time"

// Node tells how the node came up: how long the machine ran before the kubelet, then until it asked to be registered, then until
// it was, then until ready.
func (s *Set) Node(before, up, register, ready time.Duration) {
	if s == nil {
		return
	}
	s.nodeBefore.Set(before.Seconds())
	s.nodeUp.Set(up.Seconds())
	s.nodeRegister.Set(register.Seconds())
	s.nodeEnd.Set(ready.Seconds())
	s.nodeStart.Set((before + up + register + ready).Seconds())
}

// Shutdown tells when the node's last shutdown began and ended; a zero time is not yet.
func (s *Set) Shutdown(began, ended time.Time) {
	if s == nil {
		return
	}
	seconds := func(t time.Time) float64 {
		if t.IsZero() {
			return 0
		}
		return float64(t.UnixMilli()) / 1000
	}
	s.shutdownBegin.Set(seconds(began))
	s.shutdownEnd.Set(seconds(ended))
}
