package realtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sextant-k8s/sextant/pkg/kubelet"
)

// signer approves and signs what nodes ask for, as the controllers of a cluster do.
func (m *machine) signer(ctx context.Context, life time.Duration) {
	requests := m.admin.CertificatesV1().CertificateSigningRequests()
	for ctx.Err() == nil {
		list, _ := requests.List(ctx, metav1.ListOptions{})
		for i := range list.Items {
			csr := &list.Items[i]
			if len(csr.Status.Certificate) > 0 {
				continue
			}
			csr.Status.Conditions = []certv1.CertificateSigningRequestCondition{{Type: certv1.CertificateApproved, Status: v1.ConditionTrue, Reason: "Test"}}
			now, err := requests.UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
			if err != nil {
				continue
			}
			usage := x509.ExtKeyUsageClientAuth
			if csr.Spec.SignerName == certv1.KubeletServingSignerName {
				usage = x509.ExtKeyUsageServerAuth
			}
			if now.Status.Certificate, err = m.ca.sign(csr.Spec.Request, []x509.ExtKeyUsage{usage}, life); err == nil {
				_, _ = requests.UpdateStatus(ctx, now, metav1.UpdateOptions{})
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// TestYBootstrap takes a second node from a token to a certificate of its own, which it renews; and its server's.
func TestYBootstrap(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := node.admin.CoreV1().Secrets("kube-system").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token",
		StringData: map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:nodes"}}, metav1.CreateOptions{})
	if err == nil {
		_, err = node.admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "bootstrap"}, RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "system:node-bootstrapper"},
			Subjects: []rbacv1.Subject{{Kind: "Group", APIGroup: "rbac.authorization.k8s.io", Name: "system:bootstrappers:nodes"}}}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := node.path("second")
	token := filepath.Join(dir, "bootstrap.kubeconfig")
	config := filepath.Join(dir, "config.yaml")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(token, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: t
clusters: [{name: t, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {token: abcdef.0123456789abcdef}}]
contexts: [{name: t, context: {cluster: t, user: u}}]
`, serverURL, node.ca.path("ca.crt")), 0o600), os.WriteFile(config, fmt.Appendf(nil, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: "unix://%s"
podLogsDir: %q
rotateCertificates: true
serverTLSBootstrap: true
port: 10350
healthzPort: 10348
cgroupRoot: "/%s/second"
evictionHard: {memory.available: 10Mi}
imageGCHighThresholdPercent: 100
authentication: {anonymous: {enabled: false}, webhook: {cacheTTL: 0s, enabled: true}, x509: {clientCAFile: %q}}
`, node.path("run/containerd.sock"), filepath.Join(dir, "pods"), filepath.Base(node.dir), node.ca.path("ca.crt")), 0o600)); err != nil {
		t.Fatal(err)
	}
	// The first certificates are so short that they must be renewed at once.
	life, stop := context.WithCancel(ctx)
	go node.signer(life, 15*time.Second)
	kubeconfig := filepath.Join(dir, "kubelet.kubeconfig")
	flags, _, _, err := kubelet.ParseFlags([]string{"--config", config, "--bootstrap-kubeconfig", token, "--kubeconfig", kubeconfig, "--hostname-override", "second",
		"--node-ip", "127.0.0.1", "--root-dir", dir})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := kubelet.Load(ctx, flags, kubelet.Release, slog.New(slog.NewTextHandler(node.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	rc, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil || rc.BearerToken != "" || rc.CertFile != filepath.Join(dir, "pki/kubelet-client-current.pem") {
		t.Fatal(rc, err)
	}
	k, err := kubelet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	if err := within(patience, func() error {
		_, err := node.admin.CoreV1().Nodes().Get(ctx, "second", metav1.GetOptions{})
		return err
	}); err != nil {
		t.Error(err)
	}
	first, _ := os.Readlink(rc.CertFile)
	if err := within(patience, func() error {
		if now, err := os.Readlink(rc.CertFile); err != nil || now == first {
			return fmt.Errorf("the certificate is still %s (%v)", now, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	stop()
	pool := x509.NewCertPool()
	pool.AddCert(node.ca.cert)
	pair, err := tls.LoadX509KeyPair(node.ca.path("admin.crt"), node.ca.path("admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}}
	if err := within(patience, func() error {
		resp, err := hc.Get("https://127.0.0.1:10350/healthz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); string(body) != "ok" || resp.TLS.PeerCertificates[0].Subject.CommonName != "system:node:second" {
			return fmt.Errorf("%s, served by %s", body, resp.TLS.PeerCertificates[0].Subject)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
