package certificate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sextant-k8s/sextant/pkg/kubelet/api"
)

// Bootstrap makes a kubeconfig out of one which holds no more than a token: it gets the node's client certificate with
// that and writes where it lies. It does nothing when the kubeconfig works already, and waits until the cluster signs.
func Bootstrap(ctx context.Context, from, kubeconfig, dir, node string, log *slog.Logger) error {
	if usable(kubeconfig, time.Now()) {
		return nil
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", from)
	if err != nil {
		if _, e := os.Stat(kubeconfig); e == nil {
			return nil // a node long in the cluster has no token any more; its kubeconfig must do
		}
		return fmt.Errorf("reading --bootstrap-kubeconfig %s: %w", from, err)
	}
	cfg.QPS = -1
	client, err := api.New(cfg)
	if err != nil {
		return err
	}
	r := ForClient(client, dir, node, log)
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		// A kubelet which ended before it wrote its kubeconfig may have its certificate.
		if c, err := Load(Current(dir, r.Name)); err == nil && time.Now().Before(c.Leaf.NotAfter) && c.Leaf.Subject.CommonName == r.Subject.CommonName {
			break
		}
		log.Info("asking the cluster for a client certificate", "node", node, "server", cfg.Host)
		if err := r.Renew(ctx); err == nil {
			break
		} else if ctx.Err() == nil {
			log.Warn("no client certificate yet", "err", err)
		}
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
	return writeKubeconfig(kubeconfig, cfg, Current(dir, r.Name))
}

// usable tells whether a kubeconfig can be read and its client certificate, if it has one, is still valid.
func usable(path string, now time.Time) bool {
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil || path == "" {
		return false
	}
	if cfg.CertFile == "" {
		return true
	}
	c, err := Load(cfg.CertFile)
	if err != nil {
		_, err = os.Stat(cfg.CertFile)
		return err == nil && cfg.KeyFile != cfg.CertFile
	}
	return now.Before(c.Leaf.NotAfter)
}

func writeKubeconfig(path string, from *rest.Config, cert string) error {
	cluster := &clientcmdapi.Cluster{Server: from.Host, TLSServerName: from.ServerName, InsecureSkipTLSVerify: from.Insecure,
		CertificateAuthority: from.CAFile, CertificateAuthorityData: from.CAData}
	if cluster.CertificateAuthorityData != nil {
		cluster.CertificateAuthority = ""
	}
	out := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"default-cluster": cluster},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"default-auth": {ClientCertificate: cert, ClientKey: cert}},
		Contexts:       map[string]*clientcmdapi.Context{"default-context": {Cluster: "default-cluster", AuthInfo: "default-auth", Namespace: "default"}},
		CurrentContext: "default-context",
	}
	raw, err := clientcmd.Write(out)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(tmp, raw, 0o600)); err != nil {
		return fmt.Errorf("writing --kubeconfig: %w", err)
	}
	return os.Rename(tmp, path)
}
