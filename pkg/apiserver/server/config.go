package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sextant-k8s/sextant/pkg/apiserver/audit"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authn"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authz"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/core"
)

// Config is the server's flags, under upstream's names.
type Config struct {
	Version string // of this build

	BindAddress, AdvertiseAddress         string
	SecurePort                            int
	CertDir, TLSCertFile, TLSKeyFile      string
	TLSMinVersion                         string
	TLSCipherSuites                       []string
	TLSCurves                             []int32
	SNICertKeys                           []string
	DisableHTTP2                          bool
	MaxStreams                            int
	GoawayChance                          float64
	ShareAddress, SharePort               bool
	StrictTransportSecurity               []string
	ExternalHostname                      string
	ClientCAFile                          string
	EtcdServers, EtcdOverrides            []string
	EtcdCAFile, EtcdCertFile, EtcdKeyFile string
	EtcdPrefix                            string
	EtcdCompactionInterval                time.Duration
	EtcdHealthTimeout, EtcdReadyTimeout   time.Duration
	DataDir                               string
	ServiceClusterIPRange                 string
	ServiceNodePortRange                  string
	ServiceAccountIssuer                  []string
	ServiceAccountKeyFiles                []string
	ServiceAccountSigningKeyFile          string
	ServiceAccountSigningEndpoint         string
	ServiceAccountMaxExpiration           time.Duration
	ServiceAccountJWKSURI                 string
	APIAudiences                          []string
	AuthorizationMode                     []string
	AuthorizationPolicyFile               string
	CORSAllowedOrigins                    []string
	AuthorizationFile                     string
	AuthorizationWebhook                  authz.Webhook
	AnonymousAuth                         bool
	EnableBootstrapTokenAuth              bool
	TokenAuthFile                         string
	AuthenticationFile                    string
	OIDC                                  authn.OIDC
	TokenWebhook                          authn.Webhook
	ServiceAccountExtend                  bool
	RequestHeaderCAFile                   string
	RequestHeaderNames                    []string
	RequestHeaderUsernames                []string
	RequestHeaderGroups                   []string
	RequestHeaderUIDs                     []string
	RequestHeaderExtraPrefixes            []string
	KubeletClientCert, KubeletClientKey   string
	KubeletCAFile                         string
	KubeletTimeout                        time.Duration
	KubeletPreferredAddressTypes          []string
	// ProxyClientCert and ProxyClientKey prove this server to aggregated servers and webhooks.
	ProxyClientCert, ProxyClientKey   string
	AllowPrivileged                   bool
	RuntimeConfig                     map[string]string
	FeatureGates                      map[string]string
	EnableAdmission, DisableAdmission []string
	AdmissionFile                     string
	EgressFile                        string
	MaxInflight, MaxMutatingInflight  int
	RequestTimeout                    time.Duration
	MinRequestTimeout                 int
	DeleteWorkers                     int
	ShutdownDelay                     time.Duration
	EventTTL                          time.Duration
	EndpointReconciler                string
	Fairness                          bool
	Audit                             audit.Config
	EncryptionFile                    string
	EncryptionReload                  bool
	Profiling                         bool
	Verbosity                         int

	changed func(flag string) bool // was given on the command line; nil where there is none
}

// AddFlags binds the configuration to flags; what is set before is the default.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&c.BindAddress, "bind-address", "0.0.0.0", "The IP address to listen on.")
	f.StringVar(&c.AdvertiseAddress, "advertise-address", "", "The IP address members of the cluster reach this server at; empty picks the bind address, or the host's own.")
	f.IntVar(&c.SecurePort, "secure-port", 6443, "The port to serve HTTPS on.")
	f.StringVar(&c.CertDir, "cert-dir", "/var/run/kubernetes", "Where a self-signed serving certificate is kept when --tls-cert-file is not given.")
	f.StringVar(&c.TLSCertFile, "tls-cert-file", "", "File with the serving certificate; reread when it changes.")
	f.StringVar(&c.TLSKeyFile, "tls-private-key-file", "", "File with the serving certificate's key.")
	f.StringVar(&c.TLSMinVersion, "tls-min-version", "", "The lowest TLS version served: VersionTLS12 or VersionTLS13; empty is VersionTLS12.")
	f.Int32SliceVar(&c.TLSCurves, "tls-curve-preferences", nil, "Numbers of the key exchanges to offer, as Go's crypto/tls has them (29 is X25519, 4588 X25519MLKEM768); empty is Go's choice.")
	f.StringSliceVar(&c.CORSAllowedOrigins, "cors-allowed-origins", nil, "Regular expressions of the web sites whose scripts may ask this server, as //host(:|$).")
	f.StringSliceVar(&c.TLSCipherSuites, "tls-cipher-suites", nil, "Cipher suites for TLS 1.2, best first; empty is Go's choice.")
	f.StringArrayVar(&c.SNICertKeys, "tls-sni-cert-key", nil, "Another serving certificate: cert,key or cert,key:name,*.name for the names it serves; may be repeated.")
	f.BoolVar(&c.DisableHTTP2, "disable-http2-serving", false, "Serve HTTP/1.1 only.")
	f.IntVar(&c.MaxStreams, "http2-max-streams-per-connection", 0, "How many requests a client may have open on one connection; 0 is 100.")
	f.Float64Var(&c.GoawayChance, "goaway-chance", 0, "Which part of requests ends its HTTP/2 connection, so that clients spread over servers: 0 to 0.02.")
	f.BoolVar(&c.ShareAddress, "permit-address-sharing", false, "Listen with SO_REUSEADDR.")
	f.BoolVar(&c.SharePort, "permit-port-sharing", false, "Listen with SO_REUSEPORT.")
	f.StringSliceVar(&c.StrictTransportSecurity, "strict-transport-security-directives", nil, "Directives of the Strict-Transport-Security header; none sends none.")
	f.StringVar(&c.ExternalHostname, "external-hostname", "", "The host in URLs that documents give to the outside; empty is the advertised address.")
	f.StringVar(&c.ClientCAFile, "client-ca-file", "", "File with the CAs whose client certificates are identities.")
	f.StringSliceVar(&c.EtcdServers, "etcd-servers", nil, "URLs of etcd; none starts an etcd inside this process, in --data-dir.")
	f.StringSliceVar(&c.EtcdOverrides, "etcd-servers-overrides", nil, "Resources that lie in an etcd of their own, as group/resource#URL;URL, the core group as nothing: /events#https://127.0.0.1:2379.")
	f.StringVar(&c.EtcdCAFile, "etcd-cafile", "", "File with the CAs of etcd's serving certificate.")
	f.StringVar(&c.EtcdCertFile, "etcd-certfile", "", "File with the client certificate for etcd.")
	f.StringVar(&c.EtcdKeyFile, "etcd-keyfile", "", "File with the client certificate's key for etcd.")
	f.StringVar(&c.EtcdPrefix, "etcd-prefix", "/registry", "The folder of all keys in etcd.")
	f.DurationVar(&c.EtcdCompactionInterval, "etcd-compaction-interval", 5*time.Minute, "How often etcd's history is compacted; 0 never.")
	f.DurationVar(&c.EtcdHealthTimeout, "etcd-healthcheck-timeout", 2*time.Second, "How long etcd may take to answer the etcd health check.")
	f.DurationVar(&c.EtcdReadyTimeout, "etcd-readycheck-timeout", 2*time.Second, "How long etcd may take to answer the etcd-readiness check.")
	f.StringVar(&c.DataDir, "data-dir", "/var/lib/sextant", "Where the etcd inside this process keeps its data; of one server alone.")
	f.StringVar(&c.ServiceClusterIPRange, "service-cluster-ip-range", "10.96.0.0/16", "One or two CIDRs, comma separated, for the cluster IPs of services.")
	f.StringVar(&c.ServiceNodePortRange, "service-node-port-range", "30000-32767", "The ports for services of type NodePort.")
	f.StringArrayVar(&c.ServiceAccountIssuer, "service-account-issuer", nil, "Issuer of service account tokens; repeated, the first issues and all are accepted.")
	f.StringArrayVar(&c.ServiceAccountKeyFiles, "service-account-key-file", nil, "File with keys that verify service account tokens; may be repeated.")
	f.StringVar(&c.ServiceAccountSigningKeyFile, "service-account-signing-key-file", "", "File with the private key that signs service account tokens.")
	f.StringVar(&c.ServiceAccountSigningEndpoint, "service-account-signing-endpoint", "", "Unix socket of a process that signs service account tokens and tells the keys to verify them by; @name for one of the abstract space.")
	f.DurationVar(&c.ServiceAccountMaxExpiration, "service-account-max-token-expiration", 0, "The longest life a token may ask for; 0 is unbounded.")
	f.StringVar(&c.ServiceAccountJWKSURI, "service-account-jwks-uri", "", "Where the discovery document says the keys are; empty is this server.")
	f.StringSliceVar(&c.APIAudiences, "api-audiences", nil, "Audiences by which tokens name this server; empty is the issuer.")
	f.StringSliceVar(&c.AuthorizationMode, "authorization-mode", []string{"AlwaysAllow"}, "Authorizers in order: ABAC, AlwaysAllow, AlwaysDeny, Node, RBAC, Webhook.")
	f.StringVar(&c.AuthorizationPolicyFile, "authorization-policy-file", "", "File with a policy a line for the mode ABAC.")
	f.StringVar(&c.AuthorizationFile, "authorization-config", "", "File with the authorizers in place of --authorization-mode; taken over when it changes.")
	z := &c.AuthorizationWebhook
	f.StringVar(&z.ConfigFile, "authorization-webhook-config-file", "", "Kubeconfig of the service that the mode Webhook asks.")
	f.StringVar(&z.Version, "authorization-webhook-version", "v1beta1", "Version of the SubjectAccessReview sent to the service: v1 or v1beta1.")
	f.DurationVar(&z.AuthorizedTTL, "authorization-webhook-cache-authorized-ttl", 5*time.Minute, "How long the service's yes is kept.")
	f.DurationVar(&z.UnauthorizedTTL, "authorization-webhook-cache-unauthorized-ttl", 30*time.Second, "How long the service's no is kept.")
	f.BoolVar(&c.AnonymousAuth, "anonymous-auth", true, "Let requests without credentials in as system:anonymous.")
	f.BoolVar(&c.EnableBootstrapTokenAuth, "enable-bootstrap-token-auth", false, "Accept the bootstrap tokens kept as secrets in kube-system.")
	f.StringVar(&c.AuthenticationFile, "authentication-config", "", "File with issuers of identity tokens and who may be anonymous; taken over when it changes.")
	o := &c.OIDC
	f.StringVar(&o.IssuerURL, "oidc-issuer-url", "", "URL of an issuer of identity tokens; https.")
	f.StringVar(&o.ClientID, "oidc-client-id", "", "The audience of the issuer's tokens.")
	f.StringVar(&o.CAFile, "oidc-ca-file", "", "File with the CAs of the issuer; empty is the host's.")
	f.StringVar(&o.UsernameClaim, "oidc-username-claim", "sub", "The claim that names the user.")
	f.StringVar(&o.UsernamePrefix, "oidc-username-prefix", "", "What stands before the user's name; empty is the issuer and #, except for the claim email; - is nothing.")
	f.StringVar(&o.GroupsClaim, "oidc-groups-claim", "", "The claim that names the user's groups.")
	f.StringVar(&o.GroupsPrefix, "oidc-groups-prefix", "", "What stands before the groups' names.")
	f.StringSliceVar(&o.SigningAlgs, "oidc-signing-algs", []string{"RS256"}, "How the issuer may sign.")
	f.StringToStringVar(&o.RequiredClaims, "oidc-required-claim", nil, "Claims that tokens must have, key=value; may be repeated.")
	w := &c.TokenWebhook
	f.StringVar(&w.ConfigFile, "authentication-token-webhook-config-file", "", "Kubeconfig of a service that is asked whose token it is.")
	f.StringVar(&w.Version, "authentication-token-webhook-version", "v1beta1", "Version of the TokenReview sent to the service: v1 or v1beta1.")
	f.DurationVar(&w.CacheTTL, "authentication-token-webhook-cache-ttl", 2*time.Minute, "How long the service's answers are kept.")
	f.BoolVar(&c.ServiceAccountExtend, "service-account-extend-token-expiration", true, "Give pods' tokens a year, with a warning after an hour, for programs that do not reread theirs.")
	f.StringVar(&c.TokenAuthFile, "token-auth-file", "", "CSV file of static bearer tokens: token,user,uid,\"group1,group2\".")
	f.StringVar(&c.RequestHeaderCAFile, "requestheader-client-ca-file", "", "File with the CAs of front proxies that name the user in headers.")
	f.StringSliceVar(&c.RequestHeaderNames, "requestheader-allowed-names", nil, "Common names of front proxies; empty is any that the CA signed.")
	f.StringSliceVar(&c.RequestHeaderUsernames, "requestheader-username-headers", nil, "Headers for the user name, X-Remote-User usually.")
	f.StringSliceVar(&c.RequestHeaderGroups, "requestheader-group-headers", nil, "Headers for groups, X-Remote-Group usually.")
	f.StringSliceVar(&c.RequestHeaderUIDs, "requestheader-uid-headers", nil, "Headers for the user's uid, X-Remote-Uid usually.")
	f.StringSliceVar(&c.RequestHeaderExtraPrefixes, "requestheader-extra-headers-prefix", nil, "Prefixes of headers for extra facts, X-Remote-Extra- usually.")
	f.StringVar(&c.KubeletClientCert, "kubelet-client-certificate", "", "File with the client certificate for kubelets.")
	f.StringVar(&c.KubeletClientKey, "kubelet-client-key", "", "File with the client certificate's key for kubelets.")
	f.StringVar(&c.KubeletCAFile, "kubelet-certificate-authority", "", "File with the CAs of kubelets' serving certificates; empty does not verify them.")
	f.DurationVar(&c.KubeletTimeout, "kubelet-timeout", 5*time.Second, "How long connecting to a kubelet may take.")
	f.StringVar(&c.ProxyClientCert, "proxy-client-cert-file", "", "File with the certificate by which this server proves itself to aggregated servers and webhooks.")
	f.StringVar(&c.ProxyClientKey, "proxy-client-key-file", "", "File with the key of --proxy-client-cert-file.")
	f.BoolVar(&c.AllowPrivileged, "allow-privileged", false, "Let pods have privileged containers.")
	f.StringToStringVar(&c.RuntimeConfig, "runtime-config", nil, "API versions to serve or not: <group>/<version>=true|false, api/all, api/ga, api/beta, api/alpha.")
	f.StringToStringVar(&c.FeatureGates, "feature-gates", nil, "Feature gates, Name=true|false. This server has none: what it serves is the release's default.")
	f.StringSliceVar(&c.KubeletPreferredAddressTypes, "kubelet-preferred-address-types", []string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"}, "Which of a node's addresses to reach its kubelet at, best first.")
	f.StringSliceVar(&c.EnableAdmission, "enable-admission-plugins", nil, "Admission plugins besides the default ones.")
	f.StringSliceVar(&c.DisableAdmission, "disable-admission-plugins", nil, "Default admission plugins to leave out.")
	f.StringVar(&c.AdmissionFile, "admission-control-config-file", "", "File that configures admission plugins: an AdmissionConfiguration.")
	f.StringVar(&c.EgressFile, "egress-selector-config-file", "", "File that says through which proxies to reach nodes, webhooks and etcd: an EgressSelectorConfiguration.")
	f.IntVar(&c.MaxInflight, "max-requests-inflight", 400, "How many reads are served at once without --enable-priority-and-fairness; with it, its sum with the next flag is what all requests share.")
	f.BoolVar(&c.Fairness, "enable-priority-and-fairness", true, "Share the server between requests as flow schemas and priority levels say.")
	f.IntVar(&c.MaxMutatingInflight, "max-mutating-requests-inflight", 200, "How many writes are served at once; more get 429. 0 is unbounded.")
	f.DurationVar(&c.RequestTimeout, "request-timeout", time.Minute, "How long a request may take, unless it is a watch or a stream.")
	f.IntVar(&c.MinRequestTimeout, "min-request-timeout", 1800, "The least time a watch lasts, in seconds.")
	f.IntVar(&c.DeleteWorkers, "delete-collection-workers", 8, "How many objects of a collection are deleted at once.")
	f.DurationVar(&c.ShutdownDelay, "shutdown-delay-duration", 0, "How long to go on serving, not ready, when told to stop.")
	f.StringVar(&c.EndpointReconciler, "endpoint-reconciler-type", "lease", "How the endpoints of the kubernetes service are kept: lease (each server there says so in etcd; master-count is taken for it), or none.")
	f.DurationVar(&c.EventTTL, "event-ttl", time.Hour, "How long events are kept.")
	c.Audit.AddFlags(f)
	f.StringVar(&c.EncryptionFile, "encryption-provider-config", "", "File that says which resources are encrypted in etcd, and how.")
	f.BoolVar(&c.EncryptionReload, "encryption-provider-config-automatic-reload", false, "Take --encryption-provider-config over when it changes.")
	f.BoolVar(&c.Profiling, "profiling", true, "Serve /debug/pprof.")
	f.IntVarP(&c.Verbosity, "v", "v", 0, "How much to log, 0 to 10.")
	acceptUnused(f)
	c.changed = f.Changed
}

// Check answers every fault of the configuration at once, each saying what to do.
func (c *Config) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.SecurePort < 1 || c.SecurePort > 65535 {
		bad("--secure-port %d is not a port: give 1 to 65535", c.SecurePort)
	}
	if c.AuthorizationFile != "" && c.changed != nil && c.changed("authorization-mode") {
		bad("--authorization-config and --authorization-mode exclude each other: give one")
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		bad("--tls-cert-file and --tls-private-key-file belong together: give both or none")
	}
	if (c.ProxyClientCert == "") != (c.ProxyClientKey == "") {
		bad("--proxy-client-cert-file and --proxy-client-key-file belong together: give both or none")
	}
	if !slices.Contains([]string{"lease", "master-count", "none"}, c.EndpointReconciler) {
		bad("--endpoint-reconciler-type %q: give lease or none", c.EndpointReconciler)
	}
	if c.GoawayChance < 0 || c.GoawayChance > 0.02 {
		bad("--goaway-chance %v: give 0 to 0.02", c.GoawayChance)
	}
	if c.DeleteWorkers < 1 {
		bad("--delete-collection-workers %d: give 1 or more", c.DeleteWorkers)
	}
	for name, value := range c.FeatureGates {
		if _, err := strconv.ParseBool(value); err != nil {
			bad("--feature-gates %s=%s: give true or false", name, value)
		}
	}
	if _, err := newOrigins(c.CORSAllowedOrigins); err != nil {
		errs = append(errs, err)
	}
	if _, err := parseRuntimeConfig(c.RuntimeConfig); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.serviceCIDRs(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.nodePorts(); err != nil {
		errs = append(errs, err)
	}
	for name, f := range map[string]string{
		"client-ca-file": c.ClientCAFile, "etcd-cafile": c.EtcdCAFile, "etcd-certfile": c.EtcdCertFile, "etcd-keyfile": c.EtcdKeyFile,
		"tls-cert-file": c.TLSCertFile, "tls-private-key-file": c.TLSKeyFile, "service-account-signing-key-file": c.ServiceAccountSigningKeyFile,
		"requestheader-client-ca-file": c.RequestHeaderCAFile, "kubelet-client-certificate": c.KubeletClientCert,
		"kubelet-client-key": c.KubeletClientKey, "kubelet-certificate-authority": c.KubeletCAFile, "token-auth-file": c.TokenAuthFile,
		"proxy-client-cert-file": c.ProxyClientCert, "proxy-client-key-file": c.ProxyClientKey,
	} {
		if f == "" {
			continue
		}
		if _, err := os.Stat(f); err != nil {
			bad("--%s: %w", name, err)
		}
	}
	for _, f := range c.ServiceAccountKeyFiles {
		if _, err := os.Stat(f); err != nil {
			bad("--service-account-key-file: %w", err)
		}
	}
	for _, s := range c.EtcdServers {
		if !isEtcd(s) {
			bad("--etcd-servers %q is not a URL of etcd: give it as https://127.0.0.1:2379", s)
		}
	}
	if _, err := c.overrides(); err != nil {
		errs = append(errs, err)
	}
	switch signed := c.ServiceAccountSigningKeyFile != ""; {
	case c.ServiceAccountSigningEndpoint == "" && len(c.ServiceAccountIssuer) > 0 != signed:
		bad("--service-account-issuer and --service-account-signing-key-file belong together: give both or none")
	case c.ServiceAccountSigningEndpoint == "":
	case signed || len(c.ServiceAccountKeyFiles) > 0:
		bad("--service-account-signing-endpoint excludes --service-account-signing-key-file and --service-account-key-file: give it alone")
	case len(c.ServiceAccountIssuer) == 0:
		bad("--service-account-signing-endpoint needs --service-account-issuer")
	case strings.Contains(c.ServiceAccountSigningEndpoint, "://"):
		bad("--service-account-signing-endpoint %q is not a socket: give its path, or @ and its name", c.ServiceAccountSigningEndpoint)
	}
	return errors.Join(errs...)
}

func (c *Config) serviceCIDRs() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range strings.Split(c.ServiceClusterIPRange, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("--service-cluster-ip-range %q is not a CIDR: %w", s, err)
		}
		out = append(out, p.Masked())
	}
	if len(out) > 2 || len(out) == 2 && out[0].Addr().Is4() == out[1].Addr().Is4() {
		return nil, fmt.Errorf("--service-cluster-ip-range %q: give one CIDR, or one of each IP family", c.ServiceClusterIPRange)
	}
	return out, nil
}

func (c *Config) nodePorts() (core.PortRange, error) {
	var r core.PortRange
	if _, err := fmt.Sscanf(c.ServiceNodePortRange, "%d-%d", &r.Low, &r.High); err != nil || r.Low < 1 || r.High > 65535 || r.Low > r.High {
		return r, fmt.Errorf("--service-node-port-range %q is not a range: give it as 30000-32767", c.ServiceNodePortRange)
	}
	return r, nil
}

// advertise is the address that clients in the cluster are told.
func (c *Config) advertise() string {
	if c.AdvertiseAddress != "" {
		return c.AdvertiseAddress
	}
	if ip, err := netip.ParseAddr(c.BindAddress); err == nil && !ip.IsUnspecified() && !ip.IsLoopback() {
		return ip.String()
	}
	// The address a packet to the outside would come from; nothing is sent.
	if conn, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
		defer conn.Close() //nolint:errcheck // nothing was written
		return conn.LocalAddr().(*net.UDPAddr).IP.String()
	}
	return "127.0.0.1"
}

// external is the host and port in URLs that documents give to the outside.
func (c *Config) external() string {
	host := c.ExternalHostname
	if host == "" {
		host = c.advertise()
	}
	return net.JoinHostPort(host, strconv.Itoa(c.SecurePort))
}
