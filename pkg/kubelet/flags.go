package kubelet

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/pflag"
)

// Release is the Kubernetes release whose behaviour this kubelet has.
const Release = "v1.37.2"

// ErrHelp: the flags were asked for and have been printed.
var ErrHelp = pflag.ErrHelp

// ParseFlags reads the command line: the flags, the log level, and whether only the version is asked for.
func ParseFlags(args []string) (f Flags, level slog.Level, version bool, err error) {
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	var v int
	var unused string
	var anonymous, webhook, swap bool
	fs.StringVar(&f.Config, "config", "", "file of kind KubeletConfiguration")
	fs.StringVar(&f.ConfigDir, "config-dir", "", "folder of *.conf files which override --config, in order")
	fs.StringVar(&f.Kubeconfig, "kubeconfig", "", "how to reach the API server; without it only static pods run")
	fs.StringVar(&f.Bootstrap, "bootstrap-kubeconfig", "", "kubeconfig with a token, which gets the certificate of --kubeconfig when that is missing")
	fs.StringVar(&f.HostnameOverride, "hostname-override", "", "node name instead of the host's")
	fs.StringVar(&f.NodeIP, "node-ip", "", "address of the node, or two, comma-separated")
	fs.StringVar(&f.RootDir, "root-dir", "/var/lib/kubelet", "folder for volumes and state")
	fs.StringVar(&f.RuntimeEndpoint, "container-runtime-endpoint", "", "socket of the container runtime")
	fs.StringVar(&f.ImageEndpoint, "image-service-endpoint", "", "socket of the image service, when another")
	fs.StringVar(&f.CredentialConfig, "image-credential-provider-config", "", "file or folder of kind CredentialProviderConfig")
	fs.StringVar(&f.CredentialBin, "image-credential-provider-bin-dir", "", "folder with the programs of credential providers")
	fs.StringVar(&f.PodManifestPath, "pod-manifest-path", "", "folder or file of static pods")
	fs.StringVar(&f.ManifestURL, "manifest-url", "", "address of static pods")
	fs.StringVar(&f.CertDir, "cert-dir", "", "folder for certificates; default <root-dir>/pki")
	fs.StringVar(&f.TLSCertFile, "tls-cert-file", "", "serving certificate; self-signed when empty")
	fs.StringVar(&f.TLSKeyFile, "tls-private-key-file", "", "key of --tls-cert-file")
	fs.StringVar(&f.ClientCA, "client-ca-file", "", "authorities of client certificates")
	fs.StringVar(&f.CgroupRoot, "cgroup-root", "", "cgroup below which pods live")
	fs.StringVar(&f.CgroupDriver, "cgroup-driver", "cgroupfs", "cgroupfs or systemd")
	fs.StringVar(&f.Resolv, "resolv-conf", "/etc/resolv.conf", "the node's resolv.conf")
	fs.StringVar(&f.ClusterDomain, "cluster-domain", "", "domain of the cluster")
	fs.StringSliceVar(&f.ClusterDNS, "cluster-dns", nil, "addresses of the cluster's DNS")
	fs.StringToStringVar(&f.Labels, "node-labels", nil, "labels of the node")
	fs.StringSliceVar(&f.Taints, "register-with-taints", nil, "taints of a new node, key=value:Effect")
	fs.StringVar(&f.Address, "address", "0.0.0.0", "address to serve on")
	fs.Int32Var(&f.Port, "port", 10250, "port to serve on")
	fs.Int32Var(&f.ReadOnlyPort, "read-only-port", 0, "unauthenticated port; only 0 (off) is served")
	fs.Int32Var(&f.HealthzPort, "healthz-port", 10248, "port of /healthz on loopback, 0 is off")
	fs.Int32Var(&f.MaxPods, "max-pods", 110, "pods the node takes")
	fs.BoolVar(&anonymous, "anonymous-auth", false, "let requests without credentials in as system:anonymous")
	fs.BoolVar(&webhook, "authentication-token-webhook", true, "ask the API server about bearer tokens")
	fs.StringVar(&f.AuthorizationMode, "authorization-mode", "Webhook", "Webhook or AlwaysAllow")
	fs.BoolVar(&f.Register, "register-node", true, "make the Node object")
	fs.BoolVar(&f.RotateCertificates, "rotate-certificates", false, "renew the client certificate through the cluster")
	fs.BoolVar(&f.RotateServer, "rotate-server-certificates", false, "get the serving certificate from the cluster")
	fs.BoolVar(&swap, "fail-swap-on", true, "refuse to run on a node with swap")
	fs.StringVar(&unused, "runtime-cgroups", "", "accepted")
	fs.StringVar(&unused, "pod-infra-container-image", "", "accepted; the runtime names its own")
	fs.StringVar(&f.CloudProvider, "cloud-provider", "", "external: a controller of the provider tells of the node and lets pods on it")
	for _, name := range []string{"housekeeping-interval", "global-housekeeping-interval", "minimum-container-ttl-duration", "maximum-dead-containers", "maximum-dead-containers-per-container",
		"log-flush-frequency", "vmodule", "cloud-config"} {
		fs.StringVar(&unused, name, "", "accepted")
	}
	f.fields = overlay{}
	f.fields.declare(fs)
	fs.IntVarP(&v, "v", "v", 0, "log level, 0 to 10")
	fs.BoolVar(&version, "version", false, "print the version")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return f, 0, false, ErrHelp
		}
		return f, 0, false, fmt.Errorf("%w; --help lists the flags", err)
	}
	if fs.NArg() > 0 {
		return f, 0, false, fmt.Errorf("unexpected argument %q; --help lists the flags", fs.Arg(0))
	}
	f.Anonymous, f.Webhook, f.FailSwapOn = &anonymous, &webhook, &swap
	f.Changed = fs.Changed
	if v >= 4 {
		level = slog.LevelDebug
	}
	return f, level, version, nil
}
