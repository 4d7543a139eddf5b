package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// Names, types and labels are upstream's, so that its dashboards and alerts hold.
func TestMetricsAreUpstreams(t *testing.T) {
	common := []string{
		"conntrack_reconciler_deleted_entries_total COUNTER ip_family", "conntrack_reconciler_sync_duration_seconds HISTOGRAM ip_family",
		"network_programming_duration_seconds HISTOGRAM ip_family", "proxy_healthz_total COUNTER code", "proxy_livez_total COUNTER code",
		"sync_full_proxy_rules_duration_seconds HISTOGRAM ip_family", "sync_partial_proxy_rules_duration_seconds HISTOGRAM ip_family",
		"sync_proxy_rules_duration_seconds HISTOGRAM ip_family", "sync_proxy_rules_endpoint_changes_pending GAUGE ", "sync_proxy_rules_endpoint_changes_total COUNTER ",
		"sync_proxy_rules_iptables_last GAUGE ip_family,table", "sync_proxy_rules_iptables_total GAUGE ip_family,table",
		"sync_proxy_rules_last_queued_timestamp_seconds GAUGE ip_family", "sync_proxy_rules_last_timestamp_seconds GAUGE ip_family",
		"sync_proxy_rules_no_local_endpoints_total GAUGE ip_family,traffic_policy", "sync_proxy_rules_service_changes_pending GAUGE ", "sync_proxy_rules_service_changes_total COUNTER ",
	}
	for mode, more := range map[string][]string{
		"iptables": {"iptables_ct_state_invalid_dropped_packets_total COUNTER ", "iptables_localhost_nodeports_accepted_packets_total COUNTER ", "sync_proxy_rules_iptables_partial_restore_failures_total COUNTER ip_family", "sync_proxy_rules_iptables_restore_failures_total COUNTER ip_family"},
		"nftables": {"sync_proxy_rules_nftables_cleanup_failures_total COUNTER ip_family", "sync_proxy_rules_nftables_sync_failures_total COUNTER ip_family"},
	} {
		m := newMetrics(mode, "v0", func() (all, pending seen) { return seen{3, 4}, seen{1, 2} }, func() uint64 { return 0 })
		now := time.Now()
		at := desired.Place{Table: "nat"}
		w := desired.Written{Held: map[desired.Place]int{at: 1}, Last: map[desired.Place]int{at: 1}, Mended: [2]int{1, 0}}
		m.synced(now, now, []time.Time{now}, w, true)
		m.synced(now, now, nil, w, false)
		to := []desired.Endpoint{{At: netip.MustParseAddrPort("10.244.1.5:80")}}
		m.changed([]desired.Change{{After: []desired.Port{{ClusterIP: netip.MustParseAddr("10.96.0.1"), Any: to, Inner: to, OuterLocal: true}}}})
		for _, v := range []interface{ Inc() }{m.failures.WithLabelValues(family), m.flows.WithLabelValues(family), m.healthz.WithLabelValues("200"), m.livez.WithLabelValues("200"), m.queued.WithLabelValues(family)} {
			v.Inc()
		}
		if m.cleanup != nil {
			m.cleanup.WithLabelValues(family).Inc()
		}
		m.forgot.WithLabelValues(family).Observe(1)
		all, err := m.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range all {
			name, ours := strings.CutPrefix(f.GetName(), "kubeproxy_")
			if !ours {
				continue
			}
			var labels []string
			for _, l := range f.GetMetric()[0].GetLabel() {
				labels = append(labels, l.GetName())
			}
			got = append(got, name+" "+f.GetType().String()+" "+strings.Join(labels, ","))
			if name == "sync_proxy_rules_no_local_endpoints_total" {
				for _, one := range f.GetMetric() {
					if want := one.GetLabel()[1].GetValue() == "external" && one.GetLabel()[0].GetValue() == "IPv4"; (one.GetGauge().GetValue() == 1) != want {
						t.Errorf("%s: %v", mode, one)
					}
				}
			}
		}
		want := slices.Sorted(slices.Values(slices.Concat(common, more)))
		if !slices.Equal(got, want) {
			t.Errorf("%s: have\n%s\nwant\n%s", mode, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// What dashboards ask of every daemon is served beside the proxy's own, each name once.
func TestMetricsOfEveryDaemon(t *testing.T) {
	fails := httptest.NewServer(http.NotFoundHandler())
	defer fails.Close()
	api, err := newClients(&rest.Config{Host: fails.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := api.core.Get().AbsPath("/api").Do(t.Context()).Error(); err == nil {
		t.Fatal("nothing was to be found")
	}
	m := newMetrics("nftables", "v0", func() (all, pending seen) { return seen{}, seen{} }, func() uint64 { return 0 })
	all, err := m.gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range all {
		have[f.GetName()] = true
	}
	for _, want := range []string{"rest_client_requests_total", "rest_client_request_duration_seconds", "rest_client_request_size_bytes",
		"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds", "go_goroutines", "go_info", "kubernetes_build_info"} {
		if !have[want] {
			t.Errorf("%s is not served", want)
		}
	}
}

// A rule that is written again counts from nothing; the metric does not.
func TestRising(t *testing.T) {
	counts := []uint64{0, 3, 5, 2, 2, 0, 4}
	i := -1
	r := &rising{of: func() uint64 { i++; return counts[i] }}
	for _, want := range []float64{0, 3, 5, 7, 7, 7, 11} {
		if got := r.read(); got != want {
			t.Errorf("read %v, want %v", got, want)
		}
	}
}
