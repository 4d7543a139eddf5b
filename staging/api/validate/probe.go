package validate

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// handler is what either a probe or a hook may do.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func (h handler) check(grace *int64, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	n := 0
	// more counts a handler and tells whether it is the first.
	more := func(name string) bool {
		if n++; n > 1 {
			errs = append(errs, field.Forbidden(at.Child(name), "may not specify more than 1 handler type"))
			return false
		}
		return true
	}
	if h.exec != nil && more("exec") && len(h.exec.Command) == 0 {
		errs = append(errs, field.Required(at.Child("exec", "command"), ""))
	}
	if h.http != nil && more("httpGet") {
		p := at.Child("httpGet")
		if h.http.Path == "" {
			errs = append(errs, field.Required(p.Child("path"), ""))
		}
		errs = append(errs, portNumOrName(h.http.Port, p.Child("port"))...)
		if h.http.Scheme != corev1.URISchemeHTTP && h.http.Scheme != corev1.URISchemeHTTPS {
			errs = append(errs, field.NotSupported(p.Child("scheme"), h.http.Scheme, []string{"HTTP", "HTTPS"}))
		}
		for _, header := range h.http.HTTPHeaders {
			errs = append(errs, invalid(p.Child("httpHeaders"), header.Name, utilvalidation.IsHTTPHeaderName(header.Name))...)
		}
	}
	if h.tcp != nil && more("tcpSocket") {
		errs = append(errs, portNumOrName(h.tcp.Port, at.Child("tcpSocket", "port"))...)
	}
	if h.grpc != nil && more("grpc") {
		errs = append(errs, portNumOrName(intstr.FromInt32(h.grpc.Port), at.Child("grpc", "port"))...)
	}
	if h.sleep != nil && more("sleep") && grace != nil && (h.sleep.Seconds < 0 || h.sleep.Seconds > *grace) {
		errs = append(errs, field.Invalid(at.Child("sleep"), h.sleep.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace)))
	}
	if n == 0 {
		errs = append(errs, field.Required(at, "must specify a handler type"))
	}
	return errs
}

func portNumOrName(p intstr.IntOrString, at *field.Path) field.ErrorList {
	if p.Type == intstr.Int {
		return invalid(at, p.IntValue(), utilvalidation.IsValidPortNum(p.IntValue()))
	}
	return invalid(at, p.StrVal, utilvalidation.IsValidPortName(p.StrVal))
}

func lifecycle(l *corev1.Lifecycle, grace *int64, at *field.Path) field.ErrorList {
	if l == nil {
		return nil
	}
	var errs field.ErrorList
	for _, hook := range []struct {
		name string
		is   *corev1.LifecycleHandler
	}{{"postStart", l.PostStart}, {"preStop", l.PreStop}} {
		if is := hook.is; is != nil {
			errs = append(errs, handler{is.Exec, is.HTTPGet, is.TCPSocket, nil, is.Sleep}.check(grace, at.Child(hook.name))...)
		}
	}
	return errs
}

func probe(p *corev1.Probe, grace *int64, at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := handler{p.Exec, p.HTTPGet, p.TCPSocket, p.GRPC, nil}.check(grace, at)
	for _, f := range []struct {
		name string
		n    int32
	}{
		{"initialDelaySeconds", p.InitialDelaySeconds}, {"timeoutSeconds", p.TimeoutSeconds}, {"periodSeconds", p.PeriodSeconds},
		{"successThreshold", p.SuccessThreshold}, {"failureThreshold", p.FailureThreshold},
	} {
		errs = append(errs, validation.ValidateNonnegativeField(int64(f.n), at.Child(f.name))...)
	}
	if g := p.TerminationGracePeriodSeconds; g != nil && *g <= 0 {
		errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), *g, "must be greater than 0"))
	}
	return errs
}

// livenessProbe checks a probe that restarts: one success is enough for it.
func livenessProbe(p *corev1.Probe, grace *int64, at *field.Path) field.ErrorList {
	errs := probe(p, grace, at)
	if p != nil && p.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(at.Child("successThreshold"), p.SuccessThreshold, "must be 1"))
	}
	return errs
}

func readinessProbe(p *corev1.Probe, grace *int64, at *field.Path) field.ErrorList {
	errs := probe(p, grace, at)
	if p != nil && p.TerminationGracePeriodSeconds != nil {
		errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), *p.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
	}
	return errs
}
