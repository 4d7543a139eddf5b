package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a client that may break every rule.
type peer struct {
	t    *testing.T
	c    *tls.Conn
	fr   *http2.Framer
	enc  *hpack.Encoder
	text bytes.Buffer
}

func dial(t *testing.T, addr string, settings ...http2.Setting) *peer {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // our own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(15 * time.Second)) // a connection has deadlines
	p := &peer{t: t, c: c, fr: http2.NewFramer(c, c)}
	p.enc = hpack.NewEncoder(&p.text)
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.fr.AllowIllegalWrites = true
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := p.fr.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return p
}

// ask opens a stream.
func (p *peer) ask(id uint32, end bool, fields ...string) {
	p.text.Reset()
	all := append([]string{":method", "POST", ":scheme", "https", ":authority", "x", ":path", "/"}, fields...)
	for i := 0; i < len(all); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}) // a buffer takes everything
	}
	_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.text.Bytes(), EndHeaders: true, EndStream: end}) // seen by what is read
}

// until reads frames until one is what is looked for, or the connection ends.
func (p *peer) until(found func(http2.Frame) bool) error {
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			return err
		}
		if found(f) {
			return nil
		}
	}
}

func (p *peer) wantReset(id uint32, code http2.ErrCode) {
	p.t.Helper()
	err := p.until(func(f http2.Frame) bool {
		r, ok := f.(*http2.RSTStreamFrame)
		if ok && r.StreamID == id && r.ErrCode != code {
			p.t.Errorf("stream %d was reset with %v, want %v", id, r.ErrCode, code)
		}
		return ok && r.StreamID == id
	})
	if err != nil {
		p.t.Errorf("no reset came: %v", err)
	}
}

func (p *peer) wantGoAway(code http2.ErrCode) {
	p.t.Helper()
	err := p.until(func(f http2.Frame) bool {
		g, ok := f.(*http2.GoAwayFrame)
		return ok && g.ErrCode == code
	})
	if err != nil {
		p.t.Errorf("no GOAWAY of %v came: %v", code, err)
		return
	}
	for err == nil {
		_, err = p.fr.ReadFrame()
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		p.t.Error("the connection stays open")
	}
}

func (p *peer) wantStatus(id uint32, code string) {
	p.t.Helper()
	err := p.until(func(f http2.Frame) bool {
		h, ok := f.(*http2.MetaHeadersFrame)
		if ok && h.StreamID == id && h.PseudoValue("status") != code {
			p.t.Errorf("stream %d: %s, want %s", id, h.PseudoValue("status"), code)
		}
		return ok && h.StreamID == id
	})
	if err != nil {
		p.t.Errorf("no answer came: %v", err)
	}
}

func echo(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }

// TestRules: who breaks a rule of HTTP/2 loses the stream or the connection, with the code that says why.
func TestRules(t *testing.T) {
	t.Parallel()
	_, addr, _ := start(t, &Server{MaxStreams: 5, MaxHeaderBytes: 8 << 10}, echo)
	goAway := func(code http2.ErrCode) func(*peer) { return func(p *peer) { p.wantGoAway(code) } }
	reset := func(id uint32, code http2.ErrCode) func(*peer) { return func(p *peer) { p.wantReset(id, code) } }
	status := func(code string) func(*peer) { return func(p *peer) { p.wantStatus(1, code) } }
	for name, x := range map[string]struct {
		do   func(*peer)
		want func(*peer)
	}{
		"a stream of the server's":    {func(p *peer) { p.ask(2, true) }, goAway(http2.ErrCodeProtocol)},
		"data for no stream":          {func(p *peer) { _ = p.fr.WriteData(7, false, []byte("x")) }, goAway(http2.ErrCodeProtocol)},
		"reset of no stream":          {func(p *peer) { _ = p.fr.WriteRSTStream(7, 0) }, goAway(http2.ErrCodeProtocol)},
		"window of no stream":         {func(p *peer) { _ = p.fr.WriteWindowUpdate(7, 1) }, goAway(http2.ErrCodeProtocol)},
		"a push":                      {func(p *peer) { _ = p.fr.WriteRawFrame(http2.FramePushPromise, 4, 1, []byte{0, 0, 0, 2}) }, goAway(http2.ErrCodeProtocol)},
		"a window too large":          {func(p *peer) { _ = p.fr.WriteWindowUpdate(0, 1<<31-1) }, goAway(http2.ErrCodeFlowControl)},
		"a stream's window too large": {func(p *peer) { p.ask(1, false); _ = p.fr.WriteWindowUpdate(1, 1<<31-1) }, reset(1, http2.ErrCodeFlowControl)},
		"a frame too large":           {func(p *peer) { p.ask(1, false); _ = p.fr.WriteData(1, false, make([]byte, readFrame+1)) }, goAway(http2.ErrCodeFrameSize)},
		"headers that cannot be read": {func(p *peer) {
			_ = p.fr.WriteRawFrame(http2.FrameHeaders, 5, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		}, goAway(http2.ErrCodeCompression)},
		"a frame between headers": {func(p *peer) {
			_ = p.fr.WriteRawFrame(http2.FrameHeaders, 0, 1, nil)
			_ = p.fr.WritePing(false, [8]byte{})
		}, goAway(http2.ErrCodeProtocol)},
		"a setting out of range": {func(p *peer) { _ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) }, goAway(http2.ErrCodeProtocol)},
		"a window setting too large": {func(p *peer) {
			p.ask(1, false)
			_ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		}, goAway(http2.ErrCodeFlowControl)},
		"data after the end":      {func(p *peer) { p.ask(1, false); _ = p.fr.WriteData(1, true, nil); p.ask(1, true) }, func(*peer) {}},
		"no path":                 {func(p *peer) { p.ask(1, true, ":path", "") }, reset(1, http2.ErrCodeProtocol)},
		"a path that is none":     {func(p *peer) { p.raw(1, ":method", "GET", ":scheme", "https", ":authority", "x", ":path", "x y") }, reset(1, http2.ErrCodeProtocol)},
		"no method":               {func(p *peer) { p.raw(1, ":scheme", "https", ":authority", "x", ":path", "/") }, reset(1, http2.ErrCodeProtocol)},
		"upper case":              {func(p *peer) { p.ask(1, true, "Upper", "x") }, reset(1, http2.ErrCodeProtocol)},
		"a pseudo field late":     {func(p *peer) { p.ask(1, true, "a", "b", ":path", "/") }, reset(1, http2.ErrCodeProtocol)},
		"a line break in a field": {func(p *peer) { p.ask(1, true, "a", "b\r\nc: d") }, reset(1, http2.ErrCodeProtocol)},
		"two lengths":             {func(p *peer) { p.ask(1, false, "content-length", "1", "content-length", "2") }, reset(1, http2.ErrCodeProtocol)},
		"more than was announced": {func(p *peer) { p.ask(1, false, "content-length", "1"); _ = p.fr.WriteData(1, true, []byte("ab")) }, reset(1, http2.ErrCodeProtocol)},
		"less than was announced": {func(p *peer) { p.ask(1, false, "content-length", "3"); _ = p.fr.WriteData(1, true, []byte("ab")) }, reset(1, http2.ErrCodeProtocol)},
		"a user in the authority": {func(p *peer) { p.raw(1, ":method", "GET", ":scheme", "https", ":authority", "u@x", ":path", "/") }, reset(1, http2.ErrCodeProtocol)},
		"two hosts":               {func(p *peer) { p.ask(1, true, "host", "y") }, reset(1, http2.ErrCodeProtocol)},
		"a whole URL for a path": {func(p *peer) {
			p.raw(1, ":method", "GET", ":scheme", "https", ":authority", "x", ":path", "https://x/")
		}, reset(1, http2.ErrCodeProtocol)},
		"a path without a slash": {func(p *peer) { p.raw(1, ":method", "GET", ":scheme", "https", ":authority", "x", ":path", "api") }, reset(1, http2.ErrCodeProtocol)},
		"a star":                 {func(p *peer) { p.raw(1, ":method", "OPTIONS", ":scheme", "https", ":authority", "x", ":path", "*") }, status("200")},
		"an extended CONNECT": {func(p *peer) {
			p.raw(1, ":method", "CONNECT", ":scheme", "https", ":authority", "x", ":path", "/", ":protocol", "websocket")
		}, reset(1, http2.ErrCodeProtocol)},
		"headers too large a frame": {func(p *peer) { _ = p.fr.WriteRawFrame(http2.FrameHeaders, 5, 1, make([]byte, readFrame+1)) }, goAway(http2.ErrCodeFrameSize)},
		"data for a stream of the server's": {func(p *peer) {
			p.ask(3, false)
			_ = p.fr.WriteData(2, false, []byte("x"))
		}, goAway(http2.ErrCodeProtocol)},
		"headers of a stream before": {func(p *peer) { p.ask(5, false); p.ask(3, true) }, goAway(http2.ErrCodeStreamClosed)},
		"data after a reset": {func(p *peer) {
			p.ask(1, false)
			_ = p.fr.WriteRSTStream(1, http2.ErrCodeCancel)
			_ = p.fr.WriteData(1, false, []byte("x"))
		}, reset(1, http2.ErrCodeStreamClosed)},
		"a te of another kind": {func(p *peer) { p.ask(1, true, "te", "gzip") }, status("400")},
		"many settings":        {func(p *peer) { _ = p.fr.WriteSettings(make([]http2.Setting, 101)...) }, goAway(http2.ErrCodeProtocol)},
		"settings twice": {func(p *peer) {
			_ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 1 << 30})
			p.ask(1, true)
		}, status("200")},
		"padding": {func(p *peer) {
			p.ask(1, false, "content-length", "2")
			_ = p.fr.WriteDataPadded(1, true, []byte("ab"), make([]byte, 255))
		}, status("200")},
		"a token of 7 KB": {func(p *peer) { p.ask(1, true, "authorization", "Bearer "+strings.Repeat("t", 7<<10)) }, status("200")},
		"trailers": {func(p *peer) {
			p.ask(1, false)
			_ = p.fr.WriteData(1, false, []byte("ab"))
			p.text.Reset()
			_ = p.enc.WriteField(hpack.HeaderField{Name: "sum", Value: "1"})
			_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.text.Bytes(), EndHeaders: true, EndStream: true})
		}, status("200")},
		"a field of HTTP/1":         {func(p *peer) { p.ask(1, true, "connection", "close") }, status("400")},
		"a transfer encoding":       {func(p *peer) { p.ask(1, true, "transfer-encoding", "chunked") }, status("400")},
		"too many fields":           {func(p *peer) { p.ask(1, true, slices.Repeat([]string{"a", strings.Repeat("b", 1<<10)}, 9)...) }, status("431")},
		"continuations without end": {(*peer).flood, goAway(http2.ErrCodeProtocol)},
		"more streams than agreed": {func(p *peer) {
			for id := uint32(1); id <= 11; id += 2 {
				p.ask(id, false)
			}
		}, reset(11, http2.ErrCodeRefusedStream)},
		"no settings":                  {func(p *peer) { _ = p.fr.WritePing(false, [8]byte{}) }, func(p *peer) { p.wantPong() }},
		"waits to be told to continue": {func(p *peer) { p.ask(1, false, "expect", "100-continue", "content-length", "2") }, status("100")},
		"priority of itself":           {func(p *peer) { _ = p.fr.WritePriority(1, http2.PriorityParam{StreamDep: 1}) }, func(p *peer) { _ = p.fr.WritePing(false, [8]byte{}); p.wantPong() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := dial(t, addr)
			p.t = t
			x.do(p)
			x.want(p)
		})
	}
}

// raw opens a stream with just these fields.
func (p *peer) raw(id uint32, fields ...string) {
	p.text.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a buffer takes everything
	}
	_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.text.Bytes(), EndHeaders: true, EndStream: true})
}

// flood sends header fragments until it cannot.
func (p *peer) flood() {
	p.text.Reset()
	_ = p.enc.WriteField(hpack.HeaderField{Name: "a", Value: strings.Repeat("b", 4<<10)})
	_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.text.Bytes()})
	for range 50 {
		if p.fr.WriteContinuation(1, false, p.text.Bytes()) != nil {
			return
		}
	}
}

func (p *peer) wantPong() {
	p.t.Helper()
	if err := p.until(func(f http2.Frame) bool { g, ok := f.(*http2.PingFrame); return ok && g.IsAck() }); err != nil {
		p.t.Errorf("no answer to a ping: %v", err)
	}
}

// TestPreface: who does not speak HTTP/2 is not listened to.
func TestPreface(t *testing.T) {
	t.Parallel()
	_, addr, _ := start(t, &Server{}, echo)
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // our own
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // only read
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = c.SetDeadline(time.Now().Add(5 * time.Second)) // a connection has deadlines
	if _, err := io.ReadAll(c); errors.Is(err, net.ErrClosed) || isTimeout(err) {
		t.Errorf("it goes on: %v", err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// TestRapidReset: streams that are reset at once keep their places until their handlers return, and who goes on so loses
// the connection.
func TestRapidReset(t *testing.T) {
	t.Parallel()
	let := make(chan struct{})
	var running, most atomic.Int64
	_, addr, _ := start(t, &Server{MaxStreams: 10}, func(http.ResponseWriter, *http.Request) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-let
		running.Add(-1)
	})
	p := dial(t, addr)
	go func() {
		for id := uint32(1); id < 2000; id += 2 {
			p.ask(id, true)
			_ = p.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}
	}()
	p.wantGoAway(http2.ErrCodeEnhanceYourCalm)
	if n := most.Load(); n > 10 {
		t.Errorf("%d handlers ran", n)
	}
	close(let)
}

// TestDeaf: a client that asks and does not listen is cut off before what waits for it grows without bounds.
func TestDeaf(t *testing.T) {
	t.Parallel()
	_, addr, _ := start(t, &Server{}, echo)
	p := dial(t, addr)
	frame := bytes.Repeat([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, 4096)
	for sent := 0; ; sent += len(frame) {
		if sent > 256<<20 {
			t.Fatal("256 MB of pings were taken from a client that reads nothing")
		}
		if _, err := p.c.Write(frame); err != nil {
			if isTimeout(err) {
				t.Fatal("the server neither reads nor closes")
			}
			return
		}
	}
}

// TestWindows: an answer comes as fast as the client lets it, and others do not wait for it.
func TestWindows(t *testing.T) {
	t.Parallel()
	const size = 300 << 10
	_, addr, _ := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			_, _ = w.Write(make([]byte, size))
		}
	})
	p := dial(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
	p.ask(1, true)
	got := 0
	count := func(f http2.Frame) {
		if d, ok := f.(*http2.DataFrame); ok && d.StreamID == 1 {
			got += len(d.Data())
		}
	}
	p.raw(3, ":method", "GET", ":scheme", "https", ":authority", "x", ":path", "/other")
	err := p.until(func(f http2.Frame) bool {
		count(f)
		h, ok := f.(*http2.MetaHeadersFrame)
		return ok && h.StreamID == 3
	})
	if err != nil || got > 1000 {
		t.Fatalf("beside a stream that waits: %d bytes, %v", got, err)
	}
	// A setting changes the windows of open streams too; the connection's own stays.
	_ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 500})
	_ = p.fr.WriteWindowUpdate(1, size)
	_ = p.fr.WriteWindowUpdate(0, size)
	_ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
	err = p.until(func(f http2.Frame) bool {
		count(f)
		d, ok := f.(*http2.DataFrame)
		return ok && d.StreamID == 1 && d.StreamEnded()
	})
	if err != nil || got != size {
		t.Errorf("%d bytes of %d came: %v", got, size, err)
	}
}
