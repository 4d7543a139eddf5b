package wire

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// holdMost is how much of an answer is held back until it is known whether there is more: with what is around it, a TLS
// record.
const holdMost = 14 << 10

var holds = sync.Pool{New: func() any { b := make([]byte, 0, holdMost); return &b }}

// response is the answer to a stream. It goes out when the handler returns, flushes, or has written more than is held.
type response struct {
	st       *stream
	header   http.Header
	code     int                 // 0 = not said yet
	fields   []hpack.HeaderField // of the head, once the code was said
	typed    bool                // it says a type, or that its bytes are of none
	kind     string              // else, the type that the first bytes look like
	dated    bool
	sized    bool
	announce []string // names of trailers
	sent     bool     // the head is on its way
	held     *[]byte
	written  int64
	declared int64 // Content-Length, -1 = none
}

// Header is what the handler says of its answer.
func (w *response) Header() http.Header { return w.header }

// bodiless tells whether a code comes without a body.
func bodiless(code int) bool {
	return code < 200 || code == http.StatusNoContent || code == http.StatusNotModified
}

// WriteHeader fixes the head. Codes below 200 go out at once, and another code follows.
func (w *response) WriteHeader(code int) {
	if w.code != 0 {
		return
	}
	if code >= 100 && code < 200 && code != http.StatusSwitchingProtocols {
		w.st.c.inform(w.st, code, w.header)
		return
	}
	w.code = code
	w.fields = append(make([]hpack.HeaderField, 0, len(w.header)+4), hpack.HeaderField{Name: ":status", Value: status(code)})
	for name, values := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			continue
		}
		switch name {
		case "Connection":
			if httpguts.HeaderValuesContainsToken(values, "close") {
				w.st.c.leave()
			}
			continue
		case "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade":
			continue
		case "Content-Type", "Content-Encoding":
			w.typed = true
		case "Date":
			w.dated = true
		case "Trailer":
			for _, v := range values {
				for _, t := range strings.Split(v, ",") {
					w.announce = append(w.announce, http.CanonicalHeaderKey(strings.TrimSpace(t)))
				}
			}
		case "Content-Length":
			n, err := strconv.ParseUint(values[0], 10, 63)
			if err != nil || len(values) != 1 || bodiless(code) && code != http.StatusNotModified {
				continue
			}
			w.declared, w.sized = int64(n), true
		}
		for _, v := range values {
			w.fields = appendField(w.fields, name, v)
		}
	}
}

// appendField adds a field that may be sent.
func appendField(to []hpack.HeaderField, name, value string) []hpack.HeaderField {
	if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
		return to
	}
	f := hpack.HeaderField{Name: lower(name), Value: value}
	switch name {
	case "Audit-Id", "Content-Length":
		f.Sensitive = true // that is: not kept in the table, where it would only push out what comes again
	}
	return append(to, f)
}

// Write adds to the body.
func (w *response) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if bodiless(w.code) {
		return 0, http.ErrBodyNotAllowed
	}
	if w.written += int64(len(p)); w.declared >= 0 && w.written > w.declared {
		return 0, http.ErrContentLength
	}
	if w.kind == "" && !w.typed && len(p) > 0 {
		w.kind = http.DetectContentType(p)
	}
	if w.st.head {
		return len(p), nil
	}
	if len(p) > holdMost {
		return len(p), w.push(p, false, false)
	}
	if w.held != nil && len(*w.held)+len(p) > holdMost {
		// What is held fills a record; it leaves alone, and its buffer is free while it waits for the network.
		if err := w.push(nil, false, false); err != nil {
			return 0, err
		}
	}
	if w.held == nil {
		w.held = holds.Get().(*[]byte)
	}
	*w.held = append(*w.held, p...)
	return len(p), nil
}

// WriteString is Write.
func (w *response) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// Flush sends what was written so far.
func (w *response) Flush() { _ = w.FlushError() } // a handler that asks in this way does not want to know

// FlushError is Flush for those who want to know.
func (w *response) FlushError() error {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.push(nil, false, true)
}

// SetReadDeadline says until when the body must have come: reading fails from then on. It must be said before somebody waits.
func (w *response) SetReadDeadline(t time.Time) error { return w.st.set(reading, t) }

// SetWriteDeadline says until when the client must have taken the answer: it is reset then, if a Write waits. It must be said
// before somebody waits, and may be put off as often as one likes.
func (w *response) SetWriteDeadline(t time.Time) error { return w.st.set(writing, t) }

func (st *stream) set(of int, t time.Time) error {
	if t.IsZero() {
		st.until[of].Store(0)
	} else {
		st.until[of].Store(t.UnixNano())
	}
	return nil
}

// push sends the head if it was not, what is held, and then p. soon is for a piece of a stream that others may be about to
// get as well.
func (w *response) push(p []byte, end, soon bool) error {
	c := w.st.c
	var held []byte
	if w.held != nil {
		held = *w.held
	}
	if w.sent && !end && len(held) == 0 && len(p) == 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.brokenLocked(w.st)
	}
	var trailers []hpack.HeaderField
	if end {
		trailers = w.trailers()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.brokenLocked(w.st); err != nil {
		return err
	}
	last, first := end && len(trailers) == 0, !w.sent
	if first {
		w.sent, w.st.told = true, true
		w.complete(end)
		bare := last && (w.st.head || len(held) == 0 && len(p) == 0)
		c.headersLocked(w.st, w.fields, bare)
		w.fields = nil
		if bare {
			return c.sentLocked(w.st, true, soon)
		}
	}
	if first && soon && len(held) == 0 {
		// A watch that begins: written from here, the depth of TLS would cost it 8 KB of stack for as long as it waits.
		c.flushElsewhereLocked()
		return nil
	}
	err := c.dataLocked(w.st, held, last && len(p) == 0)
	if err == nil && len(p) > 0 {
		err = c.dataLocked(w.st, p, last)
	}
	if err == nil && len(trailers) > 0 {
		c.headersLocked(w.st, trailers, true)
	}
	if w.held != nil && cap(*w.held) == holdMost {
		*w.held = (*w.held)[:0]
		holds.Put(w.held)
		w.held = nil
	}
	if err != nil {
		return err
	}
	return c.sentLocked(w.st, end, soon)
}

// sentLocked lets what was appended go. A stream whose answer is complete ends here, so that its end and what is left to
// say of it leave together.
func (c *conn) sentLocked(st *stream, end, soon bool) error {
	if end && c.streams[st.id] == st {
		delete(c.streams, st.id)
		if !st.heard {
			c.resetLocked(st.id, http2.ErrCodeNo) // the answer was complete without all of the request
			c.cutLocked(st.id)
		}
		st.gone = true
	}
	if soon {
		c.flushSoonLocked()
	} else {
		c.flushLocked()
	}
	return nil
}

// Append adds a piece to an answer that has begun, whole or not at all, and never waits. full: there is no room before Drain;
// neither: its windows are too small, the piece is more than a connection may hold at a time, or the answer has ended, and Write
// does or tells the rest. Unlike the other methods it may be
// called by another goroutine than the handler's, if the handler sees to it that nothing else is called meanwhile.
func (w *response) Append(p []byte) (done, full bool) {
	c, st := w.st.c, w.st
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int64(len(p))
	switch {
	case c.err != nil, st.gone, !w.sent, w.held != nil, w.declared >= 0, n > outMost, c.window < n, st.window < n:
		return false, false
	case len(c.out) > c.most():
		return false, true
	}
	w.written += n
	c.window -= n
	st.window -= n
	for len(p) > 0 {
		k := min(len(p), c.maxFrame)
		c.startLocked(k, http2.FrameData, 0, st.id)
		c.out = append(c.out, p[:k]...)
		p = p[k:]
	}
	return true, false
}

// Drain sends what was appended to any answer of the connection. If there was no room, there is afterwards, unless the
// connection broke: it waits for the network then, for no window.
func (w *response) Drain() {
	c := w.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushLocked()
	for c.err == nil && len(c.out) > c.most() {
		c.room.Wait()
		c.flushLocked()
	}
}

// Line is the connection, for those who want to know which answers share one.
func (w *response) Line() any { return w.st.c }

// complete adds to the head what the handler left to us.
func (w *response) complete(end bool) {
	if end && !w.sized && !bodiless(w.code) && !(w.st.head && w.written == 0) {
		w.fields = append(w.fields, hpack.HeaderField{Name: "content-length", Value: strconv.FormatInt(w.written, 10), Sensitive: true})
	}
	if w.kind != "" {
		w.fields = append(w.fields, hpack.HeaderField{Name: "content-type", Value: w.kind})
	}
	if !w.dated {
		w.fields = append(w.fields, hpack.HeaderField{Name: "date", Value: date()})
	}
}

// trailers are what the handler says after the body.
func (w *response) trailers() []hpack.HeaderField {
	var out []hpack.HeaderField
	for _, name := range w.announce {
		for _, v := range w.header[name] {
			out = appendField(out, name, v)
		}
	}
	for name, values := range w.header {
		if t, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			for _, v := range values {
				out = appendField(out, t, v)
			}
		}
	}
	return out
}

// finish sends what is left once the handler returned.
func (w *response) finish() {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.declared > w.written && !w.st.head && !bodiless(w.code) {
		w.st.c.reset(w.st.id, http2.ErrCodeInternal) // the client must not take half an answer for a whole one
		return
	}
	_ = w.push(nil, true, false) // a client that went has nothing to be told
}

// free gives the buffer back.
func (w *response) free() {
	if w.held != nil {
		*w.held = (*w.held)[:0]
		holds.Put(w.held)
		w.held = nil
	}
}

// headersLocked appends a HEADERS frame, and CONTINUATION frames if it does not fit.
func (c *conn) headersLocked(st *stream, fields []hpack.HeaderField, end bool) {
	c.encoded.Reset()
	for _, f := range fields {
		_ = c.enc.WriteField(f) // a buffer takes everything
	}
	b := c.encoded.Bytes()
	if c.encoded.Cap() > outKeep {
		c.encoded = bytes.Buffer{} // b stays good
	}
	t, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for {
		n := min(len(b), c.maxFrame)
		if n == len(b) {
			flags |= http2.FlagHeadersEndHeaders
		}
		c.startLocked(n, t, flags, st.id)
		c.out = append(c.out, b[:n]...)
		if b = b[n:]; len(b) == 0 {
			return
		}
		t, flags = http2.FrameContinuation, 0
	}
}

// inform sends a head that another follows.
func (c *conn) inform(st *stream, code int, h http.Header) {
	fields := []hpack.HeaderField{{Name: ":status", Value: status(code)}}
	for name, values := range h {
		if name == "Content-Length" || name == "Transfer-Encoding" || name == "Connection" {
			continue
		}
		for _, v := range values {
			fields = appendField(fields, name, v)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.brokenLocked(st) == nil && !st.told { // what reads the body may not be what answers
		c.headersLocked(st, fields, false)
		c.flushLocked()
	}
}

// goOn tells a client that waits for it to send its body.
func (c *conn) goOn(st *stream) { c.inform(st, http.StatusContinue, nil) }

func status(code int) string {
	if code == http.StatusOK {
		return "200"
	}
	return strconv.Itoa(code)
}

var lowered sync.Map // header names as HTTP/2 writes them, by how net/http does

// lower is a header name as HTTP/2 writes it. Handlers use few names, and none of a client's choosing but those of an
// answer that is passed on.
func lower(name string) string {
	if l, ok := lowered.Load(name); ok {
		return l.(string)
	}
	l := strings.ToLower(name)
	if len(name) <= nameMost && loweredCount.Add(1) < namesMost {
		lowered.Store(name, l)
	}
	return l
}

var loweredCount atomic.Int64

type stamp struct {
	second int64
	text   string
}

var lastStamp atomic.Pointer[stamp]

// date is the time as HTTP tells it.
func date() string {
	now := time.Now()
	if s := lastStamp.Load(); s != nil && s.second == now.Unix() {
		return s.text
	}
	s := &stamp{now.Unix(), now.UTC().Format(http.TimeFormat)}
	lastStamp.Store(s)
	return s.text
}

var (
	_ http.Flusher    = (*response)(nil)
	_ io.StringWriter = (*response)(nil)
)
