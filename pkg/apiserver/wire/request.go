package wire

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

const (
	namesMost = 200 // header names that are remembered at most
	nameMost  = 64  // bytes of such a name at most: a client makes them up
)

// refused are the header fields that belong to HTTP/1 alone.
var refused = map[string]bool{"Connection": true, "Proxy-Connection": true, "Transfer-Encoding": true, "Upgrade": true, "Keep-Alive": true}

// request makes the stream's request. refusal is a code to answer instead of asking the handler, 0 = none.
func (st *stream) request(f *http2.MetaHeadersFrame) (refusal int, err error) {
	c := st.c
	var method, scheme, authority, path string
	var extended bool // a CONNECT as RFC 8441 has it, which we do not offer
	for _, p := range f.PseudoFields() {
		switch p.Name {
		case ":method":
			method = p.Value
		case ":scheme":
			scheme = p.Value
		case ":authority":
			authority = p.Value
		case ":path":
			path = p.Value
		case ":protocol":
			extended = true
		}
	}
	wrong := http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	connect := method == http.MethodConnect
	switch {
	case extended, strings.Contains(authority, "@"):
		return 0, wrong
	case connect && (path != "" || scheme != "" || authority == ""):
		return 0, wrong
	case !connect && (method == "" || path == "" || scheme != "https" && scheme != "http"):
		return 0, wrong
	}
	regular := f.RegularFields()
	h := make(http.Header, len(regular))
	values := make([]string, len(regular)) // of all fields, since most have one value
	for i, field := range regular {
		name := c.name(field.Name)
		switch {
		case refused[name], name == "Te" && field.Value != "trailers":
			refusal = http.StatusBadRequest
		case name == "Cookie" && h[name] != nil:
			h[name][0] += "; " + field.Value
			continue
		}
		if h[name] == nil {
			values[i] = field.Value
			h[name] = values[i : i+1 : i+1]
		} else {
			h[name] = append(h[name], field.Value)
		}
	}
	if hosts := h["Host"]; len(hosts) > 1 || len(hosts) == 1 && authority != "" && hosts[0] != authority {
		return 0, wrong // two readers of one request must not see two hosts
	} else if authority == "" {
		authority = h.Get("Host")
	}
	delete(h, "Host")
	if f.Truncated {
		refusal = http.StatusRequestHeaderFieldsTooLarge
	}
	u, uri := &url.URL{Host: authority}, authority
	if !connect {
		uri = path
		if path[0] != '/' && path != "*" {
			return 0, wrong
		}
		if u, err = url.ParseRequestURI(path); err != nil {
			return 0, wrong
		}
	}
	if !httpguts.ValidHostHeader(authority) || !httpguts.ValidHeaderFieldName(method) {
		return 0, wrong
	}
	st.head = method == http.MethodHead
	st.req = &http.Request{
		Method: method, URL: u, RequestURI: uri, Proto: "HTTP/2.0", ProtoMajor: 2, Header: h, Host: authority,
		RemoteAddr: c.remote, TLS: &c.state, Body: http.NoBody,
	}
	ask := httpguts.HeaderValuesContainsToken(h["Expect"], "100-continue")
	if ask {
		delete(h, "Expect")
	}
	delete(h, "Trailer")
	size := int64(-1)
	if said := h["Content-Length"]; len(said) > 0 {
		n, err := strconv.ParseUint(said[0], 10, 63)
		if err != nil || len(said) > 1 || st.heard && n > 0 {
			return 0, wrong
		}
		size = int64(n)
	}
	if st.heard {
		return refusal, nil
	}
	st.req.ContentLength = size
	st.body.begin(size, ask)
	st.req.Body = reader{st}
	return refusal, nil
}

// name is a header name as net/http writes it.
func (c *conn) name(lower string) string {
	name, ok := c.names[lower]
	if !ok {
		name = textproto.CanonicalMIMEHeaderKey(lower)
		if len(c.names) < namesMost && len(name) <= nameMost {
			c.names[strings.Clone(lower)] = name
		}
	}
	return name
}
