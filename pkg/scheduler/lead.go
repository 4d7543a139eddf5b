package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// What the leader writes on its lease for ctl: the version as a label; where its port is, and the fingerprint of the certificate served
// there, as annotations.
const (
	versionLabel          = "sextant.dev/version"
	addressAnnotation     = "sextant.dev/address"
	fingerprintAnnotation = "sextant.dev/certificate-sha256"
)

// lead runs the loop while the lease is ours. A lease that is lost, because another took it or because the apiserver could not
// be asked for too long, ends the loop, and this process stands for election again: its watches go on, so it knows no less.
func (s *Scheduler) lead(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		host = "scheduler"
	}
	var running sync.Mutex // held by the loop
	var watch sync.Once
	defer running.Lock()
	e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: s.config.LeaseNamespace, Name: s.config.LeaseName},
			Client:     s.leases,
			LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())},
			Labels:     map[string]string{versionLabel: s.config.Version},
		},
		LeaseDuration: s.config.LeaseDuration, RenewDeadline: s.config.RenewDeadline, RetryPeriod: s.config.RetryPeriod,
		ReleaseOnCancel: true, Name: s.config.LeaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				slog.Info("holding the lease")
				running.Lock()
				defer running.Unlock()
				if s.config.delayWatches {
					watch.Do(func() { s.runWatches(ctx) }) // they outlive the lease
				}
				s.group.Go(func() { s.advertise(leading) })
				s.loop(leading)
			},
			OnStoppedLeading: func() {
				if ctx.Err() == nil {
					slog.Warn("the lease was lost; standing for election again")
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("joining the election: %w", err)
	}
	for ctx.Err() == nil {
		e.Run(ctx)
	}
	return nil
}
