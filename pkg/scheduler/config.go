package scheduler

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
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

	BindAddress  string
	SecurePort   int
	CertDir      string
	CertFile     string
	KeyFile      string
	ClientCA     string
	CipherSuites []string
	SNICerts     []string
	NoHTTP2      bool
	MinTLS       string
	Profiling    bool
	Contention   bool
	Verbosity    int
	LogFormat    string
	Seed         uint64
	MaxParked    time.Duration
	WriteConfig  string

	LeaderElect    bool
	LeaseDuration  time.Duration
	RenewDeadline  time.Duration
	RetryPeriod    time.Duration
	LeaseNamespace string
	LeaseName      string

	// From KubeSchedulerConfiguration.
	profiles       map[string]*rules.Profile
	extenders      []configv1.Extender
	initialBackoff time.Duration
	maxBackoff     time.Duration
	contentType    string
	acceptTypes    string
	// delayWatches: nothing is watched before the lease is held.
	delayWatches bool
	lock         string
	flags        *pflag.FlagSet
	file         *configv1.KubeSchedulerConfiguration // in force
}

// AddFlags defines the flags, named as upstream's.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	c.flags = f
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
	f.StringSliceVar(&c.SNICerts, "tls-sni-cert-key", nil, "Further certificates, as certificate,key[:domains]; the one whose names fit the caller's is served. May be repeated.")
	f.BoolVar(&c.NoHTTP2, "disable-http2-serving", false, "Serve HTTP/1.1 only.")
	f.StringVar(&c.ClientCA, "client-ca-file", "", "Callers with a certificate of these authorities are known by its common name.")
	f.StringSliceVar(&c.CipherSuites, "tls-cipher-suites", nil, "Cipher suites for TLS 1.2, by Go's names; Go's choice when empty.")
	f.StringVar(&c.MinTLS, "tls-min-version", "VersionTLS12", "The oldest TLS version: VersionTLS12 or VersionTLS13.")
	f.BoolVar(&c.Profiling, "profiling", true, "Serve /debug/pprof.")
	f.BoolVar(&c.Contention, "contention-profiling", true, "Record where goroutines block, with --profiling.")
	f.BoolVar(&c.LeaderElect, "leader-elect", true, "Work only while holding the lease.")
	f.DurationVar(&c.LeaseDuration, "leader-elect-lease-duration", 15*time.Second, "How long others wait before they take the lease.")
	f.DurationVar(&c.RenewDeadline, "leader-elect-renew-deadline", 10*time.Second, "How long the leader tries to renew before it gives up.")
	f.DurationVar(&c.RetryPeriod, "leader-elect-retry-period", 2*time.Second, "Time between tries.")
	f.StringVar(&c.LeaseNamespace, "leader-elect-resource-namespace", "kube-system", "Namespace of the lease.")
	f.StringVar(&c.LeaseName, "leader-elect-resource-name", "kube-scheduler", "Name of the lease.")
	f.StringVar(&c.lock, "leader-elect-resource-lock", leasesLock, "The kind of lock; leases is the only one.")
	f.DurationVar(&c.MaxParked, "pod-max-in-unschedulable-pods-duration", 5*time.Minute, "How long a pod waits for an event that helps it before it is tried anyway.")
	f.StringVar(&c.WriteConfig, "write-config-to", "", "Write the configuration in force to this file and quit.")
	f.StringVar(&c.LogFormat, "logging-format", "text", "text or json.")
	addInert(f)
	f.Uint64Var(&c.Seed, "seed", 1, "Breaks ties between nodes; the same seed decides the same.")
	f.IntVarP(&c.Verbosity, "v", "v", 0, "Log level, 0 to 10.")
}

// complete reads the configuration file over the flags' values.
func (c *Config) complete() error {
	c.profiles = map[string]*rules.Profile{v1.DefaultSchedulerName: rules.DefaultProfile(v1.DefaultSchedulerName)}
	c.initialBackoff, c.maxBackoff = time.Second, 10*time.Second
	file := &configv1.KubeSchedulerConfiguration{}
	if c.ConfigFile != "" {
		raw, err := os.ReadFile(c.ConfigFile)
		if err != nil {
			return fmt.Errorf("read --config: %w", err)
		}
		if err := yaml.UnmarshalStrict(raw, file); err != nil {
			return fmt.Errorf("parse --config %s: %w", c.ConfigFile, err)
		}
		if file.APIVersion != configv1.SchemeGroupVersion.String() || file.Kind != "KubeSchedulerConfiguration" {
			return fmt.Errorf("--config %s: want kind KubeSchedulerConfiguration of %s, got %s of %s", c.ConfigFile, configv1.SchemeGroupVersion, file.Kind, file.APIVersion)
		}
		if err := c.read(file); err != nil {
			return fmt.Errorf("--config %s: %w", c.ConfigFile, err)
		}
	}
	for what, why := range c.inert(file) {
		slog.Warn("taken, and without effect", "what", what, "why", why)
	}
	if c.LeaderElect && (c.LeaseDuration <= c.RenewDeadline || c.RenewDeadline <= c.RetryPeriod) {
		return fmt.Errorf("leader election: want lease duration %v > renew deadline %v > retry period %v", c.LeaseDuration, c.RenewDeadline, c.RetryPeriod)
	}
	if c.lock != "" && c.lock != leasesLock {
		return fmt.Errorf("leader election: resourceLock %q is not served; %s is", c.lock, leasesLock)
	}
	c.inForce(file)
	if c.WriteConfig != "" {
		return c.write()
	}
	return nil
}

// leasesLock is the only kind of lock there is.
const leasesLock = "leases"

// ErrWritten says that --write-config-to did what was asked, and nothing is to be run.
var ErrWritten = errors.New("the configuration is written")

// inForce completes the file by what the flags and the defaults say, for those who ask what is in force.
func (c *Config) inForce(file *configv1.KubeSchedulerConfiguration) {
	file.APIVersion, file.Kind = configv1.SchemeGroupVersion.String(), "KubeSchedulerConfiguration"
	file.ClientConnection.Kubeconfig = c.Kubeconfig
	le := &file.LeaderElection
	le.LeaderElect, le.ResourceLock, le.ResourceName, le.ResourceNamespace = &c.LeaderElect, "leases", c.LeaseName, c.LeaseNamespace
	le.LeaseDuration.Duration, le.RenewDeadline.Duration, le.RetryPeriod.Duration = c.LeaseDuration, c.RenewDeadline, c.RetryPeriod
	file.EnableProfiling, file.EnableContentionProfiling = &c.Profiling, &c.Contention
	file.PodInitialBackoffSeconds, file.PodMaxBackoffSeconds = new(int64(c.initialBackoff/time.Second)), new(int64(c.maxBackoff/time.Second))
	if len(file.Profiles) == 0 {
		file.Profiles = []configv1.KubeSchedulerProfile{{SchedulerName: new(v1.DefaultSchedulerName)}}
	}
	c.file = file
}

// write writes the configuration in force.
func (c *Config) write() error {
	raw, err := yaml.Marshal(c.file)
	if err == nil {
		err = os.WriteFile(c.WriteConfig, raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("--write-config-to: %w", err)
	}
	return ErrWritten
}

// read takes over what the file says.
func (c *Config) read(file *configv1.KubeSchedulerConfiguration) error {
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
	if le.ResourceLock != "" {
		c.lock = le.ResourceLock
	}
	c.contentType, c.acceptTypes = file.ClientConnection.ContentType, file.ClientConnection.AcceptContentTypes
	c.delayWatches = file.DelayCacheUntilActive
	if p := file.Parallelism; p != nil && *p <= 0 {
		return fmt.Errorf("parallelism: %d is not above 0", *p)
	}
	if le.ResourceName != "" {
		c.LeaseName = le.ResourceName
	}
	if le.ResourceNamespace != "" {
		c.LeaseNamespace = le.ResourceNamespace
	}
	if file.EnableProfiling != nil {
		c.Profiling = *file.EnableProfiling
	}
	if file.EnableContentionProfiling != nil {
		c.Contention = *file.EnableContentionProfiling
	}
	if err := percentage(file.PercentageOfNodesToScore); err != nil {
		return err
	}
	managed := map[string]bool{}
	for i := range file.Extenders {
		for _, m := range file.Extenders[i].ManagedResources {
			if managed[m.Name] {
				return fmt.Errorf("extenders[%d].managedResources: %s is managed by another extender already", i, m.Name)
			}
			managed[m.Name] = true
		}
	}
	if s := file.PodInitialBackoffSeconds; s != nil {
		c.initialBackoff = time.Duration(*s) * time.Second
	}
	if s := file.PodMaxBackoffSeconds; s != nil {
		c.maxBackoff = time.Duration(*s) * time.Second
	}
	if c.initialBackoff <= 0 || c.maxBackoff < c.initialBackoff {
		return fmt.Errorf("podInitialBackoffSeconds %v must be above 0 and podMaxBackoffSeconds %v not below it", c.initialBackoff, c.maxBackoff)
	}
	c.extenders = file.Extenders
	if len(file.Profiles) == 0 {
		file.Profiles = []configv1.KubeSchedulerProfile{{SchedulerName: new(v1.DefaultSchedulerName)}}
	}
	c.profiles = map[string]*rules.Profile{}
	for i := range file.Profiles {
		if file.Profiles[i].PercentageOfNodesToScore == nil {
			file.Profiles[i].PercentageOfNodesToScore = file.PercentageOfNodesToScore
		}
		p, err := rules.NewProfile(&file.Profiles[i])
		if err == nil {
			err = percentage(file.Profiles[i].PercentageOfNodesToScore)
		}
		if err != nil {
			return fmt.Errorf("profiles[%d]: %w", i, err)
		}
		if c.profiles[p.Name] != nil {
			return fmt.Errorf("two profiles are called %s", p.Name)
		}
		// Resources that an extender looks after alone are none of the filter's business.
		for _, e := range file.Extenders {
			for _, m := range e.ManagedResources {
				if m.IgnoredByScheduler {
					p.IgnoredResources = append(p.IgnoredResources, m.Name)
				}
			}
		}
		c.profiles[p.Name] = p
	}
	return nil
}

// percentage checks the share of nodes to search.
func percentage(p *int32) error {
	if p != nil && (*p < 0 || *p > 100) {
		return fmt.Errorf("percentageOfNodesToScore: %d is not in [0-100]", *p)
	}
	return nil
}

// LogHandler answers how logs are written, by --v and --logging-format.
func (c *Config) LogHandler(to io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if c.Verbosity >= 4 {
		options.Level = slog.LevelDebug
	}
	if c.LogFormat == "json" {
		return slog.NewJSONHandler(to, options)
	}
	return slog.NewTextHandler(to, options)
}

// client reads a kubeconfig (the in-cluster configuration when path is empty) for protobuf without a rate limit.
func (c *Config) client(path string) (*rest.Config, error) {
	if path == "" && c.Master == "" {
		rc, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("no cluster to talk to: give --kubeconfig")
		}
		return c.tune(rc), err
	}
	rc, err := clientcmd.BuildConfigFromFlags(c.Master, path)
	if err != nil {
		return nil, fmt.Errorf("read --kubeconfig %s: %w", path, err)
	}
	return c.tune(rc), nil
}

func (c *Config) tune(rc *rest.Config) *rest.Config {
	if rc != nil {
		rc.QPS, rc.Burst = -1, -1
		rc.ContentType = "application/vnd.kubernetes.protobuf"
		rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
		rc.UserAgent = "sextant-scheduler"
		if c.contentType != "" {
			rc.ContentType = c.contentType
		}
		if c.acceptTypes != "" {
			rc.AcceptContentTypes = c.acceptTypes
		}
	}
	return rc
}
