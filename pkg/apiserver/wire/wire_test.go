package wire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// start serves h and answers the server's address and a client that speaks HTTP/2 on one connection.
func start(t *testing.T, s *Server, h http.HandlerFunc) (*http.Server, string, *http.Client) {
	t.Helper()
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS() // only for its certificate
	t.Cleanup(certified.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if s.MaxStreams == 0 {
		s.MaxStreams = 100
	}
	if s.MaxHeaderBytes == 0 {
		s.MaxHeaderBytes = 64 << 10
	}
	hs := &http.Server{Handler: h, TLSConfig: &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"h2"}}, ErrorLog: log.New(io.Discard, "", 0)} //nolint:gosec // a test's
	s.Attach(hs)
	go hs.ServeTLS(Listener{l}, "", "") //nolint:errcheck // it ends with the test
	t.Cleanup(func() { _ = hs.Close() })
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true} //nolint:gosec // our own
	t.Cleanup(tr.CloseIdleConnections)
	return hs, l.Addr().String(), &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func fetch(t *testing.T, c *http.Client, method, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, string(b)
}

// TestEcho sends bodies of all sizes both ways, on many streams of one connection at once, in pieces and flushes of all
// sizes; every byte comes back.
func TestEcho(t *testing.T) {
	t.Parallel()
	_, addr, c := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("the client speaks %s", r.Proto)
		}
		rnd := rand.New(rand.NewPCG(uint64(max(r.ContentLength, 0)), 1))
		b := make([]byte, 1<<rnd.IntN(17))
		for {
			n, err := r.Body.Read(b)
			if _, werr := w.Write(b[:n]); werr != nil {
				return
			}
			if rnd.IntN(4) == 0 {
				w.(http.Flusher).Flush()
			}
			if err != nil {
				if err != io.EOF { //nolint:errorlint // it is that very value
					t.Errorf("reading: %v", err)
				}
				return
			}
		}
	})
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 2))
			b := make([]byte, rnd.IntN(1<<rnd.IntN(23)+1))
			for n := range b {
				b[n] = byte(rnd.Uint32())
			}
			var body io.Reader = bytes.NewReader(b)
			if i%3 == 0 {
				body = io.MultiReader(body) // of a length that is not announced
			}
			_, got := fetch(t, c, "POST", "https://"+addr+"/", body)
			if sha256.Sum256([]byte(got)) != sha256.Sum256(b) {
				t.Errorf("of %d bytes came back %d, or others", len(b), len(got))
			}
		})
	}
	wg.Wait()
}

// TestAnswers holds heads of answers to what net/http's own HTTP/2 says to the same handler.
func TestAnswers(t *testing.T) {
	t.Parallel()
	handler := func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch r.URL.Path {
		case "/nothing":
		case "/plain":
			_, _ = io.WriteString(w, "text")
		case "/typed":
			h.Set("Content-Type", "application/json")
			h.Set("X-Many", "a")
			h.Add("X-Many", "b")
			h.Set("X-Bad", "a\x00b")
			w.WriteHeader(http.StatusCreated)
			h.Set("X-Late", "no")
			_, _ = io.WriteString(w, "{}")
		case "/nocontent":
			w.WriteHeader(http.StatusNoContent)
			if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
				_, _ = fmt.Fprint(w, err)
			}
		case "/notmodified":
			h.Set("Etag", `"x"`)
			w.WriteHeader(http.StatusNotModified)
		case "/long":
			_, _ = w.Write(bytes.Repeat([]byte("long "), 10000))
		case "/flushed":
			_, _ = io.WriteString(w, "one")
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "two")
		case "/trailers":
			h.Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "body")
			h.Set("X-Sum", "4")
			h.Set(http.TrailerPrefix+"X-More", "5")
		case "/early":
			h.Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "late")
		case "/much":
			h.Set("X-Much", strings.Repeat("much ", 8000)) // more than a frame
		case "/request":
			_, _ = fmt.Fprint(w, r.Method, r.Host, r.RequestURI, r.URL, r.Header.Get("Cookie"), r.Header["X-Two"], r.ContentLength, r.TLS != nil, r.Header.Get("Te"))
		case "/toomuch":
			h.Set("Content-Length", "2")
			if _, err := io.WriteString(w, "abc"); !errors.Is(err, http.ErrContentLength) {
				panic("it was let through")
			}
			_, _ = io.WriteString(w, "")
		}
	}
	_, ours, c := start(t, &Server{}, handler)
	theirs := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	theirs.EnableHTTP2 = true
	theirs.StartTLS()
	defer theirs.Close()
	for _, method := range []string{"GET", "HEAD", "POST"} {
		for _, path := range []string{"/nothing", "/plain", "/typed", "/nocontent", "/notmodified", "/long", "/flushed", "/trailers", "/early", "/much", "/request?a=b%20c"} {
			if method == "HEAD" && path == "/long" {
				continue // they do not say how long it is
			}
			say := func(base string) string {
				req, err := http.NewRequest(method, base+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = "example.org"
				req.Header = http.Header{"Cookie": {"a=b; c=d"}, "X-Two": {"1", "2"}, "Te": {"trailers"}}
				resp, err := c.Do(req)
				if err != nil {
					return "failed: " + strings.ReplaceAll(err.Error(), base, "")
				}
				defer resp.Body.Close() //nolint:errcheck // only read
				b, err := io.ReadAll(resp.Body)
				if resp.Header.Get("Date") == "" {
					t.Errorf("%s%s has no date", base, path)
				}
				resp.Header.Del("Date")
				return fmt.Sprint(resp.StatusCode, resp.Header, resp.ContentLength, resp.Trailer, len(b), string(b[:min(len(b), 300)]), err)
			}
			if got, want := say("https://"+ours), say(theirs.URL); got != want {
				t.Errorf("%s %s:\n got %s\nwant %s", method, path, got, want)
			}
		}
	}
	// Less than was announced is no answer.
	if resp, err := c.Get("https://" + ours + "/toomuch"); err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil {
			t.Error("an answer shorter than it says came through")
		}
	}
}

// TestPanic ends the stream and nothing else.
func TestPanic(t *testing.T) {
	t.Parallel()
	_, addr, c := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panic" {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, r.RemoteAddr)
	})
	_, before := fetch(t, c, "GET", "https://"+addr+"/", nil)
	if resp, err := c.Get("https://" + addr + "/panic"); err == nil {
		_ = resp.Body.Close()
		t.Error("an aborted answer came through")
	}
	if _, after := fetch(t, c, "GET", "https://"+addr+"/", nil); after != before {
		t.Errorf("the connection is another: %s, %s", before, after)
	}
}

// TestShutdown lets requests in flight finish, and sends the client elsewhere.
func TestShutdown(t *testing.T) {
	t.Parallel()
	in, let := make(chan struct{}), make(chan struct{})
	hs, addr, c := start(t, &Server{}, func(w http.ResponseWriter, _ *http.Request) {
		close(in)
		<-let
		_, _ = io.WriteString(w, "done")
	})
	got := make(chan string, 1)
	go func() {
		_, body := fetch(t, c, "GET", "https://"+addr+"/", nil)
		got <- body
	}()
	<-in
	ended := make(chan error, 1)
	go func() { ended <- hs.Shutdown(context.Background()) }()
	select {
	case err := <-ended:
		t.Fatalf("it ended with a request in flight: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(let)
	if body := <-got; body != "done" {
		t.Errorf("the request got %q", body)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it does not end")
	}
}

// TestClose: "Connection: close" sends the client to a new connection; what is being served goes on.
func TestClose(t *testing.T) {
	t.Parallel()
	_, addr, c := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/last" {
			w.Header().Set("Connection", "close")
		}
		_, _ = io.WriteString(w, r.RemoteAddr)
	})
	_, a := fetch(t, c, "GET", "https://"+addr+"/last", nil)
	time.Sleep(50 * time.Millisecond)
	if _, b := fetch(t, c, "GET", "https://"+addr+"/", nil); a == b {
		t.Error("the client stayed")
	}
}

// TestGone: a handler's context ends when its client gives up, and a body that it reads fails.
func TestGone(t *testing.T) {
	t.Parallel()
	in, told := make(chan struct{}), make(chan error, 2)
	_, addr, c := start(t, &Server{}, func(_ http.ResponseWriter, r *http.Request) {
		in <- struct{}{}
		if r.URL.Path == "/read" {
			_, err := io.ReadAll(r.Body)
			told <- err
			return
		}
		<-r.Context().Done()
		told <- r.Context().Err()
	})
	for _, path := range []string{"/", "/read"} {
		ctx, cancel := context.WithCancel(context.Background())
		body, feed := io.Pipe()
		go feed.Write([]byte("a beginning")) //nolint:errcheck // nobody may read it
		req, err := http.NewRequestWithContext(ctx, "POST", "https://"+addr+path, body)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			<-in
			cancel()
		}()
		if resp, err := c.Do(req); err == nil {
			_ = resp.Body.Close()
			t.Error("an answer came")
		}
		select {
		case err := <-told:
			if err == nil {
				t.Errorf("%s was not told", path)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s goes on", path)
		}
		_ = feed.Close()
	}
}

// TestUnread: an answer that does not wait for its request's body ends the request, and the connection has its window back.
func TestUnread(t *testing.T) {
	t.Parallel()
	_, addr, c := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sum" {
			h := sha256.New()
			_, _ = io.Copy(h, r.Body)
			_, _ = io.WriteString(w, hex.EncodeToString(h.Sum(nil)))
			return
		}
		w.WriteHeader(http.StatusTeapot)
	})
	big := bytes.Repeat([]byte("x"), 3<<20)
	for range 10 {
		req, _ := http.NewRequest("POST", "https://"+addr+"/", bytes.NewReader(big))
		if resp, err := c.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusTeapot {
				t.Errorf("got %d", resp.StatusCode)
			}
		}
	}
	want := sha256.Sum256(big)
	if _, got := fetch(t, c, "POST", "https://"+addr+"/sum", bytes.NewReader(big)); got != hex.EncodeToString(want[:]) {
		t.Errorf("got %s", got)
	}
}

// TestFanOut writes events to many streams of a few connections at once; each gets all of them in order.
func TestFanOut(t *testing.T) {
	t.Parallel()
	const streams, events = 80, 50
	var mu sync.Mutex
	wake := make(chan struct{})
	var told atomic.Int64
	_, addr, c := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		for n := int64(0); n < events; {
			mu.Lock()
			next, upTo := wake, told.Load()
			mu.Unlock()
			for ; n < upTo; n++ {
				_, _ = fmt.Fprintf(w, "%d\n", n)
			}
			w.(http.Flusher).Flush()
			if n == events {
				return
			}
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	var want strings.Builder
	for n := range events {
		fmt.Fprintf(&want, "%d\n", n)
	}
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() {
			if _, got := fetch(t, c, "GET", "https://"+addr+"/", nil); got != want.String() {
				t.Errorf("got %q", got)
			}
		})
	}
	for range events {
		time.Sleep(2 * time.Millisecond)
		mu.Lock()
		told.Add(1)
		close(wake)
		wake = make(chan struct{})
		mu.Unlock()
	}
	wg.Wait()
}

// TestIdle closes a connection on which nothing is asked, and keeps one on which something is served.
func TestIdle(t *testing.T) {
	t.Parallel()
	_, addr, c := start(t, &Server{IdleTimeout: time.Second}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			time.Sleep(1500 * time.Millisecond)
		}
		_, _ = io.WriteString(w, r.RemoteAddr)
	})
	_, a := fetch(t, c, "GET", "https://"+addr+"/long", nil)
	if _, b := fetch(t, c, "GET", "https://"+addr+"/", nil); a != b {
		t.Error("a connection ended while something was served")
	}
	time.Sleep(3 * time.Second)
	if _, b := fetch(t, c, "GET", "https://"+addr+"/", nil); a == b {
		t.Error("an idle connection stays")
	}
}
