package validate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

var metadata = field.NewPath("metadata")

// common is what every update is asked before its kind's own questions. That kinds ask much of it again is seen in
// answers, where such an error stands several times.
func common(m, old *metav1.ObjectMeta, namespaced bool) field.ErrorList {
	errs := validation.ValidateObjectMeta(m, namespaced, path.ValidatePathSegmentName, metadata)
	return append(errs, validation.ValidateObjectMetaUpdate(m, old, metadata)...)
}

// wrong is one error for each message about a value.
func wrong(at *field.Path, value any, msgs []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range msgs {
		errs = append(errs, field.Invalid(at, value, msg))
	}
	return errs
}

// among refuses a value that is not among known; known is listed as it stands.
func among[T ~string](at *field.Path, value T, known ...T) field.ErrorList {
	if slices.Contains(known, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at, value, known)}
}

// chosen is among for a value that must be there.
func chosen[T ~string](at *field.Path, value T, known ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return among(at, value, known...)
}

// transport refuses what is no protocol of a port.
func transport(at *field.Path, p corev1.Protocol) field.ErrorList {
	return chosen(at, p, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
}

// qualified refuses what is not a name with an optional domain before a slash.
func qualified(at *field.Path, name string) field.ErrorList {
	return wrong(at, name, utilvalidation.IsQualifiedName(name))
}

// outward refuses an address that means the machine or link it is used on: traffic sent there would reach what the
// writer of the object may not reach.
func outward(at *field.Path, s string) field.ErrorList {
	ip := netutils.ParseIPSloppy(s)
	if ip == nil {
		return field.ErrorList{field.Invalid(at, s, "must be a valid IP address")}
	}
	var errs field.ErrorList
	refuse := func(special bool, why string) {
		if special {
			errs = append(errs, field.Invalid(at, s, why))
		}
	}
	refuse(ip.IsUnspecified(), "may not be unspecified ("+s+")")
	refuse(ip.IsLoopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	refuse(ip.IsLinkLocalUnicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	refuse(ip.IsLinkLocalMulticast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	return errs
}
