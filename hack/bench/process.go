package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// token is the administrator's in the benchmark's own apiserver.
const token = "bench"

// cluster is the etcd and the apiserver of one run.
type cluster struct {
	etcd, api *exec.Cmd
	url       string
	client    *http.Client
	ready     time.Duration // from start to ready
}

func startCluster(bin, tools, dir string) (*cluster, error) {
	etcdURL, peerURL, port := "http://127.0.0.1:"+freePort(), "http://127.0.0.1:"+freePort(), freePort()
	c := &cluster{url: "https://127.0.0.1:" + port, client: newClient()}
	c.etcd = exec.Command(filepath.Join(tools, "etcd"), "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL, "--listen-peer-urls", peerURL,
		"--initial-advertise-peer-urls", peerURL, "--initial-cluster", "default="+peerURL, "--quota-backend-bytes", "8589934592")
	c.etcd.Stderr = os.Stderr
	if err := c.etcd.Start(); err != nil {
		return nil, fmt.Errorf("starting etcd (make build-tools builds it): %w", err)
	}
	tokens, key := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "sa.key")
	if err := errors.Join(os.WriteFile(tokens, []byte(token+",bench,1,system:masters\n"), 0o600), writeKey(key)); err != nil {
		c.stop()
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "apiserver.log"))
	if err != nil {
		c.stop()
		return nil, err
	}
	c.api = exec.Command(filepath.Join(bin, "apiserver"), "--etcd-servers", etcdURL, "--cert-dir", filepath.Join(dir, "certs"), "--token-auth-file", tokens,
		"--service-account-issuer", "https://bench", "--service-account-signing-key-file", key, "--authorization-mode", "Node,RBAC",
		"--bind-address", "127.0.0.1", "--secure-port", port)
	c.api.Stderr = log
	begun := time.Now()
	if err := c.api.Start(); err != nil {
		c.stop()
		return nil, fmt.Errorf("starting the apiserver (make build builds it): %w", err)
	}
	for time.Since(begun) < 30*time.Second {
		if _, err := c.do(context.Background(), "GET", "/readyz", "", nil); err == nil {
			c.ready = time.Since(begun)
			return c, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	text, _ := os.ReadFile(log.Name())
	c.stop()
	return nil, fmt.Errorf("the apiserver was not ready after 30 s:\n%s", text)
}

// stop ends what was started, and nothing else.
func (c *cluster) stop() {
	for _, p := range []*exec.Cmd{c.api, c.etcd} {
		if p != nil && p.Process != nil {
			_ = p.Process.Kill() // it may have ended
			_ = p.Wait()         // its state is of no interest
		}
	}
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // our own server on loopback
		ForceAttemptHTTP2: true, DisableCompression: true, MaxIdleConnsPerHost: 64,
	}}
}

// do makes one request and answers the body.
func (c *cluster) do(ctx context.Context, method, path, accept string, body []byte) ([]byte, error) {
	resp, err := c.open(ctx, method, path, accept, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, b)
	}
	return b, err
}

func (c *cluster) open(ctx context.Context, method, path, accept string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	return c.client.Do(req)
}

// cpu answers the CPU time that a process has used.
func cpu(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name may hold spaces; what follows its closing bracket does not.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// rss answers a process's resident memory in bytes.
func rss(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb << 10
		}
	}
	return 0
}

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "0"
	}
	defer l.Close() //nolint:errcheck // nothing was written
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func writeKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}
