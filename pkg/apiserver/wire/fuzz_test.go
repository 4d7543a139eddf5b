package wire

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzFrames: whatever a client sends, the connection ends when the client goes, with all its handlers, and nothing panics
// on the way; what is kept stays within its bounds.
func FuzzFrames(f *testing.F) {
	for _, seed := range conversations() {
		f.Add(seed)
	}
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS() // only for its certificate
	f.Cleanup(certified.Close)
	config := &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"h2"}} //nolint:gosec // a test's
	f.Fuzz(func(t *testing.T, said []byte) {
		s := &Server{MaxStreams: 4, MaxHeaderBytes: 4 << 10}
		hs := &http.Server{ErrorLog: log.New(io.Discard, "", 0)} //nolint:gosec // it does not listen
		s.Attach(hs)
		here, there := net.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c := tls.Server(here, config)
			if c.Handshake() == nil {
				s.serve(hs, c, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					echo(w, r)
					if w.Header().Set("Trailer", "Sum"); r.Method == "GET" {
						<-r.Context().Done()
					}
				}))
			}
		}()
		c := tls.Client(there, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // our own
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))                                        // a pipe has deadlines
		go io.Copy(io.Discard, c)                                                                 //nolint:errcheck // until it ends
		_, _ = io.WriteString(c, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		_, _ = c.Write(said)
		_ = there.Close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the connection does not end")
		}
		s.mu.Lock()
		left := len(s.conns)
		s.mu.Unlock()
		if left != 0 {
			t.Fatalf("%d connections are left", left)
		}
	})
}

// conversations are what clients say.
func conversations() [][]byte {
	var all [][]byte
	say := func(talk func(*http2.Framer, func(...string) []byte)) {
		var out, block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		fr := http2.NewFramer(&out, nil)
		fr.AllowIllegalWrites = true
		talk(fr, func(fields ...string) []byte {
			block.Reset()
			for i := 0; i < len(fields); i += 2 {
				_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a buffer takes everything
			}
			return bytes.Clone(block.Bytes())
		})
		all = append(all, out.Bytes())
	}
	post := []string{":method", "POST", ":scheme", "https", ":authority", "x", ":path", "/a?b=c"}
	get := append([]string{":method", "GET"}, post[2:]...)
	say(func(fr *http2.Framer, head func(...string) []byte) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(post...), EndHeaders: true})
		_ = fr.WriteDataPadded(1, false, []byte("abc"), make([]byte, 3))
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head("sum", "3"), EndHeaders: true, EndStream: true})
	})
	say(func(fr *http2.Framer, head func(...string) []byte) {
		b := head(append(get, "cookie", "a=b", "cookie", "c=d", "expect", "100-continue", "content-length", "3")...)
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:5]})
		_ = fr.WriteContinuation(1, true, b[5:])
		_ = fr.WriteData(1, true, []byte("abc"))
		_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
		_ = fr.WriteWindowUpdate(1, 5)
	})
	say(func(fr *http2.Framer, head func(...string) []byte) {
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
		for id := uint32(1); id < 20; id += 2 {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head(get...), EndHeaders: true, EndStream: id > 9, Priority: http2.PriorityParam{StreamDep: 3, Weight: 9}})
			_ = fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		_ = fr.WriteWindowUpdate(0, 1<<20)
		_ = fr.WritePing(false, [8]byte{1})
		_ = fr.WritePriority(3, http2.PriorityParam{StreamDep: 1})
		_ = fr.WriteGoAway(0, http2.ErrCodeNo, nil)
	})
	say(func(fr *http2.Framer, head func(...string) []byte) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(append(post, "connection", "close", "te", "gzip")...), EndHeaders: true})
		_ = fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: head(get...), EndHeaders: true})
	})
	say(func(fr *http2.Framer, head func(...string) []byte) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":method", "CONNECT", ":authority", "x:1"), EndHeaders: true})
		_ = fr.WriteData(1, false, make([]byte, 100))
	})
	return all
}
