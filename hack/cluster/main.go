// Command cluster starts and ends a real cluster on one machine: etcd, the control plane, and nodes which are network
// namespaces with their own container runtime, kubelet and proxy.
//
//	cluster [flags] up | down | free | start <daemon> | stop <daemon> | kill <daemon> | cut <node> | heal <node>
//	cluster census <file> | same <file>
//	cluster pki <folder> <node> <address>
//
// up is idempotent: what stands is left alone, what is missing is made. A machine has room for one cluster; up, down and
// free say where another one stands. Daemons outlive this program; pid files with start times say which are ours.
// census writes down what is on the machine, and same fails when the machine has changed since. pki makes the files of a
// control-plane node where kubeadm puts them. There is no concurrency here: steps run in order.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	server = "https://" + hostIP + ":6443"
	// nodeGrace is two missed heartbeats of a kubelet: on one machine there is no slow network to be patient with.
	nodeGrace = "20s"
)

var (
	out        string
	outFlag    = flag.String("out", "_out", "where everything of the cluster is kept")
	binDir     = flag.String("bin", "bin", "where the daemons are")
	count      = flag.Int("nodes", 2, "how many nodes")
	proxyMode  = flag.String("proxy-mode", "iptables", "back end of the proxy")
	podNetwork = flag.String("pod-network", "host-gw", "how pods of different nodes meet: host-gw, vxlan, or flannel for a third party's network")
	runtime    = flag.String("runtime", "built", "built: containerd and runc of _out/tools/bin; distro: those of the PATH")
	addons     = flag.String("addons", "manifests/addons", "manifests applied once the API answers")
	helper     = flag.String("helper-image", "registry.sextant.local/busybox:1", "name of the image that makes directories for claims")
	pauseImage = flag.String("pause-image", "", "name of the pause image")
)

func bin(name string) string { return filepath.Join(*binDir, name) }

// tool is the path of a program of the container runtime.
func tool(name string) string {
	if *runtime == "distro" {
		return name
	}
	return filepath.Join(out, "tools", "bin", name)
}

func adminConfig() string { return filepath.Join(out, "admin.kubeconfig") }

func main() {
	flag.Parse()
	if err := run(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("root is needed to make namespaces and mounts; run it with sudo")
	}
	for _, p := range []struct{ to, from *string }{{&out, outFlag}, {binDir, binDir}} {
		if *p.to, err = filepath.Abs(*p.from); err != nil {
			return err
		}
	}
	verb, name := "", ""
	if len(args) > 0 {
		verb = args[0]
	}
	if len(args) > 1 {
		name = args[1]
	}
	switch {
	case verb == "up":
		return up()
	case verb == "down":
		return down()
	case verb == "free":
		return free()
	case verb == "census" && name != "":
		return writeCensus(name)
	case verb == "same" && name != "":
		return sameCensus(name)
	case verb == "pki" && len(args) == 4:
		return kubeadmFiles(args[1], args[2], args[3])
	}
	if err := errors.Join(ours(), recallSettings()); err != nil {
		return err
	}
	switch {
	case verb == "start" && name != "":
		return startOne(name)
	case verb == "stop" && name != "":
		return stop(name, syscall.SIGTERM)
	case verb == "kill" && name != "":
		return stop(name, syscall.SIGKILL)
	case verb == "cut" || verb == "heal":
		for _, n := range nodes(*count) {
			if n.name == name {
				return sh("ip", "link", "set", n.veth(), map[string]string{"cut": "down", "heal": "up"}[verb])
			}
		}
	}
	return fmt.Errorf("want up, down, free, start <daemon>, stop <daemon>, kill <daemon>, cut <node>, heal <node>, census <file>, same <file> or pki <folder> <node> <address>; got %q", args)
}

// controlPlane are the processes of the host, in the order they start.
func controlPlane(ca *authority) []process {
	config := func(name string) string { return ca.path(name + ".kubeconfig") }
	return []process{
		{"etcd", []string{filepath.Join(out, "tools", "bin", "etcd"), "--data-dir", filepath.Join(out, "etcd"), "--name", "sextant",
			"--listen-client-urls", "https://127.0.0.1:2379", "--advertise-client-urls", "https://127.0.0.1:2379",
			"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
			"--initial-cluster", "sextant=http://127.0.0.1:2380", "--client-cert-auth", "--trusted-ca-file", ca.path("ca.crt"),
			"--cert-file", ca.path("etcd.crt"), "--key-file", ca.path("etcd.key")}, ""},
		{"apiserver", []string{bin("apiserver"), "--secure-port", "6443", "--allow-privileged", "--advertise-address", hostIP,
			"--etcd-servers", "https://127.0.0.1:2379", "--etcd-cafile", ca.path("ca.crt"),
			"--etcd-certfile", ca.path("etcd.crt"), "--etcd-keyfile", ca.path("etcd.key"),
			"--tls-cert-file", ca.path("apiserver.crt"), "--tls-private-key-file", ca.path("apiserver.key"),
			"--client-ca-file", ca.path("ca.crt"), "--requestheader-client-ca-file", ca.path("front-proxy-ca.crt"),
			"--requestheader-allowed-names", "front-proxy-client", "--requestheader-username-headers", "X-Remote-User",
			"--requestheader-group-headers", "X-Remote-Group", "--requestheader-extra-headers-prefix", "X-Remote-Extra-",
			"--proxy-client-cert-file", ca.path("front-proxy-client.crt"), "--proxy-client-key-file", ca.path("front-proxy-client.key"),
			"--authorization-mode", "Node,RBAC", "--service-cluster-ip-range", serviceNet,
			"--service-account-issuer", "https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file", ca.path("sa.key"), "--service-account-signing-key-file", ca.path("sa.key"),
			"--kubelet-client-certificate", ca.path("kubelet-client.crt"), "--kubelet-client-key", ca.path("kubelet-client.key"),
			"--kubelet-preferred-address-types", "InternalIP", "--enable-bootstrap-token-auth"}, ""},
		{"scheduler", []string{bin("scheduler"), "--kubeconfig", config("scheduler")}, ""},
		{"controller-manager", []string{bin("controller-manager"), "--kubeconfig", config("controller-manager"),
			"--node-monitor-grace-period", nodeGrace, "--allocate-node-cidrs", "--cluster-cidr", podNet, "--root-ca-file", ca.path("ca.crt"),
			"--use-service-account-credentials", "--service-account-private-key-file", ca.path("sa.key"), "--load-balancer-pool", balancerNet,
			"--local-path-helper-image", *helper, "--local-path-dir", filepath.Join(out, "volumes"),
			"--cluster-signing-cert-file", ca.path("ca.crt"), "--cluster-signing-key-file", ca.path("ca.key")}, ""},
	}
}

// credentials issues what the control plane and the user need.
func credentials() (*authority, error) {
	ca, err := newAuthority(filepath.Join(out, "pki"))
	if err != nil {
		return nil, err
	}
	// By an authority of its own the apiserver proves to aggregated servers that it may speak for others.
	front, err := newAuthorityNamed(ca.dir, "front-proxy-ca")
	if err != nil {
		return nil, err
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	for _, err := range []error{
		ca.issue("etcd", leaf("etcd", nil, []string{"localhost"}, "127.0.0.1")),
		ca.issue("apiserver", leaf("kube-apiserver", nil, names, "127.0.0.1", hostIP, "10.96.0.1")),
		front.issue("front-proxy-client", leaf("front-proxy-client", nil, nil)),
		ca.issue("sa", leaf("service-accounts", nil, nil)),
		ca.issue("kubelet-client", leaf("kube-apiserver-kubelet-client", []string{"system:masters"}, nil)),
		ca.kubeconfig(ca.path("scheduler.kubeconfig"), "scheduler", server, "system:kube-scheduler"),
		ca.kubeconfig(ca.path("controller-manager.kubeconfig"), "controller-manager", server, "system:kube-controller-manager"),
		ca.kubeconfig(adminConfig(), "admin", server, "kubernetes-admin", "system:masters"),
	} {
		if err != nil {
			return nil, err
		}
	}
	return ca, nil
}

func up() error {
	begun := time.Now()
	say := func(what string) { fmt.Printf("%5.1fs  %s\n", time.Since(begun).Seconds(), what) }
	if err := ours(); err != nil {
		return err
	}
	say("network and certificates")
	if err := raiseBridge(); err != nil {
		return err
	}
	if err := keepSettings(); err != nil {
		return err
	}
	ca, err := credentials()
	if err != nil {
		return err
	}
	for _, p := range controlPlane(ca) {
		say(p.name)
		if err := p.start(); err != nil {
			return err
		}
		if p.name == "apiserver" {
			err := within(30*time.Second, func() error { return sh(bin("ctl"), "--kubeconfig", adminConfig(), "get", "--raw", "/readyz") })
			if err != nil {
				return err
			}
			if err := sh(bin("ctl"), "--kubeconfig", adminConfig(), "apply", "-f", *addons); err != nil {
				return err
			}
		}
	}
	all := nodes(*count)
	for _, n := range all {
		say(n.name)
		if err := n.up(ca); err != nil {
			return err
		}
	}
	for _, n := range all {
		if err := n.route(); err != nil {
			return err
		}
		if byFlannel() {
			if err := n.joinByFlannel(); err != nil {
				return err
			}
		}
	}
	// Any node answers for a cluster IP and for a load balancer; what comes from outside the pod network is masqueraded there.
	for _, net := range []string{serviceNet, balancerNet} {
		if err := sh("ip", "route", "replace", net, "via", all[0].ip()); err != nil {
			return err
		}
	}
	if err := sh(bin("ctl"), "--kubeconfig", adminConfig(), "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s"); err != nil {
		return err
	}
	say("ready")
	fmt.Printf("\nexport KUBECONFIG=%s\nbin/ctl get nodes\nbin/ctl create deployment web --image=$(make -s print-test-image) --replicas=4 -- httpd -f -p 80\n", adminConfig())
	return nil
}

// startOne starts a daemon of the standing cluster by its name.
func startOne(name string) error {
	ca, err := newAuthority(filepath.Join(out, "pki"))
	if err != nil {
		return err
	}
	all := controlPlane(ca)
	for _, n := range nodes(*count) {
		all = append(all, n.daemons()...)
	}
	for _, p := range all {
		if p.name == name {
			return p.start()
		}
	}
	return fmt.Errorf("no daemon %s", name)
}
