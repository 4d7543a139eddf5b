package controllermanager

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sextant-k8s/sextant/hack/ports"
)

// patience is how long a test waits for something to come true.
var patience = 30 * time.Second

// cluster is a real apiserver with its own etcd on a port of loopback, and the controllers against it. There is no
// scheduler and no kubelet: tests play them.
type cluster struct {
	t      *testing.T
	dir    string
	port   int
	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey
	admin  kubernetes.Interface
	config *rest.Config // of the admin
	url    string       // of the controller-manager
	// crashing says that controllers die after each write; events, which are said after the write, may be lost.
	crashing bool
	// silent says that nobody writes events.
	silent bool
	// observer, if set, counts what is born.
	observer *observer
}

// newCluster starts an apiserver and the controllers with some flags more.
func newCluster(t *testing.T, flags ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), port: ports.Free(t)}
	c.authority()
	c.apiserver()
	c.config = c.rest("admin", "system:masters")
	admin, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		t.Fatal(err)
	}
	c.admin = admin
	wait(t, "the apiserver", func() error {
		return admin.Discovery().RESTClient().Get().AbsPath("/readyz").Do(t.Context()).Error()
	})
	if len(flags) > 0 {
		c.manager(flags...)
	}
	return c
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) write(name, kind string, der []byte) {
	if err := os.WriteFile(c.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// authority makes a CA, the apiserver's certificate and the key of service account tokens.
func (c *cluster) authority() {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test-ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	c.caKey = newKey(c.t)
	der, err := x509.CreateCertificate(rand.Reader, t, t, &c.caKey.PublicKey, c.caKey)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.ca, err = x509.ParseCertificate(der); err != nil {
		c.t.Fatal(err)
	}
	c.write("ca.crt", "CERTIFICATE", der)
	c.key("ca.key", c.caKey)
	c.key("sa.key", newKey(c.t))
	c.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"})
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (c *cluster) key(name string, k *ecdsa.PrivateKey) {
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(name, "EC PRIVATE KEY", der)
}

// issue makes a certificate and key for a name, for serving on loopback and for asking.
func (c *cluster) issue(file string, subject pkix.Name) {
	k := newKey(c.t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, c.ca, &k.PublicKey, c.caKey)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(file+".crt", "CERTIFICATE", der)
	c.key(file+".key", k)
}

// rest answers how a user of some groups reaches the apiserver.
func (c *cluster) rest(name string, groups ...string) *rest.Config {
	c.issue(name, pkix.Name{CommonName: name, Organization: groups})
	return &rest.Config{Host: fmt.Sprint("https://127.0.0.1:", c.port), QPS: -1, TLSClientConfig: rest.TLSClientConfig{
		CAFile: c.path("ca.crt"), CertFile: c.path(name + ".crt"), KeyFile: c.path(name + ".key"),
	}}
}

// kubeconfig writes the same as a file.
func (c *cluster) kubeconfig(name string, groups ...string) string {
	r := c.rest(name, groups...)
	k := clientcmdapi.NewConfig()
	k.Clusters["c"] = &clientcmdapi.Cluster{Server: r.Host, CertificateAuthority: r.CAFile}
	k.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificate: r.CertFile, ClientKey: r.KeyFile}
	k.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	k.CurrentContext = "x"
	file := c.path("kubeconfig")
	if err := clientcmd.WriteToFile(*k, file); err != nil {
		c.t.Fatal(err)
	}
	return file
}

// built is where the daemons that tests start are built, each once.
var built struct {
	mu   sync.Mutex
	dir  string
	done map[string]error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "daemons-")
	if err != nil {
		panic(err)
	}
	built.dir, built.done = dir, map[string]error{}
	flag.Parse()
	// Drives wait much more than they work: as many at once as there are processors would take minutes.
	drives := "16"
	if os.Getenv("SEXTANT_CRASH") == "all" {
		drives = "160"             // all drives of those that run at once
		patience = 3 * time.Minute // who measures a node's silence begins anew in each life
		// Several of them make a small machine busy, on which a node that speaks may be held up for longer than the drives' 3 s.
		driveFlags = append(driveFlags, "--node-monitor-grace-period=12s", "--node-startup-grace-period=12s")
	}
	if err := flag.Set("test.parallel", drives); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir) // the system clears what is left
	os.Exit(code)
}

// binaries answers where the binary of a daemon is.
func binaries(daemon string) (string, error) {
	built.mu.Lock()
	defer built.mu.Unlock()
	bin := filepath.Join(built.dir, daemon)
	err, done := built.done[daemon]
	if !done {
		var out []byte
		if out, err = exec.Command("go", "build", "-o", bin, "../../cmd/"+daemon).CombinedOutput(); err != nil {
			err = fmt.Errorf("building the %s: %w\n%s", daemon, err, out)
		}
		built.done[daemon] = err
	}
	return bin, err
}

// apiserver builds and starts the real one, and ends it with the test.
func (c *cluster) apiserver() {
	c.t.Helper()
	bin, err := binaries("apiserver")
	if err != nil {
		c.t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(bin, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprint("--secure-port=", c.port), "--data-dir="+c.path("data"),
		"--cert-dir="+c.dir, "--tls-cert-file="+c.path("apiserver.crt"), "--tls-private-key-file="+c.path("apiserver.key"), "--client-ca-file="+c.path("ca.crt"),
		"--authorization-mode=Node,RBAC", "--service-account-issuer=https://test", "--service-account-key-file="+c.path("sa.key"),
		"--service-account-signing-key-file="+c.path("sa.key"), "--enable-bootstrap-token-auth")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is told to end
		close(ended)
	}()
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if c.t.Failed() {
			c.t.Logf("the apiserver said:\n%s", tail(log.String(), 4000))
		}
	})
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// manager runs the controllers in this process until the test ends.
func (c *cluster) manager(flags ...string) {
	c.t.Helper()
	conf := &Config{Version: "v0.0.0-test"}
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	conf.AddFlags(f)
	port := ports.Free(c.t)
	c.url = fmt.Sprint("https://127.0.0.1:", port)
	args := append([]string{
		"--kubeconfig=" + c.kubeconfig("system:kube-controller-manager"), "--bind-address=127.0.0.1", fmt.Sprint("--secure-port=", port), "--client-ca-file=" + c.path("ca.crt"),
		"--root-ca-file=" + c.path("ca.crt"), "--use-service-account-credentials", "--service-account-private-key-file=" + c.path("sa.key"),
		"--cluster-signing-cert-file=" + c.path("ca.crt"), "--cluster-signing-key-file=" + c.path("ca.key"),
	}, flags...)
	if err := f.Parse(args); err != nil {
		c.t.Fatal(err)
	}
	m, err := New(conf)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	c.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			c.t.Errorf("the controller-manager ended with: %v", err)
		}
	})
}

// get asks the controller-manager for a path, with a certificate if name is given.
func (c *cluster) get(path, name string) (int, string) {
	conf := &tls.Config{InsecureSkipVerify: true} // it makes its certificate itself
	if name != "" {
		cert, err := tls.LoadX509KeyPair(c.path(name+".crt"), c.path(name+".key"))
		if err != nil {
			c.t.Fatal(err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get(c.url + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

// wait waits until f has nothing to complain of.
func wait(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}
