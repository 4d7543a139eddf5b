package fairness

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	labels     = []string{"priority_level", "flow_schema"}
	dispatched = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_flowcontrol_dispatched_requests_total", Help: "Requests let in.",
	}, labels)
	rejected = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_flowcontrol_rejected_requests_total", Help: "Requests turned away.",
	}, append(labels, "reason"))
	waited = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_flowcontrol_request_wait_duration_seconds", Help: "How long requests waited that had to.",
		Buckets: []float64{0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30},
	}, labels)
)

// counters are what one flow schema counts, looked up once.
type counters struct {
	dispatched prometheus.Counter
	waited     prometheus.Observer
	rejected   func(reason string)
}

func countersOf(level, flow string) counters {
	return counters{dispatched.WithLabelValues(level, flow), waited.WithLabelValues(level, flow), func(reason string) {
		rejected.WithLabelValues(level, flow, reason).Inc()
	}}
}

var (
	seatsUsed    = prometheus.NewDesc("apiserver_flowcontrol_current_executing_seats", "Seats in use.", labels[:1], nil)
	seatsNominal = prometheus.NewDesc("apiserver_flowcontrol_nominal_limit_seats", "Seats of a level's own.", labels[:1], nil)
	inQueue      = prometheus.NewDesc("apiserver_flowcontrol_current_inqueue_requests", "Requests that wait.", labels[:1], nil)
)

// Describe names the metrics.
func (r *Room) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{seatsUsed, seatsNominal, inQueue} {
		ch <- d
	}
	for _, c := range []prometheus.Collector{dispatched, rejected, waited} {
		c.Describe(ch)
	}
}

// Collect tells them.
func (r *Room) Collect(ch chan<- prometheus.Metric) {
	for _, l := range r.all() {
		s := l.state()
		ch <- prometheus.MustNewConstMetric(seatsUsed, prometheus.GaugeValue, float64(s.used), l.name)
		ch <- prometheus.MustNewConstMetric(seatsNominal, prometheus.GaugeValue, float64(s.nominal), l.name)
		ch <- prometheus.MustNewConstMetric(inQueue, prometheus.GaugeValue, float64(s.waiting), l.name)
	}
	for _, c := range []prometheus.Collector{dispatched, rejected, waited} {
		c.Collect(ch)
	}
}

func (r *Room) all() []*level {
	if now := r.peers.Load(); now != nil {
		return *now
	}
	return nil
}

// state is a level at one moment.
type state struct {
	exempt                 bool
	nominal, used, waiting int
	queues                 []int // how many wait in each
}

func (l *level) state() state {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := state{exempt: l.exempt, nominal: l.nominal, used: l.used, waiting: l.waiting}
	for i := range l.queues {
		s.queues = append(s.queues, len(l.queues[i].line))
	}
	return s
}

// Debug is where ServeHTTP answers.
const Debug = "/debug/api_priority_and_fairness/"

// ServeHTTP tells what goes on, as tables.
func (r *Room) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var b strings.Builder
	switch strings.TrimPrefix(req.URL.Path, Debug) {
	case "dump_priority_levels":
		b.WriteString("PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests\n")
		for _, l := range r.all() {
			s := l.state()
			active := 0
			for _, n := range s.queues {
				active += min(n, 1)
			}
			_, _ = fmt.Fprintf(&b, "%s, %d, %t, false, %d, %d\n", l.name, active, s.used == 0 && s.waiting == 0, s.waiting, s.used)
		}
	case "dump_queues":
		b.WriteString("PriorityLevelName, Index, PendingRequests\n")
		for _, l := range r.all() {
			for i, n := range l.state().queues {
				_, _ = fmt.Fprintf(&b, "%s, %d, %d\n", l.name, i, n)
			}
		}
	default:
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(b.String())) // a client that went has nothing to be told
}
