package engine

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// errNotServed is the answer to a path that names nothing we serve.
var errNotServed = &apierrors.StatusError{ErrStatus: metav1.Status{
	Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
	Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{},
}}

// StatusOf makes an API status of any error.
func StatusOf(err error) *metav1.Status {
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		s := known.Status()
		s.Status = metav1.StatusFailure
		return &s
	}
	var e *apierrors.StatusError
	switch code := status.Code(err); {
	case errors.Is(err, context.Canceled):
		e = apierrors.NewTimeoutError("the request was canceled", 0)
	case errors.Is(err, context.DeadlineExceeded) || code == codes.DeadlineExceeded:
		e = apierrors.NewTimeoutError("request did not complete within requested timeout - "+err.Error(), 0)
	case code == codes.Unavailable || errors.Is(err, rpctypes.ErrNoLeader) || errors.Is(err, rpctypes.ErrTimeout):
		e = apierrors.NewServiceUnavailable("etcd cannot be reached: " + err.Error())
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		e = apierrors.NewRequestEntityTooLargeError("the object is larger than etcd takes")
	default:
		return &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}
	}
	return &e.ErrStatus
}

// fail answers an error.
func (c *call) fail(err error) {
	WriteError(c.w, c.r, err)
}

// WriteError answers an error as a Status in the media the client reads.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	s := StatusOf(err)
	if s.Code == http.StatusInternalServerError && !askedWrong(err) {
		// What another service answered may be shown to who asked, but is not for the log.
		var said any = err
		var told interface{ ForLog() string }
		if errors.As(err, &told) {
			said = told.ForLog()
		}
		slog.Error("request failed", "path", r.URL.Path, "method", r.Method, "err", said)
	}
	WriteStatus(w, r, s)
}

// wrong is an error of the request's own that upstream answers with 500 all the same.
type wrong struct{ error }

func (w wrong) Unwrap() error { return w.error }

// askedWrong tells whether an error is no fault of the server's.
func askedWrong(err error) bool {
	var w wrong
	if errors.As(err, &w) {
		return true
	}
	all, ok := err.(utilerrors.Aggregate) //nolint:errorlint // field.ErrorList makes it as it is
	return ok && !slices.ContainsFunc(all.Errors(), func(e error) bool {
		_, ok := e.(*field.Error) //nolint:errorlint // as above
		return !ok
	})
}

// WriteStatus answers a Status.
func WriteStatus(w http.ResponseWriter, r *http.Request, s *metav1.Status) {
	t, err := codec.Negotiate(r, true)
	if err != nil {
		t = codec.Target{Media: codec.JSON}
	}
	b, err := codec.Encode(s, schema.GroupVersionKind{Version: "v1", Kind: "Status"}, t)
	if err != nil {
		http.Error(w, s.Message, int(s.Code))
		return
	}
	if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
	}
	w.Header().Set("Content-Type", t.Media.ContentType())
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(int(s.Code))
	if _, err := w.Write(b); err != nil && request.InfoOf(r.Context()) != nil {
		slog.Debug("the client went before its answer", "path", r.URL.Path, "err", err)
	}
}
