package openapi

import (
	"bytes"
	"compress/gzip"
	_ "embed" // the models
	"encoding/binary"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

//go:generate go run ./internal/generate

// packed is the models' file; internal/generate/pack tells its form.
//
//go:embed definitions.gz
var packed string

// model is one definition: its JSON in both forms and the names of the models it refers to.
type model struct {
	refs   string // commas between
	v2, v3 []byte
}

// models are all published models by name. They are unpacked for one answer and then forgotten.
type models map[string]model

func unpack() (models, error) {
	z, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack the API's models: %w", err)
	}
	// The last four bytes tell the length.
	text := make([]byte, binary.LittleEndian.Uint32([]byte(packed[len(packed)-4:])))
	if _, err := io.ReadFull(z, text); err != nil {
		return nil, fmt.Errorf("unpack the API's models: %w", err)
	}
	all := models{}
	for line := range bytes.Lines(text) {
		col := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte("\t"), 4)
		if len(col) != 4 {
			return nil, fmt.Errorf("unpack the API's models: %q has %d columns", col[0], len(col))
		}
		all[string(col[0])] = model{string(col[1]), col[2], col[3]}
	}
	return all, nil
}

// add puts the models of a kind that has no Go type beside the published ones.
func (m models) add(d kind.Description) {
	for n, text := range d.V3 {
		m[n] = model{refs: strings.Join(referred(text, definitionsV3), ","), v2: d.V2[n], v3: text}
	}
}

// Where models are referred to.
const (
	definitionsV2 = "#/definitions/"
	definitionsV3 = "#/components/schemas/"
)

// referred are the models below root that a text names.
func referred(text []byte, root string) (out []string) {
	for rest := string(text); ; {
		_, after, ok := strings.Cut(rest, `"`+root)
		if !ok {
			slices.Sort(out)
			return slices.Compact(out)
		}
		var name string
		name, rest, _ = strings.Cut(after, `"`)
		out = append(out, name)
	}
}

// reached are the names that these roots refer to, themselves too, sorted.
func (m models) reached(roots map[string]bool) []string {
	seen, todo := map[string]bool{}, []string{}
	for n := range roots {
		todo = append(todo, n)
	}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, ok := m[n]; !ok || seen[n] {
			continue
		}
		seen[n] = true
		if refs := m[n].refs; refs != "" {
			todo = append(todo, strings.Split(refs, ",")...)
		}
	}
	out := make([]string, 0, len(seen))
	for n := range seen {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// modelName is a Go type's name among the models. obj is a pointer to a struct.
func modelName(obj any) string {
	if obj == nil {
		return ""
	}
	t := reflect.TypeOf(obj).Elem()
	if n, ok := reflect.Zero(t).Interface().(interface{ OpenAPIModelName() string }); ok {
		return n.OpenAPIModelName()
	}
	return ""
}
