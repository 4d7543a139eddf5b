package server

import (
	"strings"
	"testing"
	"time"
)

// TestWatchMetrics watches, reads and writes, and counts what the server says of its cache and of whose turn it was.
func TestWatchMetrics(t *testing.T) {
	t.Parallel()
	s := start(t)
	const path = "/api/v1/namespaces/default/configmaps"
	s.Must(t, "POST", path, `{"metadata":{"name":"watched"}}`)
	s.Must(t, "GET", path+"?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1", "")
	_, from, _ := strings.Cut(string(s.Must(t, "GET", path+"?limit=1", "")), `"resourceVersion":"`)
	from, _, _ = strings.Cut(from, `"`)
	s.Must(t, "PUT", path+"/watched", `{"metadata":{"name":"watched"},"data":{"a":"b"}}`)
	s.Must(t, "GET", path+"?watch=1&timeoutSeconds=1&resourceVersion="+from, "")
	time.Sleep(50 * time.Millisecond)
	got := s.samples(t)
	ours := `resource="configmaps"`
	for _, c := range []struct {
		name   string
		labels []string
		want   float64 // at least
	}{
		{"apiserver_flowcontrol_request_wait_duration_seconds_count", []string{`execute="true"`}, 0},
		{"apiserver_flowcontrol_work_estimated_seats_sum", []string{`flow_schema="exempt"`}, 5},
		{"apiserver_flowcontrol_current_inqueue_seats", []string{`priority_level="catch-all"`}, 0},
		{"apiserver_watch_events_total", []string{ours, `version="v1"`, `group=""`}, 1},
		{"apiserver_watch_events_sizes_sum", []string{ours, `version="v1"`}, 100},
		{"apiserver_watch_list_duration_seconds_count", []string{ours, `scope="namespace"`}, 1},
		{"apiserver_init_events_total", []string{ours}, 1},
		{"apiserver_terminated_watchers_total", []string{ours}, 0},
		{"apiserver_watch_cache_read_wait_seconds_count", []string{ours}, 1},
		{"apiserver_watch_cache_consistent_read_total", []string{ours, `success="true"`, `fallback="false"`}, 1},
		{"apiserver_watch_cache_events_received_total", []string{ours}, 2},
		{"apiserver_watch_cache_events_dispatched_total", []string{ours}, 2},
		{"apiserver_storage_events_received_total", []string{ours}, 2},
		{"apiserver_watch_cache_initializations_total", []string{ours}, 1},
		{"apiserver_watch_cache_resource_version", []string{ours}, 2},
		{"watch_cache_capacity", []string{ours}, 1},
	} {
		if n, found := sum(got, c.name, c.labels...); !found || n < c.want {
			t.Errorf("%s%v is %v (%v), want at least %v", c.name, c.labels, n, found, c.want)
		}
	}
}
