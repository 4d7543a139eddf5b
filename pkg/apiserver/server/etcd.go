package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// openStore connects to etcd, starting one in this process if none is named. stop ends what was started.
func openStore(ctx context.Context, c *Config) (s *store.Store, stop func(), err error) {
	stop = func() {}
	endpoints := c.EtcdServers
	if len(endpoints) == 0 {
		e, endpoint, err := startEtcd(ctx, filepath.Join(c.DataDir, "etcd"))
		if err != nil {
			return nil, nil, err
		}
		stop = e.Close
		endpoints = []string{endpoint}
	}
	t, err := etcdTLS(c)
	if err != nil {
		stop()
		return nil, nil, err
	}
	if s, err = store.New(store.Config{Endpoints: endpoints, TLS: t, Prefix: c.EtcdPrefix}); err != nil {
		stop()
		return nil, nil, err
	}
	return s, stop, nil
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

// startEtcd starts a single etcd on a loopback port of its own.
func startEtcd(ctx context.Context, dir string) (*embed.Etcd, string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("making --data-dir: %w", err)
	}
	ec := embed.NewConfig()
	ec.Dir, ec.Name, ec.LogLevel = dir, "embedded", "fatal" // its errors come back as such; closing it logs four more
	ec.AutoCompactionMode, ec.AutoCompactionRetention = "periodic", "0"
	client, err := freeURL()
	if err != nil {
		return nil, "", err
	}
	peer, err := freeURL()
	if err != nil {
		return nil, "", err
	}
	ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	ec.ListenPeerUrls, ec.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	ec.QuotaBackendBytes = 8 << 30
	e, err := embed.StartEtcd(ec)
	if err != nil {
		return nil, "", fmt.Errorf("starting etcd in %s: %w", dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
		return e, client.String(), nil
	case err := <-e.Err():
		return nil, "", fmt.Errorf("starting etcd in %s: %w", dir, err)
	case <-time.After(time.Minute):
		e.Close()
		return nil, "", fmt.Errorf("etcd in %s was not ready after a minute", dir)
	case <-ctx.Done():
		e.Close()
		return nil, "", ctx.Err()
	}
}

func freeURL() (*url.URL, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("finding a port for etcd: %w", err)
	}
	defer l.Close() //nolint:errcheck // nothing was written
	return &url.URL{Scheme: "http", Host: l.Addr().String()}, nil
}
