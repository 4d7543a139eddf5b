package api

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestYield: an event waits for starts, never longer than a moment, and not at all once it is old.
func TestYield(t *testing.T) {
	for _, c := range []struct{ age, busy, want time.Duration }{
		{0, 0, 0}, {0, 110 * time.Millisecond, 125 * time.Millisecond}, {0, time.Hour, time.Second}, {900 * time.Millisecond, time.Hour, 100 * time.Millisecond}, {time.Minute, time.Hour, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			s := Sink{Busy: func() bool { return time.Since(begin) < c.busy }}
			s.yield(&v1.Event{LastTimestamp: metav1.NewTime(begin.Add(-c.age))})
			if got := time.Since(begin); got != c.want {
				t.Errorf("%+v: waited %s", c, got)
			}
		})
	}
	Sink{}.yield(&v1.Event{LastTimestamp: metav1.Now()})
}
