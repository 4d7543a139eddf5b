package lifecycle

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestDeadlineOfAnotherClock: whatever the API's clock says, a deleted pod has its grace, no less and no more.
func TestDeadlineOfAnotherClock(t *testing.T) {
	now, grace := time.Unix(1000000, 0), int64(30)
	for _, off := range []time.Duration{0, time.Hour, -time.Hour, 1500 * time.Millisecond} {
		at := metav1.NewTime(now.Add(off + 30*time.Second))
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &at, DeletionGracePeriodSeconds: &grace}}
		if got := deadline(pod, now); !got.Equal(now.Add(30 * time.Second)) {
			t.Errorf("off by %s: %s of grace", off, got.Sub(now))
		}
	}
}
