package openapi

import "encoding/json"

// Foreign is what another server behind this one says of a group and version.
type Foreign struct {
	Key  string // of its v3 document: "apis/wardle.example.com/v1"
	Hash string // of that document, which it serves itself; "" if it has none
	// Paths and Definitions are its part of v2, as it wrote them.
	Paths, Definitions map[string]json.RawMessage
}

// Join describes what other servers serve too, and no longer what was told of them before.
func (h *Handler) Join(foreign []Foreign) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foreign = foreign
	delete(h.tags, "")
}
