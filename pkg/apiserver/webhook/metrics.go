package webhook

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	upstream "k8s.io/apiserver/pkg/admission"
)

var (
	durations = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_admission_webhook_admission_duration_seconds", Help: "How long each webhook took to answer.",
		Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 25},
	}, []string{"name", "operation", "rejected", "type"})
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_admission_webhook_request_total", Help: "Requests to webhooks, by what came back.",
	}, []string{"code", "name", "operation", "rejected", "type"})
	rejections = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_admission_webhook_rejection_count", Help: "Requests refused by or because of webhooks.",
	}, []string{"error_type", "name", "operation", "rejection_code", "type"})
	failOpens = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_admission_webhook_fail_open_count", Help: "Requests let through although a webhook could not be asked.",
	}, []string{"name", "type"})
)

// Collectors are what this room counts.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{durations, requests, rejections, failOpens}
}

// ask asks a webhook and counts what came of it. kind is validating or admit.
func (d *dispatcher) ask(ctx context.Context, kind string, h *hook, a *upstream.VersionedAttributes, gvr schema.GroupVersionResource) (*admissionv1.AdmissionResponse, error) {
	begun := time.Now()
	resp, err := d.caller.ask(ctx, h, a, gvr)
	took := time.Since(begun).Seconds()
	op, rejected, code := string(a.GetOperation()), false, http.StatusOK
	reject := func(why string, code int) {
		rejected = true
		rejections.WithLabelValues(why, h.name, op, strconv.Itoa(code), kind).Inc()
	}
	var call *callError
	switch {
	case err == nil && resp.Allowed:
	case err == nil:
		code = http.StatusBadRequest
		if resp.Result != nil && resp.Result.Code >= http.StatusBadRequest {
			code = int(resp.Result.Code)
		}
		reject("no_error", code)
	case errors.As(err, &call) && h.ignore:
		code = 0
		failOpens.WithLabelValues(h.name, kind).Inc()
	case call != nil:
		code = 0
		reject("calling_webhook_error", 0)
	default:
		code = 0
		reject("apiserver_internal_error", 0)
	}
	no := strconv.FormatBool(rejected)
	durations.WithLabelValues(h.name, op, no, kind).Observe(took)
	requests.WithLabelValues(strconv.Itoa(code), h.name, op, no, kind).Inc()
	return resp, err
}
