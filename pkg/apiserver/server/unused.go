package server

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"
)

// unusedFlags are upstream's flags that have nothing to steer here: what they tune does not exist, or is always on.
// They are accepted with a warning, so that a command line written for upstream starts this server.
var unusedFlags = strings.Fields(`
	allow-metric-labels allow-metric-labels-manifest apiserver-count audit-webhook-batch-initial-backoff cloud-config cloud-provider
	cloud-provider-gce-l7lb-src-cidrs contention-profiling! coordinated-leadership-lease-duration coordinated-leadership-renew-deadline
	coordinated-leadership-retry-period debug-socket-path default-watch-cache-size disabled-metrics emulated-version
	emulation-forward-compatible! enable-aggregator-routing! enable-garbage-collector! enable-logs-handler! etcd-count-metric-poll-period
	etcd-db-metric-poll-interval identity-lease-duration-seconds identity-lease-renew-interval-seconds kubelet-port kubelet-read-only-port lease-reuse-duration-seconds
	livez-grace-period log-flush-frequency log-json-info-buffer-size log-json-split-stream! log-text-info-buffer-size
	log-text-split-stream! logging-format logtostderr! master-service-namespace max-connection-bytes-per-sec min-compatibility-version
	peer-advertise-ip peer-advertise-port peer-ca-file runtime-config-emulation-forward-compatible!
	service-account-lookup! show-hidden-metrics-for-version shutdown-send-retry-after! shutdown-watch-termination-grace-period
	storage-initialization-timeout tracing-config-file vmodule watch-cache! watch-cache-sizes`)

// soleValues are upstream's flags of which only one value is served; another would change what the server is trusted
// to do or where it finds its data, so it is refused rather than passed over.
var soleValues = map[string]string{
	"storage-backend": "etcd3", "storage-media-type": "application/vnd.kubernetes.protobuf",
	"aggregator-reject-forwarding-redirect": "true", "kubernetes-service-node-port": "0",
}

// acceptUnused adds the flags of upstream's that change nothing here, unless a room of this server has made use of one.
func acceptUnused(f *pflag.FlagSet) {
	add := func(name string, v pflag.Value, toggle bool) {
		if f.Lookup(name) != nil {
			return
		}
		flag := f.VarPF(v, name, "", "Accepted for upstream's sake.")
		flag.Hidden = true
		if toggle {
			flag.NoOptDefVal = "true"
		}
	}
	for _, name := range unusedFlags {
		name, toggle := strings.CutSuffix(name, "!")
		add(name, &passedOver{name: name}, toggle)
	}
	for name, only := range soleValues {
		add(name, &soleValue{name: name, only: only}, false)
	}
}

// passedOver takes any value and says once that it has no effect.
type passedOver struct {
	name, value string
}

// Set warns.
func (p *passedOver) Set(v string) error {
	if p.value == "" {
		slog.Warn("this flag has no effect here", "flag", "--"+p.name, "value", v)
	}
	p.value = v
	return nil
}

func (p *passedOver) String() string { return p.value }

// Type is how help names the value.
func (p *passedOver) Type() string { return "string" }

// soleValue takes one value.
type soleValue struct{ name, only, value string }

// Set refuses every other value.
func (s *soleValue) Set(v string) error {
	if v != s.only {
		if s.only == "" {
			return fmt.Errorf("this server does not serve it: leave --%s out", s.name)
		}
		return fmt.Errorf("this server serves %q only", s.only)
	}
	s.value = v
	return nil
}

func (s *soleValue) String() string { return s.value }

// Type is how help names the value.
func (s *soleValue) Type() string { return "string" }
