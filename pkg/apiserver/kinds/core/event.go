package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// eventSeconds is how long an event is kept, unless the server is told otherwise.
const eventSeconds = 3600

// Event is the row of events, which two groups serve: they are one stored kind. ttl is in seconds, 0 = an hour.
func Event(ttl int64) *kind.Def {
	if ttl == 0 {
		ttl = eventSeconds
	}
	other := kind.In[eventsv1.Event, eventsv1.EventList](eventsv1.SchemeGroupVersion, nil)
	other.ToHub, other.FromHub = fromEventsV1, toEventsV1
	return kind.Row(kind.Def{
		Kind: "Event", Resource: "events", ShortNames: []string{"ev"}, Namespaced: true, CreateOnUpdate: true, TTLSeconds: ttl,
		Check: kind.Valid(validate.Event, validate.EventUpdate),
		FieldNames: []string{
			"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion",
			"involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type",
		},
		Fields: kind.Of(func(e *corev1.Event) map[string]string {
			o, source := e.InvolvedObject, e.Source.Component
			if source == "" {
				source = e.ReportingController
			}
			return map[string]string{
				"involvedObject.kind": o.Kind, "involvedObject.namespace": o.Namespace, "involvedObject.name": o.Name,
				"involvedObject.uid": string(o.UID), "involvedObject.apiVersion": o.APIVersion,
				"involvedObject.resourceVersion": o.ResourceVersion, "involvedObject.fieldPath": o.FieldPath,
				"reason": e.Reason, "reportingComponent": e.ReportingController, "source": source, "type": e.Type,
			}
		}),
		Columns: kind.Columns("Last_Seen Type Reason Object Subobject* Source* Message First_Seen* Count* Name*"),
		Row:     kind.Of(eventRow),
	}, kind.In[corev1.Event, corev1.EventList](corev1.SchemeGroupVersion, nil), other)
}

func eventRow(e *corev1.Event) []any {
	first, last, count := e.FirstTimestamp, e.LastTimestamp, e.Count
	if first.IsZero() {
		first = metav1.Time{Time: e.EventTime.Time}
	}
	if e.Series != nil {
		last, count = metav1.Time{Time: e.Series.LastObservedTime.Time}, e.Series.Count
	} else if count == 0 {
		count = 1
	}
	if last.IsZero() {
		last = first
	}
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	host := e.Source.Host
	if host == "" {
		host = e.ReportingInstance
	}
	if host != "" {
		source += ", " + host
	}
	o := e.InvolvedObject
	object := fmt.Sprintf("%s/%s", strings.ToLower(o.Kind), o.Name)
	if o.Name == "" {
		object = strings.ToLower(o.Kind)
	}
	return []any{kind.Age(last), e.Type, e.Reason, object, o.FieldPath, source, strings.TrimSpace(e.Message), kind.Age(first), int64(count), e.Name}
}

func toEventsV1(hub kind.Object) (kind.Object, error) {
	e := hub.(*corev1.Event)
	out := &eventsv1.Event{
		ObjectMeta: e.ObjectMeta, EventTime: e.EventTime, ReportingController: e.ReportingController,
		ReportingInstance: e.ReportingInstance, Action: e.Action, Reason: e.Reason, Regarding: e.InvolvedObject,
		Related: e.Related, Note: e.Message, Type: e.Type, DeprecatedSource: e.Source,
		DeprecatedFirstTimestamp: e.FirstTimestamp, DeprecatedLastTimestamp: e.LastTimestamp, DeprecatedCount: e.Count,
	}
	if e.Series != nil {
		out.Series = &eventsv1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return out, nil
}

func fromEventsV1(obj kind.Object) (kind.Object, error) {
	e := obj.(*eventsv1.Event)
	out := &corev1.Event{
		ObjectMeta: e.ObjectMeta, EventTime: e.EventTime, ReportingController: e.ReportingController,
		ReportingInstance: e.ReportingInstance, Action: e.Action, Reason: e.Reason, InvolvedObject: e.Regarding,
		Related: e.Related, Message: e.Note, Type: e.Type, Source: e.DeprecatedSource,
		FirstTimestamp: e.DeprecatedFirstTimestamp, LastTimestamp: e.DeprecatedLastTimestamp, Count: e.DeprecatedCount,
	}
	if e.Series != nil {
		out.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return out, nil
}
