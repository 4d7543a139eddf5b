package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// openStore makes the client of etcd, which connects when it is first used. own is the etcd of this process, to be
// started still; it is nil when --etcd-servers names others, which dial (nil = as usual) reaches.
func openStore(c *Config, dial utilnet.DialFunc) (s *store.Store, own *embedded, err error) {
	endpoints := c.EtcdServers
	if len(endpoints) == 0 {
		own = &embedded{dir: filepath.Join(c.DataDir, "etcd")}
		endpoints, dial = []string{"http://embedded"}, own.dial
	}
	s, err = openEtcd(c, endpoints, dial)
	return s, own, err
}

func openEtcd(c *Config, endpoints []string, dial utilnet.DialFunc) (*store.Store, error) {
	t, err := etcdTLS(c)
	if err != nil {
		return nil, err
	}
	return store.New(store.Config{Endpoints: endpoints, TLS: t, Prefix: c.EtcdPrefix, Dial: dial})
}

// tellOfEtcd says again and again that an etcd does not answer, as long as nothing has been read from it: the server waits,
// since both may be starting, and whoever named the wrong etcd learns it here.
func (s *Server) tellOfEtcd(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, etcd := range s.cache.All() {
		wg.Go(func() { tellOf(ctx, etcd) })
	}
	return nil
}

func tellOf(ctx context.Context, etcd *cache.Cache) {
	for patience := 5 * time.Second; ; patience = time.Minute {
		select {
		case <-ctx.Done():
			return
		case <-etcd.Ready():
			return
		case <-time.After(patience):
		}
		ping, cancel := context.WithTimeout(ctx, 2*time.Second)
		if err := etcd.Store().Ping(ping); err != nil && ctx.Err() == nil {
			slog.Warn("etcd does not answer; waiting for it, see that it runs and that the --etcd- flags are right", "servers", etcd.Store().Endpoints(), "err", err)
		}
		cancel()
	}
}

func etcdTLS(c *Config) (*tls.Config, error) {
	if c.EtcdCAFile == "" && c.EtcdCertFile == "" {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.EtcdCAFile != "" {
		pem, err := os.ReadFile(c.EtcdCAFile)
		if err != nil {
			return nil, fmt.Errorf("reading --etcd-cafile: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--etcd-cafile %s holds no certificate", c.EtcdCAFile)
		}
	}
	if c.EtcdCertFile != "" {
		// Read anew for each connection, so a renewed certificate is taken up without a restart.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.EtcdCertFile, c.EtcdKeyFile)
			return &cert, err
		}
		if _, err := t.GetClientCertificate(nil); err != nil {
			return nil, fmt.Errorf("reading --etcd-certfile and --etcd-keyfile: %w", err)
		}
	}
	return t, nil
}

// embedded is an etcd in this process, alone in its cluster. It listens on sockets in its own folder, where root alone
// comes: on a port of loopback every user of the machine could read and write all that is stored.
type embedded struct {
	dir  string
	open *os.File // the folder itself, once it was started
}

// socket is where it listens. The way leads through the open folder, since a socket's path holds at most 107 bytes.
func (e *embedded) socket(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s.sock", e.open.Fd(), name)
}

// dial reaches it once it was started; nothing calls before.
func (e *embedded) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", e.socket("client"))
}

// take opens the folder, for this server alone: etcd would remove the sockets of another that listens there, and wait for it.
func (e *embedded) take() (err error) {
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return fmt.Errorf("making --data-dir: %w", err)
	}
	if e.open, err = os.Open(e.dir); err != nil {
		return fmt.Errorf("opening --data-dir: %w", err)
	}
	if err := unix.Flock(int(e.open.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		e.leave()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("--data-dir %s is in use by another apiserver: stop it or choose another folder; several apiservers share an etcd by --etcd-servers", filepath.Dir(e.dir))
		}
		return fmt.Errorf("locking --data-dir: %w", err)
	}
	return nil
}

// leave lets another have the folder.
func (e *embedded) leave() { _ = e.open.Close() } // it was only held

func (e *embedded) start(ctx context.Context) (stop func(), err error) {
	if err := e.take(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.leave()
		}
	}()
	client, peer := url.URL{Scheme: "unix", Path: e.socket("client")}, url.URL{Scheme: "unix", Path: e.socket("peer")}
	ec := embed.NewConfig()
	ec.Dir, ec.Name = e.dir, "embedded"
	// It calls it an error that its listeners close when they are told to.
	level := zap.NewAtomicLevelAt(zap.ErrorLevel)
	logs := zap.NewProductionConfig()
	logs.Level = level
	logger, err := logs.Build()
	if err != nil {
		return nil, err
	}
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)
	ec.AutoCompactionMode, ec.AutoCompactionRetention = "periodic", "0"
	ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	ec.ListenPeerUrls, ec.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	ec.QuotaBackendBytes = 8 << 30
	server, err := embed.StartEtcd(ec)
	if err != nil {
		return nil, fmt.Errorf("starting etcd in %s: %w", e.dir, err)
	}
	stop = func() {
		level.SetLevel(zap.FatalLevel)
		server.Close()
		e.leave()
	}
	select {
	case <-server.Server.ReadyNotify():
		return stop, nil
	case err = <-server.Err():
		err = fmt.Errorf("starting etcd in %s: %w", e.dir, err)
	case <-time.After(time.Minute):
		err = fmt.Errorf("etcd in %s was not ready after a minute", e.dir)
	case <-ctx.Done():
		err = ctx.Err()
	}
	stop()
	return nil, err
}
