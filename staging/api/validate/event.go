package validate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of an event's texts, in bytes.
const (
	reporterLimit = 128
	noteLimit     = 1024
)

// Event answers what is wrong with an event.
func Event(e *corev1.Event) field.ErrorList {
	if errs := eventBody(e); len(errs) > 0 {
		return errs
	}
	return validation.ValidateObjectMeta(&e.ObjectMeta, true, path.ValidatePathSegmentName, metadata)
}

// EventUpdate answers what is wrong with an event in the place of old.
func EventUpdate(e, old *corev1.Event) field.ErrorList {
	return append(common(&e.ObjectMeta, &old.ObjectMeta, true), eventBody(e)...)
}

func eventBody(e *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	// Only reporters of the newer kind give an exact time, and more is asked of them.
	if e.EventTime != (metav1.MicroTime{}) {
		reporter := field.NewPath("reportingController")
		if e.ReportingController == "" {
			errs = append(errs, field.Required(reporter, ""))
		}
		errs = append(errs, qualified(reporter, e.ReportingController)...)
		errs = append(errs, eventText("reportingInstance", e.ReportingInstance, true, reporterLimit, "can have at most 128 characters")...)
		errs = append(errs, eventText("action", e.Action, true, reporterLimit, "can have at most 128 characters")...)
		errs = append(errs, eventText("reason", e.Reason, true, reporterLimit, "can have at most 128 characters")...)
		errs = append(errs, eventText("message", e.Message, false, noteLimit, "can have at most 1024 characters")...)
	}
	about := e.InvolvedObject.Namespace
	at := field.NewPath("involvedObject", "namespace")
	if about == "" {
		// What is in no namespace is told of in the default one.
		if e.Namespace != "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
			errs = append(errs, field.Invalid(at, about, "does not match event.namespace"))
		}
	} else if e.Namespace != about {
		errs = append(errs, field.Invalid(at, about, "does not match event.namespace"))
	}
	return append(errs, wrong(field.NewPath("namespace"), e.Namespace, utilvalidation.IsDNS1123Subdomain(e.Namespace))...)
}

func eventText(name, text string, needed bool, limit int, why string) field.ErrorList {
	switch {
	case text == "" && needed:
		return field.ErrorList{field.Required(field.NewPath(name), "")}
	case len(text) > limit:
		return field.ErrorList{field.Invalid(field.NewPath(name), "", why)}
	}
	return nil
}
