package controllermanager

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	cliflag "k8s.io/component-base/cli/flag"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/autoscaler"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/certificates"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/loadbalancer"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/localpath"
)

// Config is the daemon's flags, under upstream's names.
type Config struct {
	Version string // of this build

	// who we are to the apiserver
	Kubeconfig, Master string
	QPS                float32
	Burst              int
	UseAccounts        bool // each controller acts as its own service account

	// what we serve, and to whom
	BindAddress                      string
	SecurePort                       int
	TLSCertFile, TLSKey              string
	TLSMinVersion                    string
	TLSCiphers                       []string
	NoHTTP2                          bool
	AuthnKubeconfig, AuthzKubeconfig string
	SkipLookup                       bool
	ClientCAFile                     string
	Front                            FrontProxy
	AlwaysAllow                      []string
	Profiling, Contention            bool

	LeaderElect        bool
	LeaseDuration      time.Duration
	RenewDeadline      time.Duration
	RetryPeriod        time.Duration
	LeaseName, LeaseIn string
	LeaseKind          string

	Controllers []string
	Workers     map[string]*int // by controller, 0 = as many as it says itself

	ClusterName          string
	CloudProvider        string
	AllocateNodeCIDRs    bool
	AllocatorType        string
	ClusterCIDR          string
	ServiceCIDR          string
	NodeMask             int
	NodeMask4, NodeMask6 int

	RootCAFile        string
	ServiceAccountKey string
	LegacyTokens      time.Duration
	Signing           Signing

	NodeGrace        time.Duration
	NodeStartupGrace time.Duration
	NodePeriod       time.Duration
	EvictionRate     float32
	SecondaryRate    float32
	UnhealthyZone    float32
	LargeCluster     int32
	TerminatedPods   int
	Autoscaler       autoscaler.Config

	AttachResync                  time.Duration
	NoAttachResync, NoForceDetach bool

	// where there is no cloud
	LoadBalancerPool []string
	LocalPath        localpath.Config

	CollectGarbage bool
	FeatureGates   map[string]string

	Verbosity int
}

// FrontProxy is whose word about a user is taken.
type FrontProxy struct {
	CAFile                           string
	AllowedNames                     []string
	UserHeaders, GroupHeaders, Extra []string
}

// Signing is with what certificates are signed: one pair for all signers, or one each.
type Signing struct {
	Duration time.Duration
	Pair
	KubeletServing, KubeletClient, APIServerClient, LegacyUnknown Pair
}

// Pair is a CA's certificate and key.
type Pair struct{ Cert, Key string }

// Check answers every fault of the configuration at once.
func (c *Config) Check() error {
	var errs []error
	if c.Kubeconfig == "" && c.Master == "" {
		errs = append(errs, errors.New("--kubeconfig is needed: it says where the apiserver is"))
	}
	for flag, path := range map[string]string{
		"--kubeconfig": c.Kubeconfig, "--authentication-kubeconfig": c.AuthnKubeconfig, "--authorization-kubeconfig": c.AuthzKubeconfig,
		"--client-ca-file": c.ClientCAFile, "--requestheader-client-ca-file": c.Front.CAFile,
		"--root-ca-file": c.RootCAFile, "--service-account-private-key-file": c.ServiceAccountKey, "--tls-cert-file": c.TLSCertFile, "--tls-private-key-file": c.TLSKey,
	} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", flag, err))
		}
	}
	errs = append(errs, c.checkNodes()...)
	if c.RenewDeadline >= c.LeaseDuration {
		errs = append(errs, errors.New("--leader-elect-renew-deadline must be shorter than --leader-elect-lease-duration"))
	}
	if c.LeaseKind != "leases" {
		errs = append(errs, fmt.Errorf("--leader-elect-resource-lock %q: only leases are supported", c.LeaseKind))
	}
	if (c.TLSCertFile == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("--tls-cert-file and --tls-private-key-file belong together: give both or none"))
	}
	if _, err := cliflag.TLSVersion(c.TLSMinVersion); err != nil || c.TLSMinVersion != "" && c.TLSMinVersion < "VersionTLS12" {
		errs = append(errs, fmt.Errorf("--tls-min-version %q: give VersionTLS12 or VersionTLS13", c.TLSMinVersion))
	}
	if _, err := cliflag.TLSCipherSuites(c.TLSCiphers); err != nil {
		errs = append(errs, fmt.Errorf("--tls-cipher-suites: %w", err))
	}
	for _, name := range slices.Sorted(maps.Keys(c.FeatureGates)) {
		if v := c.FeatureGates[name]; v != "true" && v != "false" {
			errs = append(errs, fmt.Errorf("--feature-gates %s=%s: give true or false", name, v))
		}
	}
	if _, err := loadbalancer.ParsePool(c.LoadBalancerPool); err != nil {
		errs = append(errs, fmt.Errorf("--load-balancer-pool: %w", err))
	}
	if d := c.LocalPath.Dir; !path.IsAbs(d) || path.Clean(d) != d || d == "/" {
		errs = append(errs, fmt.Errorf("--local-path-dir %q: want a directory's whole path, as /var/lib/sextant/local-path", d))
	}
	if c.AttachResync < time.Second {
		errs = append(errs, errors.New("--attach-detach-reconcile-sync-period must be a second or more"))
	}
	if c.CloudProvider != "" && c.CloudProvider != "external" {
		errs = append(errs, fmt.Errorf("--cloud-provider %q: only external is there; the cloud's own controllers run in its cloud-controller-manager", c.CloudProvider))
	}
	for _, name := range c.Controllers {
		short, off := strings.CutPrefix(name, "-")
		if name == "*" || known(short) {
			continue
		}
		switch why, ok := elsewhere[cmp.Or(olden[short], short)]; {
		case !ok:
			errs = append(errs, fmt.Errorf("--controllers: %q is not in the list of known controllers", short))
		case !off:
			errs = append(errs, fmt.Errorf("--controllers: %s cannot run here: %s", short, why))
		}
	}
	return errors.Join(append(errs, c.Signing.check()...)...)
}

func (c *Config) checkNodes() (errs []error) {
	switch {
	case c.AllocateNodeCIDRs && c.ClusterCIDR == "":
		errs = append(errs, errors.New("--allocate-node-cidrs needs --cluster-cidr"))
	case c.AllocateNodeCIDRs:
		if _, _, err := c.nodeRanges(); err != nil {
			errs = append(errs, err)
		}
		if _, err := c.serviceRanges(); err != nil {
			errs = append(errs, err)
		}
	}
	if c.AllocatorType != "RangeAllocator" && c.AllocatorType != "CloudAllocator" {
		errs = append(errs, fmt.Errorf("--cidr-allocator-type %q: RangeAllocator and CloudAllocator are", c.AllocatorType))
	}
	if c.NodePeriod > 0 && c.NodeGrace < c.NodePeriod {
		errs = append(errs, errors.New("--node-monitor-grace-period must not be shorter than --node-monitor-period"))
	}
	return errs
}

// check wants one pair, or pairs of their own, but not both: it would not be clear who signs.
func (s *Signing) check() (errs []error) {
	all := []Pair{s.Pair, s.KubeletServing, s.KubeletClient, s.APIServerClient, s.LegacyUnknown}
	if slices.ContainsFunc(all, func(p Pair) bool { return (p.Cert == "") != (p.Key == "") }) {
		errs = append(errs, errors.New("--cluster-signing-...-cert-file and its -key-file belong together: give both or none"))
	}
	if s.Pair != (Pair{}) && slices.ContainsFunc(all[1:], func(p Pair) bool { return p != Pair{} }) {
		errs = append(errs, errors.New("--cluster-signing-cert-file signs for all: it cannot be given beside one signer's own"))
	}
	if s.Duration <= 0 {
		errs = append(errs, errors.New("--cluster-signing-duration must be more than none"))
	}
	return errs
}

// config is who signs what: each signer with its own pair, or with the one for all.
func (s *Signing) config() certificates.Config {
	or := func(own Pair) certificates.CA {
		if own == (Pair{}) {
			own = s.Pair
		}
		return certificates.CA(own)
	}
	return certificates.Config{
		KubeletServing: or(s.KubeletServing), KubeletClient: or(s.KubeletClient), APIServerClient: or(s.APIServerClient), LegacyUnknown: or(s.LegacyUnknown), Duration: s.Duration,
	}
}

// nodeRanges answers the cluster's CIDRs and how big each node's part of them is.
func (c *Config) nodeRanges() (cidrs []netip.Prefix, bits []int, err error) {
	for _, text := range strings.Split(c.ClusterCIDR, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, nil, fmt.Errorf("--cluster-cidr %q is not a CIDR: %w", text, err)
		}
		size := c.NodeMask
		if size == 0 && p.Addr().Is4() {
			size = c.NodeMask4
		} else if size == 0 {
			size = c.NodeMask6
		}
		if size < p.Bits() || size > p.Addr().BitLen() {
			return nil, nil, fmt.Errorf("--node-cidr-mask-size %d does not fit into %s", size, p)
		}
		cidrs, bits = append(cidrs, p.Masked()), append(bits, size)
	}
	if len(cidrs) > 2 || len(cidrs) == 2 && cidrs[0].Addr().Is4() == cidrs[1].Addr().Is4() {
		return nil, nil, fmt.Errorf("--cluster-cidr %q: one CIDR, or one of each IP family", c.ClusterCIDR)
	}
	return cidrs, bits, nil
}

// serviceRanges answers what no node may be given a part of.
func (c *Config) serviceRanges() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for text := range strings.SplitSeq(c.ServiceCIDR, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("--service-cluster-ip-range %q is not a CIDR: %w", text, err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
