package api

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Sink writes what an event broadcaster sends, one after the other.
type Sink struct {
	Events Resource[v1.Event, *v1.Event]
	// Busy tells that pods are being started. What they ask of the API goes before what is told of them, which waits a moment; nil
	// never is.
	Busy func() bool
}

// yieldMost is how old an event becomes at most while others go before it, and glance how often that is looked at.
const (
	yieldMost = time.Second
	glance    = 25 * time.Millisecond
)

func (s Sink) yield(e *v1.Event) {
	for s.Busy != nil && s.Busy() && time.Since(e.LastTimestamp.Time) < yieldMost {
		time.Sleep(glance)
	}
}

// eventWait bounds one write: events are told in passing.
const eventWait = 30 * time.Second

// Create writes a new event.
func (s Sink) Create(e *v1.Event) (*v1.Event, error) {
	s.yield(e)
	ctx, cancel := context.WithTimeout(context.Background(), eventWait)
	defer cancel()
	return s.Events.Create(ctx, e.Namespace, e)
}

// Update writes an event which counts again.
func (s Sink) Update(e *v1.Event) (*v1.Event, error) {
	s.yield(e)
	ctx, cancel := context.WithTimeout(context.Background(), eventWait)
	defer cancel()
	return s.Events.Update(ctx, e.Namespace, e.Name, e)
}

// Patch writes the change of an event which counts again.
func (s Sink) Patch(e *v1.Event, data []byte) (*v1.Event, error) {
	s.yield(e)
	ctx, cancel := context.WithTimeout(context.Background(), eventWait)
	defer cancel()
	return s.Events.Patch(ctx, e.Namespace, e.Name, types.StrategicMergePatchType, data)
}
