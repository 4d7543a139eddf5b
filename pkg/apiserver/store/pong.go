package store

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// etcd measures the path to a client by a ping after each question that comes in alone. The answer would be a write of its own,
// as dear as the question; it loses nothing by going along with the next question, if there is one soon.

// pongLate is how long an answer to a ping waits for company.
const pongLate = 5 * time.Millisecond

// pongsMost is how many bytes of answers wait.
const pongsMost = 1 << 10

// pongHead begins the frame of an answer: 8 bytes of a ping, acknowledged, of no stream (RFC 9113, 6.7).
var pongHead = []byte{0, 0, 8, 6, 1, 0, 0, 0, 0}

// pongs is a connection of one writer whose answers to pings wait.
type pongs struct {
	net.Conn
	mu    sync.Mutex // guards what follows, and the order of writes
	held  []byte
	timer bool // runs
}

// Write sends b, or keeps it for a moment if it looks like an answer to a ping. Nothing overtakes what is kept.
func (p *pongs) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(b) == len(pongHead)+8 && bytes.HasPrefix(b, pongHead) && len(p.held) < pongsMost {
		p.held = append(p.held, b...)
		if !p.timer {
			p.timer = true
			time.AfterFunc(pongLate, p.late)
		}
		return len(b), nil
	}
	if len(p.held) == 0 {
		return p.Conn.Write(b)
	}
	both := net.Buffers{p.held, b}
	n, err := both.WriteTo(p.Conn)
	n = max(n-int64(len(p.held)), 0)
	p.held = p.held[:0]
	return int(n), err
}

// late sends what found no company.
func (p *pongs) late() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = false
	if len(p.held) > 0 {
		_, _ = p.Conn.Write(p.held) // the next write meets the same error
		p.held = p.held[:0]
	}
}

// pongCredentials are those of plain connections, whose pongs wait.
type pongCredentials struct {
	credentials.TransportCredentials
}

// ClientHandshake is called with every new connection.
func (c pongCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	return &pongs{Conn: conn}, info, nil
}

// Clone answers the same: nothing in them changes.
func (c pongCredentials) Clone() credentials.TransportCredentials { return c }

// calm lets pongs wait where connections to all of these are plain.
func calm(endpoints []string) []grpc.DialOption {
	for _, e := range endpoints {
		if !strings.HasPrefix(e, "http://") {
			return nil
		}
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(pongCredentials{insecure.NewCredentials()})}
}
