package codec

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	sigsjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/staging/api/scheme"
)

// How unknown and duplicate fields of a body are met.
const (
	Ignore = metav1.FieldValidationIgnore
	Warn   = metav1.FieldValidationWarn
	Strict = metav1.FieldValidationStrict
)

func serializer(m Media, strict bool) runtime.Serializer {
	return serializerOf(scheme.Scheme, m, strict)
}

func serializerOf(s *runtime.Scheme, m Media, strict bool) runtime.Serializer {
	switch m {
	case Proto:
		return protobuf.NewSerializer(s, s)
	case CBOR:
		return cbor.NewSerializer(s, s, cbor.Strict(strict))
	}
	return jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, s, s,
		jsonserializer.SerializerOptions{Yaml: m == YAML, Strict: strict})
}

// Decode reads a body into a new object of type want. A body that names another group, version or kind is a 400. fields
// is Ignore, Warn or Strict; what Warn finds comes back as warnings.
func Decode(body []byte, m Media, want schema.GroupVersionKind, into runtime.Object, fields string) (warnings []string, err error) {
	if m == JSON {
		if decodePlain(body, want, into, fields) {
			return nil, nil
		}
		reflect.ValueOf(into).Elem().SetZero()
	}
	strict := fields != Ignore && m != Proto
	got, gvk, err := serializer(m, strict).Decode(body, &want, into)
	if strictErr, ok := runtime.AsStrictDecodingError(err); ok && got != nil {
		if fields == Strict {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", want.Kind, want.Version, want.Kind, err))
		}
		for _, e := range strictErr.Errors() {
			warnings = append(warnings, e.Error())
		}
		err = nil
	}
	if err != nil {
		return nil, refuse(body, err, gvk, want)
	}
	if got != into {
		return nil, wrongType(gvk, want)
	}
	return warnings, nil
}

// decodePlain reads JSON that says of itself what it is meant to be, and of which nothing is to be told; false for any other,
// of which into may hold a part. It spares reading the body once more only for its kind.
func decodePlain(body []byte, want schema.GroupVersionKind, into runtime.Object, fields string) bool {
	if len(body) == 0 || body[0] != '{' {
		return false
	}
	if fields == Ignore {
		if err := sigsjson.UnmarshalCaseSensitivePreserveInts(body, into); err != nil {
			return false
		}
	} else if strict, err := sigsjson.UnmarshalStrict(body, into); err != nil || len(strict) > 0 {
		return false
	}
	return into.GetObjectKind().GroupVersionKind() == want
}

// DecodeAs is Decode into a new object of a row's version, which may read its objects itself.
func DecodeAs(def *kind.Def, v *kind.Version, body []byte, m Media, fields string) (obj kind.Object, warnings []string, err error) {
	want := def.GVK(v)
	if def.Loose == nil {
		obj = v.New()
		warnings, err = Decode(body, m, want, obj, fields)
		return obj, warnings, err
	}
	switch m {
	case YAML:
		body, err = yaml.YAMLToJSON(body)
	case CBOR:
		body, err = cborToJSON(body)
	case Proto:
		return nil, nil, Unsupported(all)
	}
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	obj, problems, err := def.Loose.Read(body, fields != Ignore)
	if err != nil {
		return nil, nil, err
	}
	if len(problems) > 0 && fields == Strict {
		err := runtime.NewStrictDecodingError(problems)
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", want.Kind, want.Version, want.Kind, err))
	}
	for _, p := range problems {
		warnings = append(warnings, p.Error())
	}
	return obj, warnings, nil
}

func cborToJSON(body []byte) ([]byte, error) {
	m := map[string]any{}
	if err := DecodeCBOR(body, &m); err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

func refuse(body []byte, err error, gvk *schema.GroupVersionKind, want schema.GroupVersionKind) error {
	if gvk == nil || gvk.Kind == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, sample(body)))
	}
	if runtime.IsNotRegisteredError(err) && *gvk != want {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: no kind %q is registered for version %q",
			gvk.Kind, want.Version, want.Kind, gvk.Kind, gvk.GroupVersion()))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", want.Kind, want.Version, want.Kind, err))
}

func wrongType(gvk *schema.GroupVersionKind, want schema.GroupVersionKind) error {
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: converting (%s.%s) to (%s.%s): unknown conversion",
		gvk.Kind, gvk.Version, want.Kind, gvk.Version, gvk.Kind, family(want.Group), want.Kind))
}

// family is a group's short name.
func family(group string) string {
	if group == "" {
		return "core"
	}
	short, _, _ := strings.Cut(group, ".")
	return short
}

// sample shows the beginning of a body in an error.
func sample(body []byte) string {
	const most = 30
	cut, tail := body, ""
	if len(body) > most {
		cut, tail = body[:most], " ..."
	}
	switch {
	case len(body) == 0:
		return "<empty>"
	case body[0] == '{':
		return string(cut) + tail
	}
	return hex.EncodeToString(cut) + tail
}

// Reason is what a Decode error says is wrong, without what it says of the type.
func Reason(err error) string {
	text := err.Error()
	if _, after, ok := strings.Cut(text, " cannot be handled as a "); ok {
		if _, reason, ok := strings.Cut(after, ": "); ok {
			return reason
		}
	}
	return text
}

// CheckFieldValidation answers what the query asks; nothing asked means Warn.
func CheckFieldValidation(r *http.Request, v string) (string, error) {
	switch v {
	case "":
		return Warn, nil
	case Ignore, Warn, Strict:
		return v, nil
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("Invalid value for fieldValidation: %q, supported values are: Ignore, Warn, Strict", v))
}

// DecodeCBOR reads CBOR into a map of JSON's types.
func DecodeCBOR(body []byte, into *map[string]any) error {
	obj := &unstructured.Unstructured{}
	if _, _, err := cborSerializer.Decode(body, nil, obj); err != nil {
		return err
	}
	*into = obj.Object
	return nil
}

// DecodeOptions reads DeleteOptions, whose group and version clients write in several ways: also as those of gv, what is
// to be deleted.
func DecodeOptions(body []byte, m Media, gv schema.GroupVersion, into *metav1.DeleteOptions) error {
	options := schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"}
	_, _, err := serializer(m, false).Decode(body, &options, into)
	if runtime.IsNotRegisteredError(err) { // as typed clients of custom resources do
		own := runtime.NewScheme()
		metav1.AddToGroupVersion(own, gv)
		_, _, err = serializerOf(own, m, false).Decode(body, &options, into)
	}
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("the body is not DeleteOptions: %v", err))
	}
	return nil
}
