package server

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestSlowClientsGetTheEnd writes more than buffers hold at once, closes, and lets a client that has not read yet ping.
func TestSlowClientsGetTheEnd(t *testing.T) {
	const size = 4 << 20
	closing, closed := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := lingering{w}.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if err := conn.(*lingerer).Conn.(*net.TCPConn).SetWriteBuffer(2 * size); err != nil {
			t.Error(err)
		}
		if _, err := conn.Write(make([]byte, size)); err != nil {
			t.Error(err)
		}
		close(closing)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		close(closed)
	}))
	defer s.Close()
	client, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-closing
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		if _, err := io.WriteString(client, "ping"); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-closed:
		t.Fatal("the connection was closed before the client had read it")
	default:
	}
	if n, err := io.Copy(io.Discard, client); n != size || err != nil {
		t.Errorf("the client got %d of %d bytes, %v", n, size, err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Error("the connection stays open though the client is gone")
	}
}
