package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestLeaks: when all clients are gone nothing is left of them. It does not run beside others, since it counts goroutines.
func TestLeaks(t *testing.T) {
	_, addr, _ := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			echo(w, r)
		case "/panic":
			panic(http.ErrAbortHandler)
		case "/watch":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/much":
			_, _ = w.Write(make([]byte, 8<<20)) // more than anybody takes
		}
	})
	time.Sleep(100 * time.Millisecond)
	before := runtime.NumGoroutine()
	for range 10 {
		p := dial(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
		for i, path := range []string{"/echo", "/panic", "/watch", "/much", "/", "/watch", "/much"} {
			p.raw(uint32(2*i+1), ":method", "GET", ":scheme", "https", ":authority", "x", ":path", path)
		}
		p.ask(101, false) // a body that never comes
		_ = p.fr.WriteRSTStream(11, http2.ErrCodeCancel)
		_ = p.fr.WriteRSTStream(13, http2.ErrCodeCancel)
		_ = p.fr.WritePing(false, [8]byte{})
		p.wantPong()
		_ = p.c.Close()
	}
	var after int
	for range 100 {
		if after = runtime.NumGoroutine(); after <= before {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	b := make([]byte, 1<<20)
	t.Errorf("%d goroutines before, %d after:\n%s", before, after, b[:runtime.Stack(b, true)])
}

// TestSlowBody: what was read of a body is not kept, however much of it waits all the time.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	const size = 48 << 20
	_, addr, c := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		b, most, n := make([]byte, 16<<10), 0, 0
		in := &r.Body.(reader).st.body
		for {
			got, err := r.Body.Read(b)
			n += got
			in.mu.Lock()
			most = max(most, cap(in.buf))
			in.mu.Unlock()
			if err != nil {
				_, _ = fmt.Fprint(w, n, " ", most <= 4*bodyWindow)
				return
			}
		}
	})
	if _, got := fetch(t, c, "POST", "https://"+addr+"/", bytes.NewReader(make([]byte, size))); got != fmt.Sprint(size, " true") {
		t.Errorf("got %s", got)
	}
}

// TestNames: names that a client makes up are not kept.
func TestNames(t *testing.T) {
	t.Parallel()
	s := &Server{}
	_, addr, c := start(t, s, func(http.ResponseWriter, *http.Request) {})
	for i := range 300 {
		req, err := http.NewRequest("GET", "https://"+addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(fmt.Sprintf("X-%d-%s", i, strings.Repeat("n", i)), "x")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		kept := 0
		for name := range c.names { // nobody writes: no request is under way
			kept += len(name)
		}
		if kept > namesMost*nameMost {
			t.Errorf("%d bytes of names are kept", kept)
		}
	}
}

// TestDeadlines: a client that sends no body, or takes no answer, does not hold a handler beyond its time; who is quick does not
// notice.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	told := make(chan error, 1)
	_, addr, c := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := errors.Join(rc.SetReadDeadline(time.Now().Add(300*time.Millisecond)), rc.SetWriteDeadline(time.Now().Add(300*time.Millisecond))); err != nil {
			t.Error(err)
		}
		var err error
		switch r.URL.Path {
		case "/read":
			_, err = io.ReadAll(r.Body)
		case "/write":
			_, err = w.Write(make([]byte, 100<<10))
		default:
			time.Sleep(600 * time.Millisecond)
			echo(w, r)
			return
		}
		told <- err
	})
	p := dial(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	hear := func() error {
		select {
		case err := <-told:
			return err
		case <-time.After(10 * time.Second):
			t.Fatal("the handler waits for ever")
			return nil
		}
	}
	p.raw(1, ":method", "GET", ":scheme", "https", ":authority", "x", ":path", "/write")
	if err := hear(); !errors.Is(err, errReset) {
		t.Errorf("writing: %v", err)
	}
	p.wantReset(1, http2.ErrCodeInternal)
	body, feed := io.Pipe()
	defer feed.Close()                           //nolint:errcheck // it only ends the request
	go c.Post("https://"+addr+"/read", "", body) //nolint:errcheck,bodyclose // the handler tells
	if err := hear(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading: %v", err)
	}
	if _, got := fetch(t, c, "POST", "https://"+addr+"/", strings.NewReader("all")); got != "all" {
		t.Errorf("one who was quick got %q", got)
	}
}

// TestQueuedBodies: bodies of streams that are given up before their handlers began leave the connection its window.
func TestQueuedBodies(t *testing.T) {
	t.Parallel()
	let := make(chan struct{})
	_, addr, _ := start(t, &Server{MaxStreams: 2}, func(w http.ResponseWriter, r *http.Request) {
		<-let
		echo(w, r)
	})
	p := dial(t, addr)
	for id := uint32(1); id <= 9; id += 2 {
		p.ask(id, false)
		for range 4 {
			_ = p.fr.WriteData(id, false, make([]byte, 50<<10))
		}
		_ = p.fr.WriteRSTStream(id, http2.ErrCodeCancel)
	}
	_ = p.fr.WritePing(false, [8]byte{})
	back := int64(startWindow - connWindow) // the first update is no giving back
	count := func(f http2.Frame) {
		if u, ok := f.(*http2.WindowUpdateFrame); ok && u.StreamID == 0 {
			back += int64(u.Increment)
		}
	}
	err := p.until(func(f http2.Frame) bool {
		count(f)
		_, pong := f.(*http2.PingFrame)
		return pong
	})
	close(let)
	for err == nil && back < 5*4*50<<10-giveFrom {
		err = p.until(func(f http2.Frame) bool { count(f); return true })
	}
	if err != nil {
		t.Errorf("only %d bytes came back: %v", back, err)
	}
}

// TestLateContinue: who answers before the body is read has said so; 100 does not follow.
func TestLateContinue(t *testing.T) {
	t.Parallel()
	_, addr, _ := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "early")
		w.(http.Flusher).Flush()
		echo(w, r)
	})
	p := dial(t, addr)
	p.ask(1, false, "expect", "100-continue", "content-length", "2")
	p.wantStatus(1, "200")
	_ = p.fr.WriteData(1, true, []byte("ab"))
	err := p.until(func(f http2.Frame) bool {
		if h, ok := f.(*http2.MetaHeadersFrame); ok {
			t.Errorf("%v followed the answer", h)
		}
		d, ok := f.(*http2.DataFrame)
		return ok && d.StreamEnded()
	})
	if err != nil {
		t.Error(err)
	}
}

// TestManyStreams opens 2,000 streams that stay, on 20 connections, and gives them up: every handler is told.
func TestManyStreams(t *testing.T) {
	t.Parallel()
	var open sync.WaitGroup
	_, addr, _ := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		defer open.Done()
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	const conns, each = 20, 100
	open.Add(conns * each)
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			p := dial(t, addr)
			for id := uint32(1); id < 2*each; id += 2 {
				p.ask(id, true)
			}
			n := 0
			if err := p.until(func(f http2.Frame) bool {
				if _, ok := f.(*http2.MetaHeadersFrame); ok {
					n++
				}
				return n == each
			}); err != nil {
				t.Errorf("%d of %d answers: %v", n, each, err)
			}
			_ = p.c.Close()
		})
	}
	wg.Wait()
	done := make(chan struct{})
	go func() { open.Wait(); close(done) }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
		t.Error("handlers go on whose clients are gone")
	}
}

// TestPatience: a watcher that takes nothing for as long as is said loses its watch, and nothing else; one that takes what comes
// goes on, however long.
func TestPatience(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	_, addr, c := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		rc := http.NewResponseController(w)
		for range 100 {
			if err := rc.SetWriteDeadline(time.Now().Add(400 * time.Millisecond)); err != nil {
				t.Error(err)
			}
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				ended <- err
				return
			}
			if err := rc.Flush(); err != nil {
				ended <- err
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond) // nothing to tell: that is not the watcher's fault
		_, err := w.Write(make([]byte, 1<<10))
		ended <- err
	})
	p := dial(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
	p.raw(1, ":method", "GET", ":scheme", "https", ":authority", "x", ":path", "/watch")
	p.wantReset(1, http2.ErrCodeInternal)
	if err := <-ended; !errors.Is(err, errReset) {
		t.Errorf("one that takes nothing is told %v", err)
	}
	p.raw(3, ":method", "GET", ":scheme", "https", ":authority", "x", ":path", "/")
	p.wantStatus(3, "204")
	if _, got := fetch(t, c, "GET", "https://"+addr+"/watch", nil); len(got) != 101<<10 {
		t.Errorf("one that takes all got %d bytes", len(got))
	}
	if err := <-ended; err != nil {
		t.Errorf("one that takes all is told %v", err)
	}
}

// TestUnreadBody: a body that its handler does not read leaves the other streams of the connection their windows.
func TestUnreadBody(t *testing.T) {
	t.Parallel()
	let := make(chan struct{})
	defer close(let)
	_, addr, c := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stuck" {
			<-let
		}
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n)
	})
	for range unreadMost/bodyWindow - 1 {
		go c.Post("https://"+addr+"/stuck", "", bytes.NewReader(make([]byte, 8<<20))) //nolint:errcheck,bodyclose // nobody answers
	}
	time.Sleep(200 * time.Millisecond)
	const size = 5 << 20
	for range 3 {
		if _, got := fetch(t, c, "POST", "https://"+addr+"/", bytes.NewReader(make([]byte, size))); got != fmt.Sprint(size) {
			t.Fatalf("%s of %d bytes came", got, size)
		}
	}
}

// TestAppendOfMuch adds to an answer what is more than a connection may hold at a time: its handler has to do it, in pieces.
func TestAppendOfMuch(t *testing.T) {
	t.Parallel()
	said := make(chan [2]bool, 2)
	_, addr, c := start(t, &Server{}, func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		pen := w.(*response)
		for _, n := range []int{outMost + 1, outMost} {
			done, full := pen.Append(make([]byte, n))
			said <- [2]bool{done, full}
		}
		pen.Drain()
	})
	_, body := fetch(t, c, "GET", "https://"+addr+"/", nil)
	if much, little := <-said, <-said; much != [2]bool{false, false} || little != [2]bool{true, false} || len(body) != outMost {
		t.Errorf("appending said %v and %v, and %d bytes came", much, little, len(body))
	}
}
