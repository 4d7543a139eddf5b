package realtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sextant-k8s/sextant/pkg/kubelet"
)

const (
	nodeIP    = "198.51.100.1"
	serverURL = "https://" + nodeIP + ":6443"
	nodeName  = "n1"
	image     = "registry.sextant.local/busybox:1"
	repoRoot  = "../../.."
)

// machine is one node with its own control plane.
type machine struct {
	dir    string
	ca     *authority
	admin  *kubernetes.Clientset
	rest   *rest.Config
	daemon []*exec.Cmd

	engine engine

	// killed: the runtime was, and a namespace it had just made and told nobody of is its own affair.
	killed bool

	// shortage is how little memory is too little for the kubelet that starts next; empty is next to nothing.
	shortage string

	log  *os.File
	stop context.CancelFunc
	done chan error
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// boot brings the network, the runtime, the API and the kubelet up, in this order.
func boot(dir string) (*machine, error) {
	m := &machine{dir: dir, ca: &authority{dir: filepath.Join(dir, "pki")}}
	for _, d := range []string{"pki", "cdi", "cni", "manifests", "run"} {
		if err := os.MkdirAll(m.path(d), 0o755); err != nil {
			return nil, err
		}
	}
	for _, args := range [][]string{
		{"ip", "link", "set", "lo", "up"}, {"ip", "link", "add", "uplink", "type", "bridge"},
		{"ip", "addr", "add", nodeIP + "/24", "dev", "uplink"}, {"ip", "link", "set", "uplink", "up"},
		{"ip", "route", "add", "default", "dev", "uplink"}, {"sysctl", "-qw", "net.ipv4.ip_forward=1"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	if err := m.credentials(); err != nil {
		return nil, err
	}
	if err := m.startRuntime(); err != nil {
		return nil, err
	}
	if err := m.startAPI(); err != nil {
		return nil, err
	}
	if err := m.startKubelet(nil); err != nil {
		return nil, err
	}
	return m, within(2*time.Minute, func() error {
		n, err := m.admin.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == v1.NodeReady && c.Status != v1.ConditionTrue {
				return errors.New(c.Message)
			}
		}
		return nil
	})
}

func (m *machine) credentials() error {
	return errors.Join(
		m.ca.issue("ca", "realtest", nil),
		m.ca.issue("apiserver", "kube-apiserver", nil, nodeIP, "127.0.0.1", "10.96.0.1"),
		m.ca.issue("sa", "service-accounts", nil),
		m.ca.issue("kubelet-client", "kube-apiserver-kubelet-client", []string{"system:masters"}),
		m.ca.kubeconfig(m.path("admin.kubeconfig"), "admin", "admin", "system:masters"),
		m.ca.kubeconfig(m.path("kubelet.kubeconfig"), "node", "system:node:"+nodeName, "system:nodes"),
	)
}

// program is the path of a built one; a missing one names the command which builds it.
func program(parts ...string) (string, error) {
	path, err := filepath.Abs(filepath.Join(append([]string{repoRoot}, parts...)...))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("%w; `make needs` builds what these tests need", err)
	}
	return path, nil
}

func (m *machine) startRuntime() error {
	r, err := m.programs()
	if err != nil {
		return err
	}
	m.engine = r
	cni := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [
{"type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true, "ipam": {"type": "host-local", "dataDir": %q,
 "ranges": [[{"subnet": "10.210.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
{"type": "portmap", "capabilities": {"portMappings": true}}]}`, m.path("ipam"))
	if err := errors.Join(os.WriteFile(m.path("cni/10-pods.conflist"), []byte(cni), 0o644),
		os.WriteFile(m.path("containerd.toml"), r.config(m), 0o644)); err != nil {
		return err
	}
	if err := m.runtimeUp(); err != nil {
		return err
	}
	for _, name := range []string{"pause", "test"} {
		archive, err := program("_out/images", name+".tar")
		if err != nil {
			return err
		}
		if out, err := exec.Command(m.engine.ctr, "-a", m.path("run/containerd.sock"), "-n", "k8s.io", "images", "import", archive).CombinedOutput(); err != nil {
			return fmt.Errorf("importing %s: %w: %s", archive, err, out)
		}
	}
	return nil
}

// runtimeUp starts containerd and waits for its socket.
func (m *machine) runtimeUp() error {
	if err := m.start("containerd", m.engine.containerd, "-c", m.path("containerd.toml")); err != nil {
		return err
	}
	return within(time.Minute, func() error {
		return exec.Command(m.engine.ctr, "-a", m.path("run/containerd.sock"), "--timeout", "10s", "version").Run()
	})
}

func (m *machine) startAPI() error {
	apiserver, err := program("bin/apiserver")
	if err != nil {
		return err
	}
	err = m.start("apiserver", apiserver, "--secure-port", "6443", "--allow-privileged", "--advertise-address", nodeIP, "--data-dir", m.path("etcd"),
		"--tls-cert-file", m.ca.path("apiserver.crt"), "--tls-private-key-file", m.ca.path("apiserver.key"), "--client-ca-file", m.ca.path("ca.crt"),
		"--authorization-mode", "Node,RBAC", "--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", m.ca.path("sa.key"), "--service-account-signing-key-file", m.ca.path("sa.key"),
		"--kubelet-client-certificate", m.ca.path("kubelet-client.crt"), "--kubelet-client-key", m.ca.path("kubelet-client.key"),
		"--kubelet-preferred-address-types", "InternalIP", "--enable-bootstrap-token-auth")
	if err != nil {
		return err
	}
	if m.rest, err = clientcmd.BuildConfigFromFlags("", m.path("admin.kubeconfig")); err != nil {
		return err
	}
	m.rest.QPS = -1
	if m.admin, err = kubernetes.NewForConfig(m.rest); err != nil {
		return err
	}
	return within(2*time.Minute, func() error {
		_, err := m.admin.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		return err
	})
}

// start runs a daemon whose output goes to a file of its name.
func (m *machine) start(name, path string, args ...string) error {
	log, err := os.OpenFile(m.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	m.daemon = append(m.daemon, cmd)
	return nil
}

// kubeletConfig is the file most tests run with: short periods, so that nothing waits for what real nodes wait for. However full the
// machine's disk is, no image is collected for it.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: "unix://%[1]s/run/containerd.sock"
staticPodPath: "%[1]s/manifests"
podLogsDir: "%[1]s/pods"
cgroupRoot: "%[2]s"
authentication: {x509: {clientCAFile: "%[1]s/pki/ca.crt"}}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
syncFrequency: 3s
nodeStatusUpdateFrequency: 2s
volumeStatsAggPeriod: 3s
containerLogMaxSize: 64Ki
containerLogMaxFiles: 3
containerLogMonitorInterval: 3s
serializeImagePulls: false
allowedUnsafeSysctls: ["kernel.msg*"]
evictionHard: {memory.available: %[3]s, nodefs.available: 1%%, nodefs.inodesFree: 1%%, imagefs.available: 1%%}
imageGCHighThresholdPercent: 100
`

// startKubelet runs a kubelet in this process; change may alter its configuration first.
func (m *machine) startKubelet(change func(*kubelet.Config)) error {
	file := m.path("kubelet.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, kubeletConfig, m.dir, "/"+filepath.Base(m.dir), cmp.Or(m.shortage, "10Mi")), 0o644); err != nil {
		return err
	}
	if m.log == nil {
		var err error
		if m.log, err = os.OpenFile(m.path("kubelet.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
			return err
		}
	}
	opener, err := m.provider()
	if err != nil {
		return err
	}
	flags, level, _, err := kubelet.ParseFlags(append(opener, "--config", file, "--kubeconfig", m.path("kubelet.kubeconfig"), "--hostname-override", nodeName,
		"--node-ip", nodeIP, "--root-dir", m.path("kubelet"), "--node-labels", "tier=test", "--v", "4"))
	if err != nil {
		return err
	}
	cfg, err := kubelet.Load(context.Background(), flags, kubelet.Release, slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: level})))
	if err != nil {
		return err
	}
	if change != nil {
		change(&cfg)
	}
	k, err := kubelet.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.stop, m.done = cancel, make(chan error, 1)
	go func() { m.done <- k.Run(ctx) }()
	return nil
}

// stopKubelet ends the kubelet; pods run on.
func (m *machine) stopKubelet() error {
	m.stop()
	select {
	case err := <-m.done:
		return err
	case <-time.After(30 * time.Second):
		return errors.New("the kubelet does not stop")
	}
}

// halt deletes every pod and then looks for what is left of them.
func (m *machine) halt() error {
	ctx := context.Background()
	grace := int64(1)
	spaces, err := m.admin.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	entries, _ := os.ReadDir(m.path("manifests"))
	for _, e := range entries {
		_ = os.Remove(m.path("manifests/" + e.Name()))
	}
	for _, ns := range spaces.Items {
		_ = m.admin.CoreV1().Pods(ns.Name).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &grace}, metav1.ListOptions{})
	}
	err = within(40*time.Second, func() error { return m.left() })
	if e := m.stopKubelet(); err == nil {
		err = e
	}
	for i := len(m.daemon) - 1; i >= 0; i-- {
		_ = m.daemon[i].Process.Signal(syscall.SIGTERM)
		_ = m.daemon[i].Wait()
	}
	if err != nil || os.Getenv("KEEP_LOGS") != "" {
		for _, n := range []string{"kubelet", "containerd", "apiserver"} {
			_ = exec.Command("cp", m.path(n+".log"), "/tmp/realtest-"+n+".log").Run()
		}
	}
	return err
}

// left is what remains of pods: objects, folders, mounts, cgroups, log folders, processes, addresses.
func (m *machine) left() error {
	pods, err := m.admin.CoreV1().Pods("").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	var what []string
	for _, p := range pods.Items {
		what = append(what, "pod "+p.Namespace+"/"+p.Name)
	}
	for _, dir := range []string{m.path("kubelet/pods"), m.path("pods"), m.path("containers")} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			what = append(what, filepath.Join(dir, e.Name()))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for _, l := range strings.Split(string(mounts), "\n") {
		if strings.Contains(l, m.path("kubelet")) || strings.Contains(l, m.path("run")) && (strings.Contains(l, "/rootfs ") || !m.killed && strings.Contains(l, "/netns/")) {
			what = append(what, "mount "+l)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/%s/kubepods/pod*", "/sys/fs/cgroup/*/%s/kubepods/*/pod*", "/sys/fs/cgroup/%s/kubepods/*/pod*"} {
		found, _ := filepath.Glob(fmt.Sprintf(pattern, filepath.Base(m.dir)))
		what = append(what, found...)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, path := range processes {
		// One that has gone meanwhile is not left.
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), filepath.Base(m.dir)+"/kubepods/") {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			what = append(what, fmt.Sprintf("process %s %q", filepath.Dir(path), command))
		}
	}
	if addresses, _ := filepath.Glob(m.path("ipam/pods/*.*.*.*")); !m.killed {
		what = append(what, addresses...)
	}
	if len(what) > 0 {
		return fmt.Errorf("left behind:\n  %s", strings.Join(what, "\n  "))
	}
	return nil
}

// within tries until it works or the time is over.
func within(limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(30 * time.Millisecond)
	}
}

// rotated are the log files of a pod's container c.
func (m *machine) rotated(p *v1.Pod) []string {
	files, _ := filepath.Glob(m.path("pods/" + p.Namespace + "_" + p.Name + "_" + string(p.UID) + "/c/*"))
	return files
}
