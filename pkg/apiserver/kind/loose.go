package kind

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
)

// Loose is what a kind brings whose objects have no generated Go type (custom resources): it reads and writes its objects
// itself, as JSON. Each of its served versions is a row of its own, which shares the stored objects with the others: the
// hub of such a row is the version asked for.
type Loose struct {
	// ListKind is the kind of the objects' list.
	ListKind string
	// Encode answers the value to store for a hub object, without its resourceVersion.
	Encode func(obj Object) ([]byte, error)
	// Decode reads a stored value, of whatever version, into the hub.
	Decode func(value []byte) (Object, error)
	// Peek is Decode as far as it needs nobody else: current tells that obj is the hub, else it is as stored, and Decode
	// must be asked when the object is.
	Peek func(value []byte) (obj Object, current bool, err error)
	// Adopt converts objects that the cache answers (in the hub of the row it was made with) to this row's hub; nil = they
	// are.
	Adopt func(objs []Object) ([]Object, error)
	// Read reads a request's object of this row's version. problems are unknown and duplicate fields, looked for if strict.
	Read func(body []byte, strict bool) (obj Object, problems []error, err error)
	// Shape drops what the version's schema does not know from an object that someone changed on the way, and defaults it.
	Shape func(obj Object) error
	// Equivalents are the other served versions, best first, and To and From convert a hub object to and from one of them.
	Equivalents []schema.GroupVersion
	To          func(obj Object, gv schema.GroupVersion) (Object, error)
	From        func(obj Object) (Object, error)
	// Types reads objects of all versions by their schemas.
	Types func() (managedfields.TypeConverter, error)
	// Manager keeps the managedFields of the version, or of a subresource of it.
	Manager func(sub string) (*managedfields.FieldManager, error)
	// Describe answers what the version looks like in OpenAPI.
	Describe func() Description
}

// Description is a version's models in OpenAPI, by name: the JSON of v2's and v3's form.
type Description struct {
	Object, List string // names of the object's and its list's model
	V2, V3       map[string]json.RawMessage
}

// Mapped is an object that shows itself as a map of JSON's values, and can be made of one.
type Mapped interface {
	Map() (map[string]any, error)
	SetMap(m map[string]any) error
}
