package openapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
)

// document is one document in the making. Its parts are rendered one at a time, so that it never stands as a whole tree.
type document struct {
	v3     bool
	head   object
	models models
	items  []*item
	raw    map[string]json.RawMessage // paths in v2 that others wrote
}

// part is one entry of a document's section.
type part struct {
	section, name string // section is a top level key, or "components/schemas"
	text          []byte
}

// each gives the parts to f in the order of sections, until it fails.
func (d *document) each(f func(part) error) error {
	section, schemas := "paths", "definitions"
	if d.v3 {
		schemas = "components/schemas"
	}
	roots, shared := map[string]bool{}, map[string]param{}
	for _, it := range d.items {
		it.models(roots)
		for _, op := range it.ops {
			for _, p := range op.query {
				if k := p.key(); k != "" {
					shared[k] = p
				}
			}
		}
		text, err := json.Marshal(it.render(d.v3))
		if err != nil {
			return fmt.Errorf("describe %s: %w", it.path, err)
		}
		if err := f(part{section, it.path, text}); err != nil {
			return err
		}
	}
	for _, path := range sortedKeys(d.raw) {
		for _, n := range referred(d.raw[path], definitionsV2) {
			roots[n] = true
		}
		if err := f(part{section, path, d.raw[path]}); err != nil {
			return err
		}
	}
	for _, n := range d.models.reached(roots) {
		text := d.models[n].v2
		if d.v3 {
			text = d.models[n].v3
		}
		if err := f(part{schemas, n, text}); err != nil {
			return err
		}
	}
	if d.v3 {
		return nil
	}
	for _, k := range sortedKeys(shared) {
		text, err := json.Marshal(shared[k].whole())
		if err != nil {
			return fmt.Errorf("describe parameter %s: %w", k, err)
		}
		if err := f(part{"parameters", k, text}); err != nil {
			return err
		}
	}
	return nil
}

// json writes the document's text.
func (d *document) json(to io.Writer) error {
	head, err := json.Marshal(d.head)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(to)
	_, _ = b.Write(head[:len(head)-1]) // Flush answers the first error
	open, last := "", ""
	err = d.each(func(p part) error {
		if p.section == open {
			_ = b.WriteByte(',')
		} else {
			fmt.Fprintf(b, "%s,", last)
			keys := strings.Split(p.section, "/")
			for _, k := range keys {
				fmt.Fprintf(b, "%q:{", k)
			}
			open, last = p.section, strings.Repeat("}", len(keys))
		}
		fmt.Fprintf(b, "%q:%s", p.name, p.text)
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "%s}", last)
	return b.Flush()
}

// proto is the document as protobuf. Messages that follow each other in a stream are one message whose fields are the
// union, so each part is encoded as a document of its own: the library's tree of the whole would take hundreds of MB.
func (d *document) proto() ([]byte, error) {
	var out []byte
	head, err := json.Marshal(d.head)
	if err != nil {
		return nil, err
	}
	put := func(text []byte, isHead bool) error {
		m, err := d.parse(text, isHead)
		if err != nil {
			return err
		}
		out, err = proto.MarshalOptions{}.MarshalAppend(out, m)
		return err
	}
	if err := put(append(head[:len(head)-1], `,"paths":{}}`...), true); err != nil {
		return nil, err
	}
	err = d.each(func(p part) error {
		one, err := json.Marshal(map[string]json.RawMessage{p.name: p.text})
		if err != nil {
			return err
		}
		tail := `,"paths":{}}`
		if p.section == "paths" {
			tail = "}"
		}
		text := `{"swagger":"2.0","openapi":"3.0.0","info":{"title":"","version":""},`
		if d.v3 {
			text = strings.Replace(text, `"swagger":"2.0",`, "", 1)
		} else {
			text = strings.Replace(text, `"openapi":"3.0.0",`, "", 1)
		}
		if outer, inner, nested := strings.Cut(p.section, "/"); nested {
			text += fmt.Sprintf("%q:{%q:%s}", outer, inner, one)
		} else {
			text += fmt.Sprintf("%q:%s", p.section, one)
		}
		return put([]byte(text+tail), false)
	})
	return out, err
}

// parse reads a document's text; of what is not the head only the part is kept.
func (d *document) parse(text []byte, isHead bool) (proto.Message, error) {
	if d.v3 {
		m, err := openapiv3.ParseDocument(text)
		if err == nil && !isHead {
			m.Info, m.Openapi = nil, ""
		}
		return m, err
	}
	m, err := openapiv2.ParseDocument(text)
	if err == nil && !isHead {
		m.Info, m.Swagger = nil, ""
	}
	return m, err
}
