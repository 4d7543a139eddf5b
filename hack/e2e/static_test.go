//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	staticNode    = "sextant-static" // also its cgroup
	staticWire    = "sextant-static"
	staticHost    = "10.89.1.1"
	staticAddress = "10.89.1.2"
)

// machine is a computer as far as its daemons can see. It has a network, joined to this one's by a wire, and folders of
// its own in the places where manifests and daemons look by default, so that both are tried as they are shipped.
type machine struct {
	t   *testing.T
	dir string
	// anchor holds the namespaces; it ends with this process at the latest.
	anchor *exec.Cmd
}

// own are the folders of the machine itself.
var own = []string{"/etc", "/var/lib", "/var/log", "/run"}

// newMachine makes a machine with the files that kubeadm would make.
func newMachine(t *testing.T) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "sextant-static-")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	script := "set -e; mkdir -p $DIR/checkout; mount --bind $ROOT $DIR/checkout\n"
	for _, d := range own {
		if err := os.MkdirAll(m.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
		script += "mount --bind $DIR" + d + " " + d + "\n"
	}
	for name, text := range map[string]string{
		"/etc/hosts": "127.0.0.1 localhost\n", "/etc/resolv.conf": "nameserver 192.0.2.53\n", "/etc/hostname": staticNode + "\n",
		"/etc/os-release": "PRETTY_NAME=Machine\n", "/etc/containerd.toml": staticRuntime(),
		"/var/lib/kubelet/config.yaml": `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: /etc/kubernetes/manifests
cgroupRoot: /` + staticNode + `
authentication: {x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
`,
	} {
		if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m.host(filepath.Join(root, "_out/tools/bin/cluster"), "pki", m.path("/etc/kubernetes"), staticNode, staticAddress)

	m.anchor = exec.Command("unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", script+"echo made; read end")
	m.anchor.Env = append(os.Environ(), "DIR="+dir, "ROOT="+root)
	m.anchor.Stderr = os.Stderr
	in, err := m.anchor.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := m.anchor.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.anchor.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.end(in) })
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "made\n" {
		t.Fatalf("the machine's folders: %q, %v", line, err)
	}
	m.host("ip", "link", "add", staticWire, "type", "veth", "peer", "name", "eth0", "netns", m.pid())
	m.host("ip", "addr", "add", staticHost+"/24", "dev", staticWire)
	m.host("ip", "link", "set", staticWire, "up")
	for _, l := range []string{"link set lo up", "addr add " + staticAddress + "/24 dev eth0", "link set eth0 up", "route add default via " + staticHost} {
		m.inside(append([]string{"ip"}, strings.Fields(l)...)...)
	}
	return m
}

func (m *machine) path(p string) string     { return m.dir + p }
func (m *machine) checkout(p string) string { return filepath.Join(m.dir, "checkout", p) }
func (m *machine) pid() string              { return strconv.Itoa(m.anchor.Process.Pid) }

// staticRuntime is the configuration of the machine's containerd: the one that the cluster of `make up` runs on.
func staticRuntime() string {
	const common = `[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
`
	if !builtRuntime() {
		return "version = 2\n" + common + `[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.sextant.local/pause:3.10"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
`
	}
	return "version = 3\n" + common + `[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "registry.sextant.local/pause:3.10"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
`
}

// builtRuntime tells whether containerd and runc are ours; `make e2e RUNTIME=distro` wants the distribution's.
func builtRuntime() bool { return os.Getenv("RUNTIME") != "distro" }

// host runs a command on this machine, inside on the other one.
func (m *machine) host(args ...string) string {
	m.t.Helper()
	text, err := command(commandLimit, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%v: %v\n%s", args, err, text)
	}
	return strings.TrimSpace(string(text))
}

func (m *machine) enter(args ...string) []string {
	path := m.checkout("bin") + ":" + os.Getenv("PATH")
	if builtRuntime() {
		path = m.checkout("_out/tools/bin") + ":" + path
	}
	return append([]string{"nsenter", "--target", m.pid(), "--mount", "--net", "--wd=/", "--", "env", "PATH=" + path}, args...)
}

func (m *machine) inside(args ...string) string {
	m.t.Helper()
	return m.host(m.enter(args...)...)
}

// daemon starts one on the machine; its log is told when the test fails.
func (m *machine) daemon(args ...string) *exec.Cmd {
	m.t.Helper()
	log, err := os.Create(m.path("/var/log/" + args[0]))
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	words := m.enter(args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if text, _ := os.ReadFile(log.Name()); m.t.Failed() {
			m.t.Logf("%s:\n%s", args[0], text[max(0, len(text)-4000):])
		}
	})
	return cmd
}

// end kills what lives on the machine. With the last process its namespaces go, with them mounts, rules and the wire.
func (m *machine) end(in io.Closer) {
	m.t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for {
		pids := m.inhabitants()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		if len(pids) == 0 {
			break
		}
		if time.Now().After(limit) {
			m.t.Errorf("processes %v of the machine do not end", pids)
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = in.Close()
	_ = m.anchor.Wait() // a shell that reads to the end ends badly
	for _, g := range m.cgroups() {
		if err := syscall.Rmdir(g); err != nil {
			m.t.Error(err)
		}
	}
	for ; ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat("/sys/class/net/" + staticWire); err != nil {
			return
		}
		if time.Now().After(limit) {
			m.t.Errorf("the wire %s stays", staticWire)
			return
		}
	}
}

// cgroups are the machine's, deepest first.
func (m *machine) cgroups() []string {
	var all []string
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + staticNode)
	for _, top := range append(tops, "/sys/fs/cgroup/"+staticNode) {
		_ = filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
	}
	slices.Reverse(all)
	return all
}

// inhabitants are the processes in the machine's cgroup or in its mount namespace, but for the anchor.
func (m *machine) inhabitants() []int {
	var pids []int
	home, _ := os.Readlink("/proc/" + m.pid() + "/ns/mnt")
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		group, _ := os.ReadFile(p + "/cgroup")
		mounts, _ := os.Readlink(p + "/ns/mnt")
		stat, _ := os.ReadFile(p + "/stat")
		pid, _ := strconv.Atoi(filepath.Base(p))
		if pid != m.anchor.Process.Pid && !strings.Contains(string(stat), ") Z ") && (mounts == home && home != "" || strings.Contains(string(group), "/"+staticNode)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kubectl talks to the API that runs on the machine.
func (m *machine) kubectl(args ...string) (string, error) {
	cmd := command(commandLimit, append([]string{kubectl.path, "--kubeconfig", m.path("/etc/kubernetes/admin.conf")}, args...)...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%v: %w: %s", args, err, text)
	}
	return strings.TrimSpace(string(text)), nil
}

func (m *machine) within(limit time.Duration, what string, holds func() error) {
	m.t.Helper()
	cluster{t: m.t, root: root}.within(limit, what, holds)
}

// says waits until kubectl answers something.
func (m *machine) says(limit time.Duration, want string, args ...string) {
	m.t.Helper()
	m.within(limit, strings.Join(args, " "), func() error {
		got, err := m.kubectl(args...)
		if err == nil && got != want {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		return err
	})
}

// unitFlags are the flags of a unit as it is shipped.
func unitFlags(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "manifests/systemd", name+".service"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`"ARGS=([^"]*)"`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("the unit of the %s sets no ARGS", name)
	}
	return strings.Fields(string(found[1]))
}

// TestStaticPods gives a machine what manifests/ ships and nothing else: its kubelet, started with the flags of its unit,
// runs the control plane from static pods, and that control plane runs a deployment.
func TestStaticPods(t *testing.T) {
	m := newMachine(t)
	m.daemon("containerd", "-c", "/etc/containerd.toml")
	for _, image := range []string{"pause", "test", "etcd", "apiserver", "scheduler", "controller-manager"} {
		m.within(20*time.Second, "containerd takes the image of "+image, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
			defer cancel()
			words := m.enter("ctr", "-n", "k8s.io", "images", "import", m.checkout("_out/images/"+image+".tar"))
			if text, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, text)
			}
			return nil
		})
	}
	if err := os.CopyFS(m.path("/etc/kubernetes/manifests"), os.DirFS(filepath.Join(root, "manifests/static-pods"))); err != nil {
		t.Fatal(err)
	}
	kubelet := append([]string{"kubelet", "--hostname-override=" + staticNode, "--node-ip=" + staticAddress}, unitFlags(t, "kubelet")...)
	m.daemon(kubelet...)
	m.says(90*time.Second, "ok", "get", "--raw", "/readyz")
	m.daemon(append([]string{"proxy", "--hostname-override=" + staticNode}, unitFlags(t, "proxy")...)...)

	for _, daemon := range []string{"etcd", "apiserver", "scheduler", "controller-manager"} {
		m.says(60*time.Second, "file Running true", "-n", "kube-system", "get", "pod", daemon+"-"+staticNode,
			"-o", `jsonpath={.metadata.annotations.kubernetes\.io/config\.source} {.status.phase} {.status.containerStatuses[0].ready}`)
	}
	image := cluster{t: t, root: root}.image()
	for _, args := range [][]string{
		{"wait", "--for=condition=Ready", "node/" + staticNode, "--timeout=60s"},
		{"create", "deployment", "web", "--image=" + image, "--replicas=2", "--", "httpd", "-f", "-p", "80", "-h", "/etc"},
		{"expose", "deployment", "web", "--port=80"},
		{"rollout", "status", "deployment/web", "--timeout=60s"},
	} {
		if _, err := m.kubectl(args...); err != nil {
			t.Fatal(err)
		}
	}
	ip, err := m.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		t.Fatal(err)
	}
	m.within(20*time.Second, "the deployment answers through its service", func() error {
		if said, err := command(commandLimit, m.enter(m.checkout("_out/images/wget"), "-qO-", "-T", "2", "http://"+ip+"/hostname")...).CombinedOutput(); err != nil || !strings.HasPrefix(string(said), "web-") {
			return fmt.Errorf("%w: %q", err, said)
		}
		return nil
	})

	// What goes from the folder goes from the machine, and comes back with its file.
	manifest := m.path("/etc/kubernetes/manifests/scheduler.yaml")
	if err := os.Rename(manifest, m.path("/scheduler.yaml")); err != nil {
		t.Fatal(err)
	}
	m.says(60*time.Second, "", "-n", "kube-system", "get", "pod", "scheduler-"+staticNode, "--ignore-not-found", "-o", "name")
	if err := os.Rename(m.path("/scheduler.yaml"), manifest); err != nil {
		t.Fatal(err)
	}
	m.says(60*time.Second, "true", "-n", "kube-system", "get", "pod", "scheduler-"+staticNode, "-o", "jsonpath={.status.containerStatuses[0].ready}")

	// A second kubelet finds the port taken, says so, and leaves the first one's pods alone.
	second := start(t, 30*time.Second, false, "nsenter", m.enter(kubelet...)[1:]...)
	if second.code < 1 || !strings.Contains(second.stderr, "address already in use") {
		t.Errorf("a second kubelet: %+v", second)
	}
	m.says(10*time.Second, "2", "get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}")
}
