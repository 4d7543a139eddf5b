package scheduler

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// One leads at a time; when it stops it hands the lease over, and the next leads at its next try, not when the lease has run out.
func TestTheLeaseIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		start := func() (*Scheduler, context.CancelFunc) {
			s, _, _ := shell(t)
			s.leases = client.CoordinationV1()
			s.config.LeaseNamespace, s.config.LeaseName, s.config.Version = "kube-system", "kube-scheduler", "v7"
			s.config.LeaseDuration, s.config.RenewDeadline, s.config.RetryPeriod = time.Hour, 10*time.Second, 2*time.Second
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				if err := s.lead(ctx); err != nil {
					t.Error(err)
				}
			}()
			return s, cancel
		}
		first, stop := start()
		time.Sleep(time.Second)
		second, stopSecond := start()
		defer stopSecond()
		time.Sleep(time.Minute)
		if !first.leading.Load() || second.leading.Load() {
			t.Fatalf("leading: first %v, second %v", first.leading.Load(), second.leading.Load())
		}
		lease, err := client.CoordinationV1().Leases("kube-system").Get(t.Context(), "kube-scheduler", metav1.GetOptions{})
		if err != nil || lease.Labels[versionLabel] != "v7" {
			t.Errorf("lease %v, %v", lease, err)
		}
		stop()
		time.Sleep(5 * time.Second)
		if first.leading.Load() || !second.leading.Load() {
			t.Errorf("after the first stopped: first %v, second %v", first.leading.Load(), second.leading.Load())
		}
		stopSecond()
		synctest.Wait()
		time.Sleep(time.Minute)
	})
}
