package codec

import (
	"bytes"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/staging/api/scheme"
)

var cborSerializer = cbor.NewSerializer(scheme.Scheme, scheme.Scheme)

// Encode writes an object as gvk in the target's media.
func Encode(obj runtime.Object, gvk schema.GroupVersionKind, t Target) ([]byte, error) {
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	switch t.Media {
	case Proto:
		return marshalWrapped(gvk.GroupVersion().String(), gvk.Kind, obj)
	case CBOR:
		if _, loose := obj.(json.Marshaler); !loose {
			var b bytes.Buffer
			err := cborSerializer.Encode(obj, &b)
			return b.Bytes(), err
		}
	}
	body, err := marshalJSON(obj)
	if err != nil {
		return nil, err
	}
	return Finish(body, t)
}

// Finish gives compact JSON the form the target wants: YAML, indented, or as it is with a newline.
func Finish(body []byte, t Target) ([]byte, error) {
	switch {
	case t.Media == YAML:
		return yaml.JSONToYAML(body)
	case t.Media == CBOR:
		return fromJSON(body)
	case t.Pretty:
		var b bytes.Buffer
		if err := json.Indent(&b, body, "", "  "); err != nil {
			return nil, fmt.Errorf("indenting an answer: %w", err)
		}
		return b.Bytes(), nil
	}
	return append(body, '\n'), nil
}

// fromJSON rewrites JSON as CBOR.
func fromJSON(body []byte) ([]byte, error) {
	obj, _, err := unstructured.UnstructuredJSONScheme.Decode(body, nil, nil)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = cborSerializer.Encode(obj, &b)
	return b.Bytes(), err
}

// EncodeEventCBOR writes a watch event whose object is CBOR already.
func EncodeEventCBOR(e *metav1.WatchEvent) ([]byte, error) {
	var b bytes.Buffer
	err := cborSerializer.Encode(e, &b)
	return b.Bytes(), err
}
