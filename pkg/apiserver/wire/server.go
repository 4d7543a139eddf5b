package wire

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Server makes an http.Server speak HTTP/2 this way.
type Server struct {
	// MaxStreams is how many requests a client may have open on one connection.
	MaxStreams int
	// IdleTimeout is how long a connection without requests is kept; 0 = for ever.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds a request's header list, as HTTP/2 counts it.
	MaxHeaderBytes uint32

	mu      sync.Mutex
	conns   map[*conn]struct{}
	leaving bool
	crew    crew
	sending atomic.Int32 // connections that are written to right now
}

// Attach hands h's HTTP/2 connections to s, before h serves. h's Shutdown and Close work as ever.
func (s *Server) Attach(h *http.Server) {
	s.conns = map[*conn]struct{}{}
	h.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){http2.NextProtoTLS: s.serve}
	h.RegisterOnShutdown(s.leave)
}

// serve serves one connection to its end.
func (s *Server) serve(hs *http.Server, t *tls.Conn, h http.Handler) {
	ctx := context.Background()
	if b, ok := h.(interface{ BaseContext() context.Context }); ok {
		ctx = b.BaseContext()
	}
	ctx = context.WithValue(ctx, http.ServerContextKey, hs)
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, t.LocalAddr())
	c := newConn(ctx, s, t, h)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	leaving := s.leaving
	s.mu.Unlock()
	if leaving {
		c.leave()
	}
	s.crew.come()
	defer s.crew.leave()
	c.serve()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// leave asks every client to go elsewhere once its requests are done.
func (s *Server) leave() {
	s.mu.Lock()
	s.leaving = true
	var all []*conn
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.leave()
	}
}
