package runtime

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
)

// Deps is what controllers are made with.
type Deps struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	// Event tells users what happened to an object: type Normal or Warning, reason in upstream's words.
	Event func(obj runtime.Object, eventType, reason, message string)
	// Recorder makes an Event for a source component.
	Recorder func(source string) func(obj runtime.Object, eventType, reason, message string)
}

// From answers the same, with events that name a source: upstream's name of the controller.
func (d Deps) From(source string) Deps {
	d.Event = d.Recorder(source)
	return d
}

// The types of events.
const (
	Normal  = corev1.EventTypeNormal
	Warning = corev1.EventTypeWarning
)
