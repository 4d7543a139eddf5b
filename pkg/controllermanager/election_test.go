package controllermanager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/sextant-k8s/sextant/hack/ports"
)

// TestElection lets processes of ours and a stock holder of client-go share an election: who is killed is followed in under
// 15 seconds with the flags as they are, who stops cleanly at once, whichever of both kinds comes next.
func TestElection(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	first := c.daemon(t)
	one := c.leader(t, "", 20*time.Second)
	second := c.daemon(t)
	time.Sleep(3 * time.Second) // it stands by
	if now := c.leader(t, "", time.Second); now != one {
		t.Fatalf("%s took over from %s, which lives", now, one)
	}
	_ = first.Process.Kill()
	killed := time.Now()
	two := c.leader(t, one, 20*time.Second)
	if took := time.Since(killed); took > 15*time.Second {
		t.Errorf("%s took over after %s", two, took)
	} else {
		t.Logf("taken over %s after the kill", took)
	}

	// A stock holder stands by, and gets the lease of who stops.
	ctx, stop := context.WithCancel(t.Context())
	leads, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Name: "kube-controller-manager", Namespace: "kube-system"}, Client: c.admin.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: "stock"},
			},
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(ctx context.Context) { close(leads) }, OnStoppedLeading: func() {}},
		})
	}()
	time.Sleep(time.Second)
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-leads:
	case <-time.After(7 * time.Second): // it looks every two to four seconds and a bit
		t.Fatal("the stock holder does not get the lease of ours, which stopped")
	}
	c.daemon(t)
	time.Sleep(time.Second)
	if now := c.leader(t, "", time.Second); now != "stock" {
		t.Fatalf("%s took over from a stock holder that lives", now)
	}
	stop()
	<-ended
	c.leader(t, "stock", 7*time.Second)
}

// daemon starts a real one with nothing but what it needs, and ends it with the test.
func (c *cluster) daemon(t *testing.T) *exec.Cmd {
	t.Helper()
	bin, err := binaries("controller-manager")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(bin, "--kubeconfig="+c.kubeconfig("system:kube-controller-manager"), "--bind-address=127.0.0.1", fmt.Sprint("--secure-port=", ports.Free(t)), "--controllers=ttl")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("a daemon said:\n%s", tail(log.String(), 2000))
		}
	})
	return cmd
}

// leader waits for a holder of the lease that is not another, for so long.
func (c *cluster) leader(t *testing.T, not string, most time.Duration) (holder string) {
	t.Helper()
	err := errors.New("nobody asked")
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		lease, gerr := c.admin.CoordinationV1().Leases("kube-system").Get(t.Context(), "kube-controller-manager", metav1.GetOptions{})
		if err = gerr; err != nil || lease.Spec.HolderIdentity == nil {
			continue
		}
		if holder = *lease.Spec.HolderIdentity; holder != "" && holder != not {
			return holder
		}
	}
	t.Fatalf("%q holds the lease after %s, %v", holder, most, err)
	return ""
}
