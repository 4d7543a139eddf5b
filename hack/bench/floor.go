package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"syscall"
	"time"
)

// bare measures net/http with TLS and HTTP/2 serving the same bytes in this process; the client's share is measured by
// itself and taken off by halves, as both ends do the same work on such a small answer.
func bare(body []byte, n int) (string, error) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	c := &cluster{url: s.URL, client: newClient()}
	if _, err := c.do(context.Background(), "GET", "/", "", nil); err != nil {
		return "", err
	}
	before, begun := own(), time.Now()
	for range n {
		if _, err := c.do(context.Background(), "GET", "/", "", nil); err != nil {
			return "", err
		}
	}
	used, took := (own()-before)/2, time.Since(begun)
	return fmt.Sprintf("%s cpu, %s", us(used, n), us(took, n)), nil
}

// own is the CPU time this process has used.
func own() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
