package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// These tests start the daemons of `make build` with what a user may get wrong. Each must end soon, with a code that is
// not 0, one line on stderr that names the fault, and nothing on the disk. They run in a network namespace of their own,
// so that a daemon which starts against expectation harms nobody.

// daemon answers the path of a built daemon.
func daemon(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; make build makes it", err)
	}
	return path
}

// apart gives this goroutine, and what it starts, a network of its own: a loopback device and nothing else.
func apart(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network namespace needs root: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
}

// said is how a daemon ended.
type said struct {
	code           int // -1: it had to be killed
	stdout, stderr string
}

// start runs a daemon to its end, or kills it when the time is over.
func start(t *testing.T, limit time.Duration, nobody bool, path string, args ...string) said {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	if nobody {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // the code tells
	return said{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// refused sees that the daemon ended as it should, naming all that is wanted.
func refused(t *testing.T, what string, s said, want ...string) {
	t.Helper()
	if s.code < 1 {
		t.Errorf("%s: the exit code is %d (-1: it ran on)", what, s.code)
	}
	if s.stdout != "" {
		t.Errorf("%s: stdout is for answers, not for %q", what, s.stdout)
	}
	if strings.Count(s.stderr, "\n") != 1 || !strings.HasSuffix(s.stderr, "\n") {
		t.Errorf("%s: want one line, got:\n%s", what, s.stderr)
	}
	for _, w := range want {
		if !strings.Contains(s.stderr, w) {
			t.Errorf("%s: want %q in %q", what, w, s.stderr)
		}
	}
}

// place is a folder with what the cases name, and an empty one that the daemons are told to keep their things in.
func place(t *testing.T) (dir, kept string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "input") // unlike t.TempDir, others may be let in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	kept = filepath.Join(dir, "kept")
	if err := os.Mkdir(kept, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"malformed": "apiVersion: [", "empty": "",
		"provider":   "{apiVersion: kubelet.config.k8s.io/v1, kind: CredentialProviderConfig, providers: [{name: helper, matchImages: ['*.example'], defaultCacheDuration: 1h, apiVersion: credentialprovider.kubelet.k8s.io/v1}]}",
		"hasty":      "{apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration, shutdownGracePeriod: 10s, shutdownGracePeriodCriticalPods: 30s}",
		"kubeconfig": "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], contexts: [{name: c, context: {cluster: c}}]}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, kept
}

func TestInputIsRefused(t *testing.T) {
	apart(t)
	dir, kept := place(t)
	busy, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := fmt.Sprint(busy.Addr().(*net.TCPAddr).Port)

	missing, malformed, kubeconfig := filepath.Join(dir, "missing"), filepath.Join(dir, "malformed"), filepath.Join(dir, "kubeconfig")
	provider, hasty := filepath.Join(dir, "provider"), filepath.Join(dir, "hasty")
	always := map[string][]string{
		"apiserver": {"--cert-dir=" + filepath.Join(kept, "certs"), "--data-dir=" + filepath.Join(kept, "data"), "--advertise-address=192.0.2.1"},
		"kubelet":   {"--root-dir=" + filepath.Join(kept, "kubelet"), "--cert-dir=" + filepath.Join(kept, "certs"), "--container-runtime-endpoint=unix://" + missing},
		"proxy":     {"--cni-conf-dir=" + filepath.Join(kept, "cni"), "--cni-data-dir=" + filepath.Join(kept, "ipam")},
	}
	known := []string{"--kubeconfig=" + kubeconfig}
	type input struct {
		daemon string
		args   []string
		want   []string
	}
	var cases []input
	for _, d := range []string{"apiserver", "scheduler", "controller-manager", "kubelet", "proxy", "ctl"} {
		cases = append(cases, input{d, []string{"--no-such-flag"}, []string{"unknown flag: --no-such-flag", "--help"}})
		if d == "apiserver" || d == "ctl" {
			continue
		}
		cases = append(cases,
			input{d, []string{"--kubeconfig=" + missing}, []string{"--kubeconfig", missing, "no such file"}},
			input{d, []string{"--kubeconfig=" + malformed}, []string{"--kubeconfig", malformed, "yaml: line 1"}},
			input{d, nil, []string{"--kubeconfig"}},
			input{d, append([]string{"stray"}, known...), []string{`unexpected argument "stray"`}},
		)
	}
	cases = append(cases,
		input{"ctl", []string{"get", "pods", "--kubeconfig=" + missing}, []string{missing, "no such file"}},
		input{"ctl", []string{"get", "pods", "--kubeconfig=" + malformed}, []string{malformed, "yaml: line 1"}},
		input{"ctl", []string{"get", "pods", "--chunk-size=few"}, []string{`invalid argument "few" for "--chunk-size"`}},

		input{"apiserver", []string{"--secure-port=" + port}, []string{"--secure-port", "address already in use", "choose another"}},
		input{"scheduler", append(known, "--secure-port="+port), []string{"--secure-port", "address already in use", "choose another"}},
		input{"controller-manager", append(known, "--secure-port="+port), []string{"--secure-port", "address already in use", "choose another"}},
		input{"proxy", append(known, "--healthz-bind-address=0.0.0.0:"+port), []string{"--healthz-bind-address", "address already in use", "choose another"}},
		input{"proxy", append(known, "--metrics-bind-address=0.0.0.0:"+port), []string{"--metrics-bind-address", "address already in use", "choose another"}},

		input{"apiserver", []string{"stray"}, []string{`unexpected argument "stray"`}},
		input{"apiserver", []string{"--secure-port=https"}, []string{`invalid argument "https" for "--secure-port"`}},
		input{"apiserver", []string{"--secure-port=70000"}, []string{"--secure-port 70000", "1 to 65535"}},
		input{"apiserver", []string{"--authorization-mode=Guess"}, []string{"--authorization-mode", "Guess", "RBAC"}},
		input{"apiserver", []string{"--enable-admission-plugins=Guess"}, []string{"--enable-admission-plugins", "Guess"}},
		input{"apiserver", []string{"--service-cluster-ip-range=10.96.0.0"}, []string{"--service-cluster-ip-range", "10.96.0.0"}},
		input{"apiserver", []string{"--service-node-port-range=30000"}, []string{"--service-node-port-range", "30000-32767"}},
		input{"apiserver", []string{"--etcd-servers=etcd:2379"}, []string{"--etcd-servers", "https://127.0.0.1:2379"}},
		input{"apiserver", []string{"--etcd-servers-overrides=/events=https://127.0.0.1:1"}, []string{"--etcd-servers-overrides", "/events=https://127.0.0.1:1", "group/resource#https://127.0.0.1:2379"}},
		input{"apiserver", []string{"--etcd-servers-overrides=/events#etcd:2379"}, []string{"--etcd-servers-overrides", "etcd:2379", "https://127.0.0.1:2379"}},
		input{"apiserver", []string{"--etcd-servers=https://127.0.0.1:1", "--etcd-cafile=" + missing}, []string{"--etcd-cafile", missing}},
		input{"apiserver", []string{"--etcd-servers=https://127.0.0.1:1", "--etcd-cafile=" + malformed}, []string{"--etcd-cafile", malformed, "no certificate"}},
		input{"apiserver", []string{"--tls-cert-file=" + missing, "--tls-private-key-file=" + missing}, []string{"--tls-cert-file", "--tls-private-key-file", missing}},
		input{"apiserver", []string{"--tls-cert-file=" + malformed, "--tls-private-key-file=" + malformed}, []string{"serving certificate", "PEM"}},
		input{"apiserver", []string{"--tls-cert-file=" + malformed}, []string{"--tls-cert-file and --tls-private-key-file belong together"}},
		input{"apiserver", []string{"--client-ca-file=" + missing}, []string{"--client-ca-file", missing}},
		input{"apiserver", []string{"--client-ca-file=" + malformed}, []string{"--client-ca-file", malformed, "no certificate"}},
		input{"apiserver", []string{"--service-account-issuer=https://x", "--service-account-signing-key-file=" + malformed}, []string{"--service-account-signing-key-file", malformed}},
		input{"apiserver", []string{"--service-account-key-file=" + missing}, []string{"--service-account-key-file", missing}},
		input{"apiserver", []string{"--token-auth-file=" + missing}, []string{"--token-auth-file", missing}},
		input{"apiserver", []string{"--data-dir=/proc/none"}, []string{"--data-dir", "/proc/none"}},

		input{"scheduler", []string{"--config=" + missing}, []string{"--config", missing, "no such file"}},
		input{"scheduler", []string{"--config=" + malformed}, []string{"--config", malformed, "yaml: line 1"}},
		input{"scheduler", append(known, "--tls-cert-file="+missing, "--tls-private-key-file="+missing), []string{"--tls-cert-file", missing}},

		input{"controller-manager", append(known, "--controllers=guess"), []string{"--controllers", "guess"}},
		input{"controller-manager", append(known, "--allocate-node-cidrs"), []string{"--cluster-cidr"}},
		input{"controller-manager", append(known, "--allocate-node-cidrs", "--cluster-cidr=10.244.0.0"), []string{"--cluster-cidr", "10.244.0.0"}},
		input{"controller-manager", append(known, "--root-ca-file="+missing), []string{"--root-ca-file", missing}},
		input{"controller-manager", append(known, "--tls-cert-file="+missing, "--tls-private-key-file="+missing), []string{"--tls-cert-file", missing}},

		input{"kubelet", []string{"--config=" + missing}, []string{"--config", missing, "no such file"}},
		input{"kubelet", []string{"--config=" + malformed}, []string{"--config", malformed, "yaml: line 1"}},
		input{"kubelet", append(known, "--node-ip=here"), []string{"--node-ip", "here"}},
		input{"kubelet", append(known, "--image-credential-provider-config="+provider), []string{"--image-credential-provider-config", "--image-credential-provider-bin-dir", "give the one that lacks"}},
		input{"kubelet", append(known, "--image-credential-provider-config="+missing, "--image-credential-provider-bin-dir="+dir), []string{"--image-credential-provider-config", missing, "no such file"}},
		input{"kubelet", append(known, "--image-credential-provider-config="+malformed, "--image-credential-provider-bin-dir="+dir), []string{"--image-credential-provider-config", malformed, "yaml: line 1"}},
		input{"kubelet", append(known, "--image-credential-provider-config="+provider, "--image-credential-provider-bin-dir="+missing), []string{"--image-credential-provider-bin-dir", missing + "/helper"}},
		input{"kubelet", append(known, "--config="+hasty), []string{"shutdownGracePeriodCriticalPods", "cannot be longer"}},
		input{"kubelet", append(known, "--port=https"), []string{`invalid argument "https" for "--port"`}},

		input{"proxy", []string{"--config=" + missing}, []string{"--config", missing, "no such file"}},
		input{"proxy", append(known, "--proxy-mode=guess"), []string{"--proxy-mode", "guess", "iptables"}},
		input{"proxy", append(known, "--cluster-cidr=10.244.0.0"), []string{"--cluster-cidr", "10.244.0.0"}},
		input{"proxy", append(known, "--pod-network=guess"), []string{"--pod-network", "guess", "host-gw"}},
	)
	for _, c := range cases {
		what := c.daemon + " " + strings.Join(c.args, " ")
		s := start(t, 20*time.Second, false, daemon(t, c.daemon), append(slices.Clone(always[c.daemon]), c.args...)...)
		if c.daemon == "ctl" {
			// kubectl's own second line says where help is.
			s.stderr = strings.Replace(s.stderr, "\nSee 'ctl", "; see 'ctl", 1)
		}
		refused(t, what, s, c.want...)
		nothingKept(t, what, kept)
	}
}

// nothingKept fails when a daemon left something. A serving certificate that was made is whole and will be used again.
func nothingKept(t *testing.T, what, kept string) {
	t.Helper()
	entries, err := os.ReadDir(kept)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "certs" {
			t.Errorf("%s: left %s behind", what, e.Name())
		}
		if err := os.RemoveAll(filepath.Join(kept, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInputWithoutRoot(t *testing.T) {
	apart(t)
	dir, kept := place(t)
	for _, name := range []string{"kubelet", "proxy"} {
		// The daemons may lie where nobody but root can look.
		copied := filepath.Join(dir, name)
		data, err := os.ReadFile(daemon(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, data, 0o755); err != nil {
			t.Fatal(err)
		}
		s := start(t, 10*time.Second, true, copied, "--kubeconfig="+filepath.Join(dir, "kubeconfig"))
		refused(t, name+" as nobody", s, "root")
		nothingKept(t, name+" as nobody", kept)
	}
}

func TestInputWithoutARuntime(t *testing.T) {
	t.Parallel() // it gives a runtime that may be starting too 20 s
	apart(t)
	dir, kept := place(t)
	socket := "unix://" + filepath.Join(dir, "missing.sock")
	s := start(t, 40*time.Second, false, daemon(t, "kubelet"), "--kubeconfig="+filepath.Join(dir, "kubeconfig"), "--root-dir="+filepath.Join(kept, "kubelet"),
		"--cert-dir="+filepath.Join(kept, "pki"), "--container-runtime-endpoint="+socket)
	refused(t, "kubelet without containerd", s, "no container runtime", socket, "--container-runtime-endpoint")
	nothingKept(t, "kubelet without containerd", kept)
}

// An apiserver may start before its etcd. It waits, says for what, and obeys a signal.
func TestInputWithoutEtcd(t *testing.T) {
	t.Parallel()
	apart(t)
	_, kept := place(t)
	cmd := exec.Command(daemon(t, "apiserver"), "--etcd-servers=http://127.0.0.1:1", "--secure-port=6443", "--advertise-address=192.0.2.1",
		"--cert-dir="+filepath.Join(kept, "certs"), "--data-dir="+filepath.Join(kept, "data"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(9 * time.Second) // it speaks after 5 s and a ping
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("it did not wait: %v", err)
	}
	begun := time.Now()
	if err := cmd.Wait(); err != nil || time.Since(begun) > 10*time.Second {
		t.Errorf("asked to end while it waits for etcd: %v after %s", err, time.Since(begun))
	}
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(stderr.String()), "\n"), func(l string) bool { return !strings.Contains(l, "etcd does not answer") })
	if len(lines) != 1 || !strings.Contains(lines[0], "http://127.0.0.1:1") {
		t.Errorf("want one line about the etcd that is not there, got:\n%s", stderr.String())
	}
	nothingKept(t, "apiserver without etcd", kept)
}
