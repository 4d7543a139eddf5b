package scheduler

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"sigs.k8s.io/yaml"
)

// Release is the Kubernetes release this scheduler belongs to.
const Release = "v1.37.2"

// Config is everything the flags and the configuration file say.
type Config struct {
	Version    string
	Kubeconfig string
	Master     string
	ConfigFile string

	AuthenticationKubeconfig string
	AuthorizationKubeconfig  string
	AlwaysAllowPaths         []string

	BindAddress string
	SecurePort  int
	CertDir     string
	CertFile    string
	KeyFile     string
	ClientCA    string
	Profiling   bool
	Verbosity   int
	Seed        uint64

	LeaderElect    bool
	LeaseDuration  time.Duration
	RenewDeadline  time.Duration
	RetryPeriod    time.Duration
	LeaseNamespace string
	LeaseName      string

	// From KubeSchedulerConfiguration.
	profiles       map[string]profile
	percentage     int32
	initialBackoff time.Duration
	maxBackoff     time.Duration
}

// profile is the part of a KubeSchedulerProfile that the pipeline reads.
type profile struct {
	off     map[string]bool
	weights map[string]int64
}

// AddFlags defines the flags, named as upstream's.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&c.ConfigFile, "config", "", "The path to a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1).")
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "Path to the kubeconfig of the cluster; in-cluster configuration when empty.")
	f.StringVar(&c.Master, "master", "", "Address of the API server, instead of the kubeconfig's.")
	f.StringVar(&c.AuthenticationKubeconfig, "authentication-kubeconfig", "", "kubeconfig for TokenReviews of callers; --kubeconfig when empty.")
	f.StringVar(&c.AuthorizationKubeconfig, "authorization-kubeconfig", "", "kubeconfig for SubjectAccessReviews of callers; --kubeconfig when empty.")
	f.StringSliceVar(&c.AlwaysAllowPaths, "authorization-always-allow-paths", []string{"/healthz", "/readyz", "/livez"}, "Paths that anyone may read.")
	f.StringVar(&c.BindAddress, "bind-address", "0.0.0.0", "The address to serve on.")
	f.IntVar(&c.SecurePort, "secure-port", 10259, "The HTTPS port; 0 serves nothing.")
	f.StringVar(&c.CertDir, "cert-dir", "", "Where kube-scheduler.crt and .key are looked for; without them the certificate is self-signed.")
	f.StringVar(&c.CertFile, "tls-cert-file", "", "The serving certificate; self-signed when empty.")
	f.StringVar(&c.KeyFile, "tls-private-key-file", "", "The key of --tls-cert-file.")
	f.StringVar(&c.ClientCA, "client-ca-file", "", "Callers with a certificate of these authorities are known by its common name.")
	f.BoolVar(&c.Profiling, "profiling", true, "Serve /debug/pprof.")
	f.BoolVar(&c.LeaderElect, "leader-elect", true, "Work only while holding the lease.")
	f.DurationVar(&c.LeaseDuration, "leader-elect-lease-duration", 15*time.Second, "How long others wait before they take the lease.")
	f.DurationVar(&c.RenewDeadline, "leader-elect-renew-deadline", 10*time.Second, "How long the leader tries to renew before it gives up.")
	f.DurationVar(&c.RetryPeriod, "leader-elect-retry-period", 2*time.Second, "Time between tries.")
	f.StringVar(&c.LeaseNamespace, "leader-elect-resource-namespace", "kube-system", "Namespace of the lease.")
	f.StringVar(&c.LeaseName, "leader-elect-resource-name", "kube-scheduler", "Name of the lease.")
	f.Uint64Var(&c.Seed, "seed", 1, "Breaks ties between nodes; the same seed decides the same.")
	f.IntVarP(&c.Verbosity, "v", "v", 0, "Log level, 0 to 10.")
}

// complete reads the configuration file over the flags' values.
func (c *Config) complete() error {
	c.profiles = map[string]profile{v1.DefaultSchedulerName: {}}
	c.initialBackoff, c.maxBackoff = time.Second, 10*time.Second
	if c.ConfigFile == "" {
		return nil
	}
	raw, err := os.ReadFile(c.ConfigFile)
	if err != nil {
		return fmt.Errorf("read --config: %w", err)
	}
	var file configv1.KubeSchedulerConfiguration
	if err := yaml.UnmarshalStrict(raw, &file); err != nil {
		return fmt.Errorf("parse --config %s: %w", c.ConfigFile, err)
	}
	if file.APIVersion != "kubescheduler.config.k8s.io/v1" || file.Kind != "KubeSchedulerConfiguration" {
		return fmt.Errorf("--config %s: want kind KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1, got %s of %s", c.ConfigFile, file.Kind, file.APIVersion)
	}
	if len(file.Extenders) > 0 {
		return fmt.Errorf("--config %s: extenders are not served by this scheduler; remove them", c.ConfigFile)
	}
	if file.ClientConnection.Kubeconfig != "" {
		c.Kubeconfig = file.ClientConnection.Kubeconfig
	}
	le := file.LeaderElection
	if le.LeaderElect != nil {
		c.LeaderElect = *le.LeaderElect
	}
	for _, d := range []struct {
		from time.Duration
		to   *time.Duration
	}{{le.LeaseDuration.Duration, &c.LeaseDuration}, {le.RenewDeadline.Duration, &c.RenewDeadline}, {le.RetryPeriod.Duration, &c.RetryPeriod}} {
		if d.from > 0 {
			*d.to = d.from
		}
	}
	if le.ResourceName != "" {
		c.LeaseName = le.ResourceName
	}
	if le.ResourceNamespace != "" {
		c.LeaseNamespace = le.ResourceNamespace
	}
	if file.PercentageOfNodesToScore != nil {
		c.percentage = *file.PercentageOfNodesToScore
	}
	if s := file.PodInitialBackoffSeconds; s != nil {
		c.initialBackoff = time.Duration(*s) * time.Second
	}
	if s := file.PodMaxBackoffSeconds; s != nil {
		c.maxBackoff = time.Duration(*s) * time.Second
	}
	if len(file.Profiles) > 0 {
		c.profiles = map[string]profile{}
	}
	for _, p := range file.Profiles {
		name := v1.DefaultSchedulerName
		if p.SchedulerName != nil {
			name = *p.SchedulerName
		}
		if _, ok := c.profiles[name]; ok {
			return fmt.Errorf("--config %s: two profiles are called %s", c.ConfigFile, name)
		}
		c.profiles[name] = readProfile(p.Plugins)
	}
	return nil
}

func readProfile(p *configv1.Plugins) profile {
	out := profile{off: map[string]bool{}, weights: map[string]int64{}}
	if p == nil {
		return out
	}
	for _, d := range p.MultiPoint.Disabled {
		out.off[d.Name] = true
	}
	for _, d := range p.Score.Disabled {
		out.weights[d.Name] = 0
	}
	for _, set := range []configv1.PluginSet{p.MultiPoint, p.Score} {
		for _, e := range set.Enabled {
			delete(out.off, e.Name)
			delete(out.weights, e.Name)
			if e.Weight != nil && *e.Weight > 0 {
				out.weights[e.Name] = int64(*e.Weight)
			}
		}
	}
	return out
}

// client reads a kubeconfig (the in-cluster configuration when path is empty) for protobuf without a rate limit.
func (c *Config) client(path string) (*rest.Config, error) {
	if path == "" && c.Master == "" {
		rc, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("no cluster to talk to: give --kubeconfig")
		}
		return tune(rc), err
	}
	rc, err := clientcmd.BuildConfigFromFlags(c.Master, path)
	if err != nil {
		return nil, fmt.Errorf("read --kubeconfig %s: %w", path, err)
	}
	return tune(rc), nil
}

func tune(rc *rest.Config) *rest.Config {
	if rc != nil {
		rc.QPS, rc.Burst = -1, -1
		rc.ContentType = "application/vnd.kubernetes.protobuf"
		rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
		rc.UserAgent = "sextant-scheduler"
	}
	return rc
}
