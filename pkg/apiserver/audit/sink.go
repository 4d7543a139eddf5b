package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// Delivery is how a sink takes events, under upstream's flags.
type Delivery struct {
	Mode       string        // batch, blocking, blocking-strict
	BufferSize int           // events that wait at most
	MaxBatch   int           // events per delivery
	MaxWait    time.Duration // between two deliveries; 0 = as they come
	// Truncate cuts what makes an event larger than MaxEvent bytes; a delivery has at most MaxBytes.
	Truncate           bool
	MaxEvent, MaxBytes int
}

// modes are what Delivery.Mode may be.
var modes = []string{"batch", "blocking", "blocking-strict"}

// sink is one place events go to.
type sink struct {
	name    string
	d       Delivery
	queue   chan []byte // of batch mode
	deliver func(ctx context.Context, lines [][]byte) error
	format  func(ev *auditv1.Event) ([]byte, error)
	end     func()
}

func newSink(name string, d Delivery) (*sink, error) {
	if !slices.Contains(modes, d.Mode) {
		return nil, fmt.Errorf("--audit-%s-mode %q: give batch, blocking or blocking-strict", name, d.Mode)
	}
	if d.Mode == "batch" && (d.BufferSize < 1 || d.MaxBatch < 1) {
		return nil, fmt.Errorf("--audit-%s-batch-buffer-size and --audit-%s-batch-max-size must be 1 or more", name, name)
	}
	s := &sink{name: name, d: d, format: func(ev *auditv1.Event) ([]byte, error) { return json.Marshal(ev) }, end: func() {}}
	if d.Mode == "batch" {
		s.queue = make(chan []byte, d.BufferSize)
	}
	return s, nil
}

// encode is one event as the sink writes it. What makes it too large is left out, bodies first.
func (s *sink) encode(ev *auditv1.Event) ([]byte, error) {
	b, err := s.format(ev)
	if err != nil || !s.d.Truncate || len(b) <= s.d.MaxEvent {
		return b, err
	}
	small := *ev
	small.RequestObject, small.ResponseObject = nil, nil
	small.Annotations = map[string]string{"audit.k8s.io/truncated": "true"}
	for k, v := range ev.Annotations {
		small.Annotations[k] = v
	}
	if b, err = s.format(&small); err == nil && len(b) > s.d.MaxEvent {
		err = fmt.Errorf("the event has %d bytes, %d are allowed", len(b), s.d.MaxEvent)
	}
	return b, err
}

// errMissed is the refusal of a request that cannot be written down.
var errMissed = errors.New("the audit event could not be written")

// put hands an event over. Only a strict sink fails, and only where the request can still be refused.
func (s *sink) put(line []byte, stage auditv1.Stage) error {
	if s.queue != nil {
		select {
		case s.queue <- line:
			counted(s.name, 1, 0)
		default:
			counted(s.name, 0, 1)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.deliver(ctx, [][]byte{line}); err != nil {
		counted(s.name, 0, 1)
		slog.Error("an audit event was lost", "sink", s.name, "err", err)
		if s.d.Mode == "blocking-strict" && stage == auditv1.StageRequestReceived {
			return errMissed
		}
		return nil
	}
	counted(s.name, 1, 0)
	return nil
}

// run delivers in batches until ctx ends, and then the rest.
func (s *sink) run(ctx context.Context) {
	defer s.end()
	if s.queue == nil {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		if batch := s.collect(ctx); len(batch) > 0 {
			s.send(ctx, batch)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for last.Err() == nil {
		batch := s.take(nil)
		if len(batch) == 0 {
			return
		}
		s.send(last, batch)
	}
}

func (s *sink) send(ctx context.Context, batch [][]byte) {
	if err := s.deliver(ctx, batch); err != nil {
		counted(s.name, 0, len(batch))
		slog.Error("audit events were lost", "sink", s.name, "events", len(batch), "err", err)
	}
}

// collect waits for a first event, then for as many as a batch takes or the wait is long.
func (s *sink) collect(ctx context.Context) [][]byte {
	var batch [][]byte
	select {
	case <-ctx.Done():
		return nil
	case line := <-s.queue:
		batch = append(batch, line)
	}
	if s.d.MaxWait <= 0 {
		return s.take(batch)
	}
	late := time.NewTimer(s.d.MaxWait)
	defer late.Stop()
	size := len(batch[0])
	for len(batch) < s.d.MaxBatch && (s.d.MaxBytes <= 0 || size < s.d.MaxBytes) {
		select {
		case line := <-s.queue:
			batch = append(batch, line)
			size += len(line)
		case <-late.C:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// take adds what waits already.
func (s *sink) take(batch [][]byte) [][]byte {
	for len(batch) < s.d.MaxBatch {
		select {
		case line := <-s.queue:
			batch = append(batch, line)
		default:
			return batch
		}
	}
	return batch
}
