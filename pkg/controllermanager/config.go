package controllermanager

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
)

// Config is the daemon's flags, under upstream's names.
type Config struct {
	Version string // of this build

	Kubeconfig           string
	BindAddress          string
	SecurePort           int
	TLSCertFile, TLSKey  string
	LeaderElect          bool
	LeaseDuration        time.Duration
	RenewDeadline        time.Duration
	RetryPeriod          time.Duration
	LeaseName, LeaseIn   string
	Controllers          []string
	AllocateNodeCIDRs    bool
	ClusterCIDR          string
	NodeMask             int
	NodeMask4, NodeMask6 int
	RootCAFile           string
	NodeGrace            time.Duration
	NodeStartupGrace     time.Duration
	TerminatedPods       int
	Verbosity            int
}

// AddFlags binds the configuration to flags.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "File that says where the apiserver is and who we are.")
	f.StringVar(&c.BindAddress, "bind-address", "0.0.0.0", "The IP address to serve health and metrics on.")
	f.IntVar(&c.SecurePort, "secure-port", 10257, "The port to serve health and metrics on, with TLS; 0 serves nothing.")
	f.StringVar(&c.TLSCertFile, "tls-cert-file", "", "File with the serving certificate; empty makes one for this run.")
	f.StringVar(&c.TLSKey, "tls-private-key-file", "", "File with the serving certificate's key.")
	f.BoolVar(&c.LeaderElect, "leader-elect", true, "Run controllers only while holding the lease, so that several may stand by.")
	f.DurationVar(&c.LeaseDuration, "leader-elect-lease-duration", 15*time.Second, "How long others wait for a leader that is silent.")
	f.DurationVar(&c.RenewDeadline, "leader-elect-renew-deadline", 10*time.Second, "How long the leader tries to renew before it gives up.")
	f.DurationVar(&c.RetryPeriod, "leader-elect-retry-period", 2*time.Second, "How long to wait between tries.")
	f.StringVar(&c.LeaseName, "leader-elect-resource-name", "kube-controller-manager", "The name of the lease.")
	f.StringVar(&c.LeaseIn, "leader-elect-resource-namespace", "kube-system", "The namespace of the lease.")
	f.StringSliceVar(&c.Controllers, "controllers", []string{"*"}, "Which controllers run: * is all, name one, -name leaves one out.")
	f.BoolVar(&c.AllocateNodeCIDRs, "allocate-node-cidrs", false, "Give every node a part of --cluster-cidr.")
	f.StringVar(&c.ClusterCIDR, "cluster-cidr", "", "The pod network: one CIDR, or one of each IP family.")
	f.IntVar(&c.NodeMask, "node-cidr-mask-size", 0, "How many bits of network a node's part has.")
	f.IntVar(&c.NodeMask4, "node-cidr-mask-size-ipv4", 24, "The same for IPv4, where the one above is not given.")
	f.IntVar(&c.NodeMask6, "node-cidr-mask-size-ipv6", 64, "The same for IPv6.")
	f.StringVar(&c.RootCAFile, "root-ca-file", "", "File with the CA that pods are to trust; it is published in every namespace.")
	f.DurationVar(&c.NodeGrace, "node-monitor-grace-period", 50*time.Second, "How long a node may be silent before it is not ready.")
	f.DurationVar(&c.NodeStartupGrace, "node-startup-grace-period", time.Minute, "The same for a node that was never heard of.")
	f.IntVar(&c.TerminatedPods, "terminated-pod-gc-threshold", 12500, "How many finished pods are kept; 0 is any number.")
	f.IntVarP(&c.Verbosity, "v", "v", 0, "How much to log, 0 to 10.")
}

// Check answers every fault of the configuration at once.
func (c *Config) Check() error {
	var errs []error
	if c.Kubeconfig == "" {
		errs = append(errs, errors.New("--kubeconfig is needed: it says where the apiserver is"))
	} else if _, err := os.Stat(c.Kubeconfig); err != nil {
		errs = append(errs, fmt.Errorf("--kubeconfig: %w", err))
	}
	if c.AllocateNodeCIDRs && c.ClusterCIDR == "" {
		errs = append(errs, errors.New("--allocate-node-cidrs needs --cluster-cidr"))
	}
	if c.AllocateNodeCIDRs && c.ClusterCIDR != "" {
		if _, _, err := c.nodeRanges(); err != nil {
			errs = append(errs, err)
		}
	}
	if c.RenewDeadline >= c.LeaseDuration {
		errs = append(errs, errors.New("--leader-elect-renew-deadline must be shorter than --leader-elect-lease-duration"))
	}
	if (c.TLSCertFile == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("--tls-cert-file and --tls-private-key-file belong together: give both or none"))
	}
	return errors.Join(errs...)
}
