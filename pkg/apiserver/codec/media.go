package codec

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Media is how bytes are written.
type Media int

// The media the server reads and writes.
const (
	JSON Media = iota
	YAML
	Proto
	CBOR
)

var names = [...]string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"}

// all is what a refusal offers: what every client can speak.
var all = strings.Join(names[:CBOR], ", ")

// ContentType is the media's name in a header.
func (m Media) ContentType() string { return names[m] }

// Target is the form in which a client wants its answer.
type Target struct {
	Media Media
	// As is "" for the object itself, or Table, PartialObjectMetadata, PartialObjectMetadataList.
	As string
	// AsGV is the version of As: meta.k8s.io/v1 or v1beta1.
	AsGV schema.GroupVersion
	// Pretty asks for indented JSON.
	Pretty bool
}

// StreamType is the Content-Type of a watch.
func (t Target) StreamType() string {
	switch t.Media {
	case Proto:
		return names[Proto] + ";stream=watch"
	case CBOR:
		return "application/cbor-seq"
	}
	return t.Media.ContentType()
}

// What is answered to those who accept nothing that is served.
var (
	notAcceptable = apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "", schema.GroupResource{}, "", "406: Not Acceptable\n\nAvailable representations: "+all, 0, false)
	notLoose      = &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
	}}
)

// Negotiate picks what the Accept header likes best among what is served. as is whether Table and partial metadata are.
func Negotiate(r *http.Request, as bool) (Target, error) {
	return negotiate(r, as, func(Target) bool { return true }, notAcceptable)
}

// NegotiateUnlisted is Negotiate for what is answered but never kept, so that it has no table.
func NegotiateUnlisted(r *http.Request) (Target, error) {
	return negotiate(r, true, func(t Target) bool { return t.As != "Table" }, notLoose)
}

// NegotiateLoose is Negotiate for objects that have no protobuf form; tables and partial metadata have one.
func NegotiateLoose(r *http.Request, as bool) (Target, error) {
	return negotiate(r, as, func(t Target) bool { return t.Media != Proto || t.As != "" },
		notLoose)
}

func negotiate(r *http.Request, as bool, serves func(Target) bool, refusal error) (Target, error) {
	pretty := wantsPretty(r)
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if accept == "" {
		return Target{Media: JSON, Pretty: pretty}, nil
	}
	best, bestQ := Target{}, -1.0
	for _, clause := range strings.Split(accept, ",") {
		t, q, ok := parse(clause, as)
		if ok && q > bestQ && serves(t) {
			best, bestQ = t, q
		}
	}
	if bestQ < 0 {
		return Target{}, refusal
	}
	best.Pretty = pretty
	return best, nil
}

func parse(clause string, as bool) (t Target, q float64, ok bool) {
	name, params, err := mime.ParseMediaType(strings.TrimSpace(clause))
	if err != nil {
		return t, 0, false
	}
	if t.Media, ok = media(name); !ok {
		return t, 0, false
	}
	q = 1
	if v, err := strconv.ParseFloat(params["q"], 64); err == nil {
		q = v
	}
	if form := params["as"]; form != "" {
		t.As, t.AsGV = form, schema.GroupVersion{Group: params["g"], Version: params["v"]}
		known := form == "Table" || form == "PartialObjectMetadata" || form == "PartialObjectMetadataList"
		if !as || !known || t.AsGV.Group != metav1.GroupName || t.AsGV.Version != "v1" && t.AsGV.Version != "v1beta1" {
			return t, 0, false
		}
	}
	return t, q, true
}

func media(name string) (Media, bool) {
	switch name {
	case "application/json", "*/*", "application/*":
		return JSON, true
	case "application/yaml", "application/x-yaml", "text/yaml":
		return YAML, true
	case "application/vnd.kubernetes.protobuf":
		return Proto, true
	case "application/cbor", "application/cbor-seq":
		return CBOR, true
	}
	return 0, false
}

// wantsPretty follows the query, and without one indents for programs that people look through.
func wantsPretty(r *http.Request) bool {
	if strings.Contains(r.URL.RawQuery, "pretty") {
		v := r.URL.Query().Get("pretty")
		b, err := strconv.ParseBool(v)
		return v != "0" && (err != nil || b)
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// BodyMedia answers in what a request's body is written; none said means JSON.
func BodyMedia(r *http.Request) (Media, error) {
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		return JSON, nil
	}
	name, _, err := mime.ParseMediaType(ct)
	if err == nil {
		if m, ok := media(name); ok {
			return m, nil
		}
	}
	return 0, Unsupported(all)
}

// Unsupported is the refusal of a body's type; accepted lists the ones that are served.
func Unsupported(accepted string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: fmt.Sprintf("the body of the request was in an unknown format - accepted media types include: %s", accepted),
	}}
}
