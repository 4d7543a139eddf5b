package policystatus

import (
	"bytes"
	"encoding/json"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// document is the schemas of one group version by their names: what is read of /openapi/v3.
type document map[string]*node

// node is what a check reads of a schema.
type node struct {
	Type       string           `json:"type"`
	Format     string           `json:"format"`
	Ref        string           `json:"$ref"`
	AllOf      []*node          `json:"allOf"`
	Properties map[string]*node `json:"properties"`
	Additional *additional      `json:"additionalProperties"`
	Items      *node            `json:"items"`

	IntOrString bool `json:"x-kubernetes-int-or-string"`
	Embedded    bool `json:"x-kubernetes-embedded-resource"`
	Kinds       []struct {
		Group, Version, Kind string
	} `json:"x-kubernetes-group-version-kind"`
}

// additional is a schema where JSON has a boolean or a schema; the boolean says nothing of types.
type additional struct{ *node }

// UnmarshalJSON reads the schema, if it is one.
func (a *additional) UnmarshalJSON(text []byte) error {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return nil
	}
	return json.Unmarshal(text, &a.node)
}

// parse reads the answer of /openapi/v3/<group version>.
func parse(text []byte) (document, error) {
	var answer struct {
		Components struct {
			Schemas document `json:"schemas"`
		} `json:"components"`
	}
	err := json.Unmarshal(text, &answer)
	return answer.Components.Schemas, err
}

const refPrefix = "#/components/schemas/"

// root answers a reference to the schema of a kind, "" if the document has none.
func (d document) root(kind schema.GroupVersionKind) string {
	for name, n := range d {
		for _, k := range n.Kinds {
			if schema.GroupVersionKind(k) == kind {
				return refPrefix + name
			}
		}
	}
	return ""
}

// trail is the references that led to a schema: one that leads to itself is cut off there.
type trail struct {
	ref string
	up  *trail
}

func (t *trail) has(ref string) bool {
	for ; t != nil; t = t.up {
		if t.ref == ref {
			return true
		}
	}
	return false
}

// follow answers what a schema refers to, itself if to nothing, nil if that does not exist.
func (d document) follow(n *node, from *trail) (*node, *trail) {
	ref := n.reference()
	if ref == "" {
		return n, from
	}
	if from.has(ref) {
		return &node{Type: "object"}, from
	}
	return d[strings.TrimPrefix(ref, refPrefix)], &trail{ref, from}
}

// reference answers where a schema is defined. One with a description of its own has it wrapped in allOf.
func (n *node) reference() string {
	if n.Ref != "" {
		return n.Ref
	}
	for _, one := range n.AllOf {
		if ref := one.reference(); ref != "" {
			return ref
		}
	}
	return ""
}
