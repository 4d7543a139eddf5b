package openapi

import (
	"reflect"
	"strings"
)

// schemas are the models of a document by name. Which fields are required is not told: Go types do not say it.
type schemas object

// Types may tell more of themselves.
type (
	named      interface{ OpenAPIModelName() string }
	documented interface{ SwaggerDoc() map[string]string }
	typed      interface{ OpenAPISchemaType() []string }
	formatted  interface{ OpenAPISchemaFormat() string }
)

// kind adds the model of a kind and answers a reference to it.
func (s schemas) kind(obj any, gvk object) object {
	t := reflect.TypeOf(obj).Elem()
	ref := s.of(t)
	if m, ok := s[name(t)].(object); ok {
		had, _ := m["x-kubernetes-group-version-kind"].([]object)
		m["x-kubernetes-group-version-kind"] = append(had, gvk)
	}
	return ref
}

// name is a type's name in documents.
func name(t reflect.Type) string {
	if n, ok := reflect.Zero(t).Interface().(named); ok {
		return n.OpenAPIModelName()
	}
	return strings.ReplaceAll(t.PkgPath(), "/", ".") + "." + t.Name()
}

// of answers the schema of a type: models by reference, the rest in place.
func (s schemas) of(t reflect.Type) object {
	if t.Kind() == reflect.Pointer {
		return s.of(t.Elem())
	}
	if x, ok := reflect.Zero(t).Interface().(typed); ok {
		out := object{}
		if types := x.OpenAPISchemaType(); len(types) == 1 {
			out["type"] = types[0]
		}
		if f, ok := x.(formatted); ok && f.OpenAPISchemaFormat() != "" {
			out["format"] = f.OpenAPISchemaFormat()
		}
		return out
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return object{"type": "integer", "format": "int64"}
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return object{"type": "integer", "format": "int32"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number", "format": "double"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "format": "byte"}
		}
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		n := name(t)
		if s[n] == nil {
			m := object{"type": "object"}
			s[n] = m // before its fields: types may hold themselves
			properties := object{}
			m["description"] = s.fields(t, properties)
			if len(properties) > 0 {
				m["properties"] = properties
			}
		}
		return object{"allOf": []object{{"$ref": "#/components/schemas/" + n}}}
	}
	return object{} // anything
}

// fields adds a struct's fields, those of inlined ones too, and answers what the type says of itself.
func (s schemas) fields(t reflect.Type, into object) string {
	var docs map[string]string
	if d, ok := reflect.Zero(t).Interface().(documented); ok {
		docs = d.SwaggerDoc()
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || tag == "-":
		case tag == "" && (f.Anonymous || strings.Contains(options, "inline")):
			if f.Type.Kind() == reflect.Struct {
				s.fields(f.Type, into)
			}
		case tag != "":
			p := s.of(f.Type)
			if doc := docs[tag]; doc != "" {
				p["description"] = doc
			}
			into[tag] = p
		}
	}
	return docs[""]
}
