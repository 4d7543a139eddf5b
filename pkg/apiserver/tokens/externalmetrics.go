package tokens

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// What is counted of an external signer; nothing is told where there is none.
var (
	fetches   = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_externaljwt_fetch_keys_request_total", Help: "Questions to the external signer for its keys."}, []string{"code"})
	fetchTime = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "apiserver_externaljwt_fetch_keys_success_timestamp", Help: "When the external signer's keys were last fetched."}, nil)
	dataTime  = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "apiserver_externaljwt_fetch_keys_data_timestamp", Help: "Of when the external signer said its keys were."}, nil)
	signings  = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_externaljwt_sign_request_total", Help: "Tokens that the external signer was asked to sign."}, []string{"code"})
	callTimes = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "apiserver_externaljwt_request_duration_seconds", Help: "How long the external signer took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
	}, []string{"method", "code"})
)

func countFetch(err error) {
	fetches.WithLabelValues(status.Code(err).String()).Inc()
	if err == nil {
		fetchTime.WithLabelValues().SetToCurrentTime()
	}
}

func countSign(err error) { signings.WithLabelValues(status.Code(err).String()).Inc() }

// timed measures every call.
func timed(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	begun := time.Now()
	err := call(ctx, method, req, reply, conn, opts...)
	callTimes.WithLabelValues(method, status.Code(err).String()).Observe(time.Since(begun).Seconds())
	return err
}
