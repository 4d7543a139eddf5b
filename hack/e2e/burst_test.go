//go:build !e2e

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sextant-k8s/sextant/hack/ports"
)

// plane is an etcd and an apiserver on loopback, for a test that needs no nodes.
type plane struct {
	t      *testing.T
	dir    string
	config string // a kubeconfig
	client *kubernetes.Clientset
}

// newPlane starts one; flags come after the apiserver's own.
func newPlane(t *testing.T, flags ...string) *plane {
	t.Helper()
	p := &plane{t: t, dir: t.TempDir()}
	tool, err := filepath.Abs("../../_out/tools/bin/etcd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		t.Fatalf("%v; make needs makes it", err)
	}
	etcd, peer, port := "http://127.0.0.1:"+freePort(t), "http://127.0.0.1:"+freePort(t), freePort(t)
	p.run(tool, "--data-dir", filepath.Join(p.dir, "etcd"), "--unsafe-no-fsync", "--log-level", "error", "--listen-client-urls", etcd,
		"--advertise-client-urls", etcd, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	tokens, key := filepath.Join(p.dir, "tokens.csv"), filepath.Join(p.dir, "sa.key")
	if err := errors.Join(os.WriteFile(tokens, []byte("admin,admin,admin,system:masters\n"), 0o600), writeKey(key)); err != nil {
		t.Fatal(err)
	}
	p.run(daemon(t, "apiserver"), append([]string{"--etcd-servers", etcd, "--cert-dir", filepath.Join(p.dir, "certs"), "--token-auth-file", tokens, "--bind-address", "127.0.0.1",
		"--secure-port", port, "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16", "--service-account-issuer", "https://e2e",
		"--service-account-signing-key-file", key, "--service-account-key-file", key, "--disable-admission-plugins", "ServiceAccount"}, flags...)...)
	p.config = filepath.Join(p.dir, "kubeconfig")
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: 'https://127.0.0.1:%s', insecure-skip-tls-verify: true}}],\n"+
		"users: [{name: u, user: {token: admin}}], contexts: [{name: c, context: {cluster: c, user: u}}]}\n", port)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.client, err = kubernetes.NewForConfig(&rest.Config{Host: "https://127.0.0.1:" + port, BearerToken: "admin", QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, ContentConfig: rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf"}})
	if err != nil {
		t.Fatal(err)
	}
	p.within(30*time.Second, "the apiserver is ready", func() error {
		_, err := p.client.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return p
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

func freePort(t *testing.T) string { return strconv.Itoa(ports.Free(t)) }

// run starts a program that is killed when the test ends, which then tells what it said if the test failed.
func (p *plane) run(path string, args ...string) *exec.Cmd {
	p.t.Helper()
	said := &strings.Builder{}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have been killed before
		_ = cmd.Wait()
		if text := said.String(); p.t.Failed() {
			p.t.Logf("%s said:\n%s", filepath.Base(path), text[max(0, len(text)-3000):])
		}
	})
	return cmd
}

func (p *plane) within(limit time.Duration, what string, holds func() error) {
	p.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// scheduler starts one that stands for election with a short lease.
func (p *plane) scheduler() *exec.Cmd {
	p.t.Helper()
	return p.run(daemon(p.t, "scheduler"), "--kubeconfig", p.config, "--bind-address", "127.0.0.1", "--secure-port", freePort(p.t),
		"--leader-elect-lease-duration", "2s", "--leader-elect-renew-deadline", "1500ms", "--leader-elect-retry-period", "200ms")
}

// bindings are the nodes that pods were seen on.
type bindings struct {
	mu    sync.Mutex
	nodes map[string]string // by UID
	twice []string
}

func (b *bindings) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.nodes)
}

// follow notes every node of every pod until ctx ends. Nothing is missed: the watch begins where the empty list ended.
func (b *bindings) follow(ctx context.Context, p *plane) error {
	list, err := p.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	w, err := p.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	go func() {
		defer w.Stop()
		for e := range w.ResultChan() {
			pod, ok := e.Object.(*v1.Pod)
			if !ok || pod.Spec.NodeName == "" {
				continue
			}
			b.mu.Lock()
			if was, seen := b.nodes[string(pod.UID)]; seen && was != pod.Spec.NodeName {
				b.twice = append(b.twice, fmt.Sprintf("%s on %s and %s", pod.Name, was, pod.Spec.NodeName))
			}
			b.nodes[string(pod.UID)] = pod.Spec.NodeName
			b.mu.Unlock()
		}
	}()
	return nil
}

// Schedulers are killed with -9 while a thousand pods come in that fill a hundred nodes to the last place: another takes over each time,
// no pod is left, none is bound twice, no node is given more than it holds.
func TestASchedulerKilledInABurst(t *testing.T) {
	const nodes, perNode = 100, 10
	p := newPlane(t)
	room := v1.ResourceList{"cpu": resource.MustParse("32"), "memory": resource.MustParse("64Gi"), "pods": *resource.NewQuantity(perNode, resource.DecimalSI)}
	for i := range nodes {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%03d", i)}, Status: v1.NodeStatus{Capacity: room, Allocatable: room}}
		made, err := p.client.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		made.Spec.Taints = nil // admission taints nodes that nobody called ready
		if _, err := p.client.CoreV1().Nodes().Update(t.Context(), made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	seen := &bindings{nodes: map[string]string{}}
	if err := seen.follow(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	first := p.scheduler()
	p.within(10*time.Second, "a scheduler leads", func() error {
		l, err := p.client.CoordinationV1().Leases("kube-system").Get(t.Context(), "kube-scheduler", metav1.GetOptions{})
		if err == nil && (l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "") {
			err = errors.New("nobody holds the lease")
		}
		return err
	})
	second := p.scheduler()
	var makers sync.WaitGroup
	for worker := range 8 {
		makers.Go(func() {
			for i := worker; i < nodes*perNode; i += 8 {
				pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%04d", i), Labels: map[string]string{"app": strconv.Itoa(i % 7)}},
					Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "x"}}}}
				if _, err := p.client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i, victim := range []*exec.Cmd{first, second} {
		p.within(30*time.Second, "pods are bound", func() error {
			if n := seen.count(); n < 150+i*350 {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
		if err := victim.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		t.Logf("a scheduler was killed when %d of %d pods were bound", seen.count(), nodes*perNode)
	}
	p.scheduler()
	makers.Wait()
	p.within(30*time.Second, "every pod is bound", func() error {
		if n := seen.count(); n < nodes*perNode {
			return fmt.Errorf("%d of %d are", n, nodes*perNode)
		}
		return nil
	})
	on := map[string]int{}
	list, err := p.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for i := range list.Items {
		pod := &list.Items[i]
		on[pod.Spec.NodeName]++
		if pod.Spec.NodeName != seen.nodes[string(pod.UID)] {
			t.Errorf("%s is on %s, and was seen on %s", pod.Name, pod.Spec.NodeName, seen.nodes[string(pod.UID)])
		}
	}
	if len(seen.twice) > 0 {
		t.Errorf("bound twice: %v", seen.twice)
	}
	for node, pods := range on {
		if pods != perNode {
			t.Errorf("%s got %d pods, and holds %d", node, pods, perNode)
		}
	}
}
