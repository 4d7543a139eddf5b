package controllermanager

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"

	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// versionLabel is the lease's label in which the leader writes its version.
const versionLabel = "sextant.dev/version"

// Manager is the daemon.
type Manager struct {
	c      *Config
	config *rest.Config
	client kubernetes.Interface
	guard  *guard
	listen net.Listener
	health *health
}

// New reads the kubeconfig and takes the port.
func New(c *Config) (*Manager, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags(c.Master, c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading --kubeconfig: %w", err)
	}
	config.QPS, config.Burst = c.QPS, c.Burst
	config.ContentType, config.AcceptContentTypes = apiruntime.ContentTypeProtobuf, apiruntime.ContentTypeProtobuf+","+apiruntime.ContentTypeJSON
	config.UserAgent = "kube-controller-manager/" + c.Version
	m := &Manager{c: c, config: config, health: &health{}}
	if m.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("making a client of --kubeconfig: %w", err)
	}
	if m.guard, err = newGuard(c, m.client); err != nil {
		return nil, err
	}
	if c.SecurePort > 0 {
		if m.listen, err = net.Listen("tcp", net.JoinHostPort(c.BindAddress, fmt.Sprint(c.SecurePort))); err != nil {
			return nil, fmt.Errorf("listening on --bind-address and --secure-port: %w; free that port or choose another", err)
		}
	}
	return m, nil
}

// Run serves health and runs the controllers while this process leads, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { saveHeap(ctx) })
	served := make(chan error, 1)
	if m.listen != nil {
		go func() { served <- m.serve(ctx) }()
	}
	done := make(chan error, 1)
	go func() {
		if m.c.LeaderElect {
			done <- m.elect(ctx)
		} else {
			done <- m.control(ctx)
		}
	}()
	select {
	case err := <-served:
		stop()
		if derr := <-done; derr != nil {
			slog.Debug("the controllers ended with the server", "err", derr)
		}
		return err
	case err := <-done:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// elect runs the controllers while this process holds the lease; a clean stop gives it to the next at once. A lease that is
// lost, because another took it or because the apiserver could not be asked for too long, ends the controllers with all they
// believed, and the process stands for election again.
func (m *Manager) elect(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("naming this candidate: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Name: m.c.LeaseName, Namespace: m.c.LeaseIn}, Client: m.client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())},
		Labels:     map[string]string{versionLabel: m.c.Version},
	}
	term, resign := context.WithCancel(ctx)
	defer resign()
	ended := make(chan error, 1)
	e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: m.c.LeaseDuration, RenewDeadline: m.c.RenewDeadline, RetryPeriod: m.c.RetryPeriod, ReleaseOnCancel: true,
		Name: m.c.LeaseName, WatchDog: nil,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				err := m.control(leading)
				if leading.Err() == nil {
					resign() // the controllers ended by themselves: there is nothing to hold the lease for
				}
				ended <- err
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("joining the election: %w", err)
	}
	for {
		e.Run(term)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := <-ended; term.Err() != nil {
			return err
		}
		m.health.leading.Store(false)
		slog.Warn("the lease was lost; standing for election again")
	}
}

// control runs the controllers.
func (m *Manager) control(ctx context.Context) error {
	slog.Info("running controllers")
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: m.client.CoreV1().Events("")})
	client, objects, err := m.clients()
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(m.client, 0, informers.WithTransform(newSlimmer().slim))
	list, err := All(m.c, runtime.Deps{
		Client: client, Informers: factory,
		Recorder: func(source string) func(apiruntime.Object, string, string, string) {
			return broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: source}).Event
		},
	}, objects)
	if err != nil {
		return err
	}
	defer factory.Shutdown()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m.health.leading.Store(true)
	return runtime.Run(ctx, list, func() { factory.Start(ctx.Done()) })
}

// clients answers what controllers write with: each as itself, if --use-service-account-credentials says so.
func (m *Manager) clients() (kubernetes.Interface, metadata.Interface, error) {
	config := rest.CopyConfig(m.config)
	web, err := rest.HTTPClientFor(config)
	if err == nil && m.c.UseAccounts {
		web.Transport, err = newSigner(config, m.client)
	}
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfigAndClient(config, web)
	if err != nil {
		return nil, nil, fmt.Errorf("making a client for the controllers: %w", err)
	}
	objects, err := metadata.NewForConfigAndClient(metadata.ConfigFor(config), web)
	if err != nil {
		return nil, nil, fmt.Errorf("making a metadata client: %w", err)
	}
	return client, objects, nil
}

// grace is how long the health server may take to stop.
const grace = 2 * time.Second
