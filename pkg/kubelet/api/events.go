package api

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Sink writes what an event broadcaster sends.
type Sink struct{ Events Resource[v1.Event, *v1.Event] }

// eventWait bounds one write: events are told in passing.
const eventWait = 30 * time.Second

// Create writes a new event.
func (s Sink) Create(e *v1.Event) (*v1.Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), eventWait)
	defer cancel()
	return s.Events.Create(ctx, e.Namespace, e)
}

// Update writes an event which counts again.
func (s Sink) Update(e *v1.Event) (*v1.Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), eventWait)
	defer cancel()
	return s.Events.Update(ctx, e.Namespace, e.Name, e)
}

// Patch writes the change of an event which counts again.
func (s Sink) Patch(e *v1.Event, data []byte) (*v1.Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), eventWait)
	defer cancel()
	return s.Events.Patch(ctx, e.Namespace, e.Name, types.StrategicMergePatchType, data)
}
