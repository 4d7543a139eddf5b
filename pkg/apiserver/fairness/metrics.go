package fairness

import (
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
		Name: "apiserver_flowcontrol_request_wait_duration_seconds", Help: "How long requests waited for their turn.",
		Buckets: []float64{0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30},
	}, append(labels, "execute"))
	served = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_flowcontrol_request_execution_seconds", Help: "How long requests held their seats.",
		Buckets: []float64{0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30},
	}, append(labels, "type"))
	serving = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "apiserver_flowcontrol_current_executing_requests", Help: "Requests being served.",
	}, labels)
	seats = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "apiserver_flowcontrol_current_executing_seats", Help: "Seats in use.",
	}, labels)
	queued = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "apiserver_flowcontrol_current_inqueue_requests", Help: "Requests that wait.",
	}, labels)
	queuedSeats = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "apiserver_flowcontrol_current_inqueue_seats", Help: "Seats that are waited for.",
	}, labels)
	lengths = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_flowcontrol_request_queue_length_after_enqueue", Help: "How many stood in a queue when one had joined it.",
		Buckets: []float64{0, 10, 25, 50, 100, 250, 500, 1000},
	}, labels)
	widths = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_flowcontrol_work_estimated_seats", Help: "Seats that requests took.", Buckets: []float64{1, 2, 4, 10},
	}, labels)
)

// counters are what one flow schema counts, looked up once.
type counters struct {
	dispatched                          prometheus.Counter
	waited, inVain                      prometheus.Observer // for their turn
	served, lengths, widths             prometheus.Observer
	serving, seats, queued, queuedSeats prometheus.Gauge
	rejected                            func(reason string)
}

func countersOf(level, flow string) counters {
	return counters{
		dispatched: dispatched.WithLabelValues(level, flow), waited: waited.WithLabelValues(level, flow, "true"), inVain: waited.WithLabelValues(level, flow, "false"), served: served.WithLabelValues(level, flow, "regular"),
		serving: serving.WithLabelValues(level, flow), seats: seats.WithLabelValues(level, flow), queued: queued.WithLabelValues(level, flow),
		queuedSeats: queuedSeats.WithLabelValues(level, flow), lengths: lengths.WithLabelValues(level, flow), widths: widths.WithLabelValues(level, flow),
		rejected: func(reason string) { rejected.WithLabelValues(level, flow, reason).Inc() },
	}
}

var (
	nominalSeats = prometheus.NewDesc("apiserver_flowcontrol_nominal_limit_seats", "Seats of a level's own.", labels[:1], nil)
	lowerSeats   = prometheus.NewDesc("apiserver_flowcontrol_lower_limit_seats", "Seats that a level has whatever others take.", labels[:1], nil)
	upperSeats   = prometheus.NewDesc("apiserver_flowcontrol_upper_limit_seats", "Seats that a level has at most.", labels[:1], nil)
	currentSeats = prometheus.NewDesc("apiserver_flowcontrol_current_limit_seats", "Seats that a level could use now.", labels[:1], nil)
	rooms        = []prometheus.Collector{dispatched, rejected, waited, served, serving, seats, queued, queuedSeats, lengths, widths}
)

// Describe names the metrics.
func (r *Room) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nominalSeats, lowerSeats, upperSeats, currentSeats} {
		ch <- d
	}
	for _, c := range rooms {
		c.Describe(ch)
	}
}

// Collect tells them.
func (r *Room) Collect(ch chan<- prometheus.Metric) {
	for _, l := range r.all() {
		s := l.state()
		tell := func(d *prometheus.Desc, n int) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), l.name)
		}
		tell(nominalSeats, s.nominal)
		tell(lowerSeats, s.nominal-s.lendable)
		tell(upperSeats, min(s.nominal+s.borrow, max(r.c.Seats, s.nominal)))
		tell(currentSeats, min(s.nominal+s.borrow, max(s.nominal, s.used)+int(max(r.spare(l), 0))))
	}
	for _, c := range rooms {
		c.Collect(ch)
	}
}

func (r *Room) all() []*level {
	if now := r.peers.Load(); now != nil {
		return *now
	}
	return nil
}
