package certificates

import (
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPodRequestsAreForgottenAfterHalfAnHour(t *testing.T) {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(made)}}
	if got := podRequestExpires(r); !got.Equal(made.Add(30 * time.Minute)) {
		t.Errorf("made at %s, it goes at %s", made, got)
	}
}
