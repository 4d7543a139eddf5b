package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The ports are upstream's: a section has a network of its own.
const (
	etcdURL = "http://127.0.0.1:2379"
	apiURL  = "https://127.0.0.1:6443"
)

// users of the section's apiserver; a token is the user's short name. The daemons have upstream's names, and so upstream's
// rights; the bench itself is an administrator by a role binding, so that its requests are authorized by RBAC as others' are.
var users = map[string][]string{
	"root":               {"root", "system:masters"},
	"bench":              {"bench"},
	"scheduler":          {"system:kube-scheduler"},
	"controller-manager": {"system:kube-controller-manager"},
	"kubelet":            {"system:node:bench", "system:nodes"},
	"proxy":              {"system:kube-proxy"},
}

// plane is an etcd and an apiserver.
type plane struct {
	b         *bench
	etcd, api *daemon
	*client
	ready time.Duration // from start to ready
}

// startPlane starts both, and makes the namespace bench.
func startPlane(b *bench) (*plane, error) {
	p := &plane{b: b, client: newClient(apiURL, "bench")}
	var err error
	p.etcd, err = b.start("etcd", "", filepath.Join(b.tools, "etcd"), "--data-dir", filepath.Join(b.dir, "etcd"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL, "--quota-backend-bytes", "8589934592")
	if err != nil {
		return nil, err
	}
	var tokens strings.Builder
	for token, user := range users {
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", token, user[0], token, strings.Join(user[1:], ","))
	}
	if err := errors.Join(os.WriteFile(filepath.Join(b.dir, "tokens.csv"), []byte(tokens.String()), 0o600), writeKey(filepath.Join(b.dir, "sa.key"))); err != nil {
		return nil, err
	}
	if err := p.serve(); err != nil {
		return nil, err
	}
	root := newClient(apiURL, "root")
	return p, errors.Join(
		root.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", object{
			"metadata": object{"name": "bench"}, "roleRef": object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
			"subjects": []object{
				{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bench"},
				// Its own role holds little more than making accounts for its controllers to work under.
				{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-controller-manager"},
			},
		}),
		root.create("/api/v1/namespaces", named("bench")),
		await("the role binding", 5*time.Second, func() error {
			_, err := p.do("GET", "/api/v1/namespaces/bench", "", nil)
			return err
		}),
	)
}

// serve starts the apiserver and waits until it is ready. more are further flags.
func (p *plane) serve(more ...string) (err error) {
	key := filepath.Join(p.b.dir, "sa.key")
	begun := time.Now()
	args := append([]string{
		filepath.Join(p.b.bin, "apiserver"), "--etcd-servers", etcdURL, "--cert-dir", filepath.Join(p.b.dir, "certs"),
		"--token-auth-file", filepath.Join(p.b.dir, "tokens.csv"), "--authorization-mode", "Node,RBAC", "--service-cluster-ip-range", "10.96.0.0/16",
		"--service-account-issuer", "https://bench", "--service-account-signing-key-file", key, "--service-account-key-file", key, "--secure-port", "6443",
	}, more...)
	p.api, err = p.b.start("apiserver", apiURL, args...)
	if err != nil {
		return err
	}
	root := newClient(apiURL, "root")
	err = await("apiserver ready", 30*time.Second, func() error {
		_, err := root.do("GET", "/readyz", "", nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.api.tail())
	}
	p.ready = time.Since(begun)
	return nil
}

// account makes the service account that pods of the namespace need where no controller does.
func (p *plane) account() error {
	return p.create("/api/v1/namespaces/bench/serviceaccounts", named("default"))
}

// kubeconfig writes the file by which a daemon reaches the apiserver.
func (p *plane) kubeconfig(user string) (string, error) {
	path := filepath.Join(p.b.dir, user+".kubeconfig")
	return path, os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: bench
clusters: [{name: bench, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: bench, user: {token: %q}}]
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
`, apiURL, user), 0o600)
}

// servers are what stands behind a client of the apiserver.
func (p *plane) servers() []*daemon { return []*daemon{p.api, p.etcd} }

// object is a piece of JSON.
type object map[string]any

func named(name string) object { return object{"metadata": object{"name": name}} }

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
