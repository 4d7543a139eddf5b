package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/aggregate"
	"github.com/sextant-k8s/sextant/pkg/apiserver/audit"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authn"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authz"
	"github.com/sextant-k8s/sextant/pkg/apiserver/bootstrap"
	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/connect"
	"github.com/sextant-k8s/sextant/pkg/apiserver/custom"
	"github.com/sextant-k8s/sextant/pkg/apiserver/discovery"
	"github.com/sextant-k8s/sextant/pkg/apiserver/encryption"
	"github.com/sextant-k8s/sextant/pkg/apiserver/engine"
	"github.com/sextant-k8s/sextant/pkg/apiserver/fairness"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/core"
	kindreviews "github.com/sextant-k8s/sextant/pkg/apiserver/kinds/reviews"
	"github.com/sextant-k8s/sextant/pkg/apiserver/openapi"
	"github.com/sextant-k8s/sextant/pkg/apiserver/plugins"
	"github.com/sextant-k8s/sextant/pkg/apiserver/reviews"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
	"github.com/sextant-k8s/sextant/pkg/apiserver/tokens"
	"github.com/sextant-k8s/sextant/pkg/apiserver/webhook"
	"github.com/sextant-k8s/sextant/pkg/apiserver/wire"
)

// Server is one apiserver.
type Server struct {
	c         *Config
	address   string       // host:port under which clients reach it
	store     *store.Store // of most resources
	apart     []apart      // of the others
	stopEtcd  func()
	cache     *cache.Cache
	engine    *engine.Engine
	discovery *discovery.Handler
	openapi   *openapi.Handler
	custom    *custom.Room
	aggregate *aggregate.Room
	tokens    *tokens.Authority
	audit     *audit.Room      // nil = nothing is audited
	cipher    *encryption.Room // nil = nothing is encrypted
	fairness  *fairness.Room   // nil = first come, first served
	authn     *authn.Authenticator
	authz     *authz.Chain
	bootstrap *bootstrap.Bootstrap
	health    *health
	metrics   *metrics
	egress    egress
	listener  net.Listener
	http      *http.Server
}

// New opens everything that a server needs; an error names the flag to look at. Close undoes it if Run is not called.
func New(ctx context.Context, c *Config) (_ *Server, err error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	s := &Server{c: c, metrics: newMetrics(c.Version), address: net.JoinHostPort(c.advertise(), strconv.Itoa(c.SecurePort)), stopEtcd: func() {}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	tlsConfig, err := serving(c)
	if err != nil {
		return nil, err
	}
	// The port is taken before anything else is started: a busy one is the commonest mistake.
	if s.listener, err = listen(ctx, c); err != nil {
		return nil, err
	}
	var own *embedded
	if s.egress, err = readEgress(c.EgressFile); err != nil {
		return nil, err
	}
	if s.store, own, err = openStore(c, s.egress.etcd); err != nil {
		return nil, err
	}
	if err := s.openApart(); err != nil {
		return nil, err
	}
	if err := s.assemble(ctx); err != nil {
		return nil, err
	}
	// Only now is every flag known to be right: a wrong one leaves no data directory behind.
	if own != nil {
		stop, err := own.start(ctx)
		if err != nil {
			return nil, err
		}
		s.stopEtcd = stop
	}
	s.http = &http.Server{
		Handler: newChain(s), TLSConfig: tlsConfig, ReadHeaderTimeout: 32 * time.Second, IdleTimeout: 90 * time.Second,
		MaxHeaderBytes: 1 << 20, ErrorLog: log.New(s.metrics.complaints, "", 0),
	}
	s.http.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){} // net/http's own HTTP/2 stays off
	if !c.DisableHTTP2 {
		h2 := &wire.Server{MaxStreams: cmp.Or(c.MaxStreams, 100), IdleTimeout: s.http.IdleTimeout, MaxHeaderBytes: uint32(s.http.MaxHeaderBytes)}
		h2.Attach(s.http)
	}
	return s, nil
}

// assemble builds the rooms in the order in which they need each other.
func (s *Server) assemble(ctx context.Context) error {
	c := s.c
	cidrs, err := c.serviceCIDRs()
	if err != nil {
		return err
	}
	ports, err := c.nodePorts()
	if err != nil {
		return err
	}
	if len(c.ServiceAccountIssuer) > 0 {
		s.tokens, err = tokens.New(ctx, tokens.Config{
			Issuers: c.ServiceAccountIssuer, SigningKey: c.ServiceAccountSigningKeyFile, KeyFiles: c.ServiceAccountKeyFiles, Endpoint: c.ServiceAccountSigningEndpoint,
			Audiences: c.APIAudiences, MaxLife: c.ServiceAccountMaxExpiration, Strict: !c.ServiceAccountExtend,
		})
		if err != nil {
			return err
		}
	}
	streams, err := connect.New(connect.Config{
		ClientCert: c.KubeletClientCert, ClientKey: c.KubeletClientKey, CAFile: c.KubeletCAFile,
		AddressTypes: c.KubeletPreferredAddressTypes, Timeout: c.KubeletTimeout, WriteError: engine.WriteError, Dial: s.egress.cluster,
	})
	if err != nil {
		return err
	}
	var etcds []func(*kind.Op) error
	for _, etcd := range s.stores() {
		etcds = append(etcds, func(op *kind.Op) error { return etcd.Ping(op.Ctx) })
	}
	reviewer := s.reviewer()
	defs := kinds.All(kinds.Deps{
		Pods:      core.PodStreams{Log: streams.Log, Exec: streams.Exec, Attach: streams.Attach, PortForward: streams.PortForward, Proxy: streams.PodProxy},
		NodeProxy: streams.NodeProxy, ServiceProxy: streams.ServiceProxy, Token: s.tokens.Request,
		Reviews: kindreviews.Answers{
			TokenReview: reviewer.TokenReview, SelfSubjectReview: reviewer.SelfSubjectReview, SubjectAccessReview: reviewer.SubjectAccessReview,
			LocalSubjectAccessReview: reviewer.LocalSubjectAccessReview, SelfSubjectAccessReview: reviewer.SelfSubjectAccessReview,
			SelfSubjectRulesReview: reviewer.SelfSubjectRulesReview,
		},
		Ranges: core.Ranges{ServiceCIDRs: cidrs, NodePorts: ports}, EventSeconds: int64(c.EventTTL / time.Second),
		Health: etcds,
	})
	on, err := parseRuntimeConfig(c.RuntimeConfig)
	if err != nil {
		return err
	}
	on.apply(defs)
	if !c.AllowPrivileged {
		forbidPrivileged(defs)
	}
	folders := map[string]schema.GroupResource{}
	for _, d := range defs {
		folders[d.KeyPrefix()] = d.GroupResource()
	}
	if s.cipher, err = encryption.New(encryption.Config{File: c.EncryptionFile, Reload: c.EncryptionReload, Folders: folders}); err != nil {
		return err
	}
	for _, etcd := range s.stores() {
		etcd.Use(s.cipher)
	}
	placed, err := s.placed(defs)
	if err != nil {
		return err
	}
	s.cache = cache.New(s.store, defs, placed)
	s.engine = engine.New(engine.Config{
		Cache: s.cache, Defs: defs, MinWatch: time.Duration(c.MinRequestTimeout) * time.Second, Deleters: c.DeleteWorkers,
		Crowd: collectMore,
	})
	c.TokenWebhook.Dial, c.Audit.Webhook.Dial = s.egress.control, s.egress.control
	s.authn, err = authn.New(authn.Config{
		Env: s.engine, ClientCAFile: c.ClientCAFile, Tokens: s.tokens, BootstrapTokens: c.EnableBootstrapTokenAuth, StaticTokens: c.TokenAuthFile,
		Anonymous: c.AnonymousAuth, AnonymousSet: c.changed != nil && c.changed("anonymous-auth"), File: c.AuthenticationFile, OIDC: c.OIDC,
		Webhook: c.TokenWebhook, Audiences: c.APIAudiences,
		ProxyCAFile: c.RequestHeaderCAFile, ProxyNames: c.RequestHeaderNames, UserHeaders: c.RequestHeaderUsernames,
		GroupHeaders: c.RequestHeaderGroups, ExtraPrefixes: c.RequestHeaderExtraPrefixes, UIDHeaders: c.RequestHeaderUIDs,
	})
	if err != nil {
		return err
	}
	if s.audit, err = audit.New(c.Audit); err != nil {
		return err
	}
	if s.authz, err = authz.Open(authz.Config{Env: s.engine, Modes: c.AuthorizationMode, File: c.AuthorizationFile, Webhook: c.AuthorizationWebhook, PolicyFile: c.AuthorizationPolicyFile, Dial: s.egress.control}); err != nil {
		return err
	}
	if seats := c.MaxInflight + c.MaxMutatingInflight; c.Fairness && seats > 0 {
		s.fairness = fairness.New(fairness.Config{Env: s.engine, Seats: seats, Ready: s.readyFor, Count: func(gr schema.GroupResource) int {
			if res := s.cache.Resource(gr); res != nil {
				return res.Snapshot().Len()
			}
			return 0
		}})
		s.metrics.add(s.fairness)
	}
	caller := &webhook.Caller{Env: s.engine, Identity: c.proxyIdentity(), DialService: s.egress.cluster, DialURL: s.egress.control}
	said, err := plugins.ReadConfiguration(c.AdmissionFile)
	if err != nil {
		return fmt.Errorf("reading --admission-control-config-file: %w", err)
	}
	chain, err := plugins.New(plugins.Config{
		Enable: c.EnableAdmission, Disable: c.DisableAdmission, Configuration: said, Authz: s.authz, Caller: caller, Row: s.engine.Row,
	})
	if err != nil {
		return err
	}
	s.engine.SetAdmission(chain)
	var others bootstrap.Peers
	if c.EndpointReconciler != "none" {
		others = peers{s.store}
	}
	s.bootstrap = bootstrap.New(bootstrap.Config{
		Env: s.engine, Peers: others, ServiceCIDRs: cidrs, Advertise: c.advertise(), Port: c.SecurePort, ClientCAFile: c.ClientCAFile, ProxyCAFile: c.RequestHeaderCAFile,
		ProxyNames: c.RequestHeaderNames, UserHeaders: c.RequestHeaderUsernames, GroupHeaders: c.RequestHeaderGroups, ExtraPrefixes: c.RequestHeaderExtraPrefixes, UIDHeaders: c.RequestHeaderUIDs,
	})
	s.discovery = discovery.New(defs, s.address)
	s.openapi = openapi.New(defs, Release)
	s.custom = custom.New(custom.Config{Env: s.engine, Cache: s.cache, Engine: s.engine, Caller: caller, Told: func(rows []*kind.Def) {
		s.discovery.Extend(rows)
		s.openapi.Extend(rows)
		s.aggregate.Custom(rows)
	}})
	s.aggregate = aggregate.New(aggregate.Config{Env: s.engine, Cache: s.cache, Rows: defs, Identity: c.proxyIdentity(), Dial: s.egress.cluster, Told: func(d []discovery.Foreign, o []openapi.Foreign) {
		s.discovery.Join(d)
		s.openapi.Join(o)
	}})
	s.engine.Await(s.custom.Await)
	s.health = newHealth(s)
	return nil
}

// readyFor tells whether a resource has been read from its etcd.
func (s *Server) readyFor(gr schema.GroupResource) bool {
	r := s.cache.Resource(gr)
	return r != nil && r.Home().Loaded()
}

// reviewer asks the authenticator and authorizer that are built after the rows.
func (s *Server) reviewer() *reviews.Reviewer {
	r := &reviews.Reviewer{
		Token: func(ctx context.Context, token string, audiences []string) (*authenticator.Response, bool, error) {
			return s.authn.Token(ctx, token, audiences)
		},
		Authz: askAuthz{s},
		Rules: func(ctx context.Context, u user.Info, ns string) ([]rbacv1.PolicyRule, error) {
			return s.authz.RulesFor(ctx, u, ns)
		},
	}
	if s.tokens != nil {
		r.Audiences = s.tokens.Audiences()
	}
	return r
}

type askAuthz struct{ s *Server }

func (a askAuthz) Authorize(ctx context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	return a.s.authz.Authorize(ctx, at)
}

// Close lets go of what New opened.
func (s *Server) Close() {
	if s.listener != nil {
		_ = s.listener.Close() // the server may have closed it
	}
	for _, etcd := range s.stores() {
		_ = etcd.Close() // nothing is pending any more
	}
	s.cipher.Close()
	s.tokens.Close()
	s.stopEtcd()
}

// gcPercent is how much garbage the heap takes beside what lives, in percent. What lives here is mostly stored objects,
// bytes without pointers that cost little to mark: a third less memory for some 3 % more CPU. GOGC says otherwise.
const gcPercent = 60

// gcCrowd is that while many watchers begin at once: each brings garbage (TLS alone 100 KB), and marking is little beside
// what is written to them.
const gcCrowd = 20

// ownGC tells whether garbage is this server's to decide on.
func ownGC() bool { return os.Getenv("GOGC") == "" }

// collectMore lets less garbage stand while there is a crowd.
func collectMore(crowd bool) {
	switch {
	case !ownGC():
	case crowd:
		debug.SetGCPercent(gcCrowd)
	default:
		debug.SetGCPercent(gcPercent)
	}
}

// Run serves until ctx ends, then lets requests finish.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	if ownGC() {
		debug.SetGCPercent(gcPercent)
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{
		"cache": s.cache.Run, "bootstrap": s.bootstrap.Run, "custom resources": s.custom.Run, "aggregation": s.aggregate.Run, "etcd's silence": s.tellOfEtcd, "audit": s.audit.Run, "authentication": s.authn.Run, "keys of tokens": s.tokens.Run, "authorization": s.authz.Run, "encryption": s.cipher.Run, "fairness": s.fairness.Run,
		"compaction": s.compact,
	} {
		wg.Go(func() {
			if err := run(work); err != nil && work.Err() == nil {
				slog.Error("a part of the server ended", "part", name, "err", err)
			}
		})
	}
	wg.Go(func() { giveBack(work) })
	served := make(chan error, 1)
	go func() { served <- s.http.ServeTLS(wire.Listener{Listener: s.listener}, "", "") }()
	slog.Info("serving", "address", s.listener.Addr().String(), "advertised", s.address, "version", s.c.Version)
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		err = s.drain()
	}
	stop()
	wg.Wait()
	return err
}

// compact forgets the history of every etcd that something lies in.
func (s *Server) compact(ctx context.Context) error {
	var all errgroup.Group
	for _, etcd := range s.cache.All() {
		all.Go(func() error { return etcd.Store().Compact(ctx, s.c.EtcdCompactionInterval) })
	}
	return all.Wait()
}

// drain says not ready, waits for load balancers to notice, ends watches and lets the rest finish.
func (s *Server) drain() error {
	s.health.stopping.Store(true)
	slog.Info("stopping")
	leaving, cancelLeaving := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancelLeaving()
	if err := s.bootstrap.Leave(leaving); err != nil {
		slog.Warn("this server could not be taken out of the kubernetes service", "err", err)
	}
	time.Sleep(s.c.ShutdownDelay)
	s.engine.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), s.c.RequestTimeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("some requests did not finish: %w", err), s.http.Close())
	}
	return nil
}
