package audit

import (
	"time"

	"github.com/spf13/pflag"
)

// AddFlags binds the configuration to upstream's flags. The log is written beside the requests unless told otherwise: no
// disk holds a request up.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&c.PolicyFile, "audit-policy-file", "", "File with the audit policy; none audits nothing.")
	l := &c.Log
	f.StringVar(&l.Path, "audit-log-path", "", "File that audit events are written to; - is standard output.")
	f.StringVar(&l.Format, "audit-log-format", "json", "How events are written to the file: json or legacy.")
	f.IntVar(&l.MaxAge, "audit-log-maxage", 0, "How many days rotated audit files are kept; 0 is for ever.")
	f.IntVar(&l.MaxFiles, "audit-log-maxbackup", 0, "How many rotated audit files are kept; 0 is all.")
	f.IntVar(&l.MaxSize, "audit-log-maxsize", 0, "At how many megabytes the audit file is rotated; 0 is 100.")
	f.BoolVar(&l.Compress, "audit-log-compress", false, "Compress rotated audit files.")
	delivery(f, "log", &l.Delivery, Delivery{Mode: "batch", BufferSize: 10000, MaxBatch: 400})
	w := &c.Webhook
	f.StringVar(&w.ConfigFile, "audit-webhook-config-file", "", "Kubeconfig of a service that is told of audit events.")
	f.DurationVar(&w.InitialBackoff, "audit-webhook-initial-backoff", 10*time.Second, "How long to wait before a failed delivery is repeated.")
	delivery(f, "webhook", &w.Delivery, Delivery{Mode: "batch", BufferSize: 10000, MaxBatch: 400, MaxWait: 30 * time.Second})
	for _, name := range []string{"log", "webhook"} {
		throttle, qps, burst := new(bool), &w.QPS, &w.Burst
		if name == "log" {
			qps, burst = new(float32), new(int) // a file needs no mercy
		}
		f.BoolVar(throttle, "audit-"+name+"-batch-throttle-enable", name == "webhook", "Bound how many batches are sent.")
		f.Float32Var(qps, "audit-"+name+"-batch-throttle-qps", 10, "How many batches are sent per second.")
		f.IntVar(burst, "audit-"+name+"-batch-throttle-burst", 15, "How many batches are sent at once after a pause.")
		if name == "webhook" {
			c.throttle = throttle
		}
		f.String("audit-"+name+"-version", "audit.k8s.io/v1", "The version of events; there is one.")
	}
}

func delivery(f *pflag.FlagSet, name string, d *Delivery, usual Delivery) {
	p := "audit-" + name + "-"
	f.StringVar(&d.Mode, p+"mode", usual.Mode, "How events are delivered: batch (beside the requests), blocking, or blocking-strict (a request that cannot be written down fails).")
	f.IntVar(&d.BufferSize, p+"batch-buffer-size", usual.BufferSize, "How many events wait at most; more are lost and counted.")
	f.IntVar(&d.MaxBatch, p+"batch-max-size", usual.MaxBatch, "How many events are delivered at once.")
	f.DurationVar(&d.MaxWait, p+"batch-max-wait", usual.MaxWait, "How long a batch waits to be full.")
	f.BoolVar(&d.Truncate, p+"truncate-enabled", false, "Leave bodies out of events that are too large.")
	f.IntVar(&d.MaxEvent, p+"truncate-max-event-size", 100<<10, "The size of an event from which it is cut, in bytes.")
	f.IntVar(&d.MaxBytes, p+"truncate-max-batch-size", 10<<20, "The size of a batch at most, in bytes.")
}
