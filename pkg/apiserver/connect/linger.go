package connect

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// silence is how long nothing may come from a client before it counts as gone; kubectl pings every 5 s.
const silence = 30 * time.Second

// lingering hands out connections that are closed only once the client has closed its side. A stream's last bytes may
// wait in the buffers of a client that reads slowly; to close at once would answer its next ping with a reset, and they
// would be lost.
type lingering struct{ http.ResponseWriter }

// Hijack hands the connection over.
func (l lingering) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(l.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return &lingerer{Conn: conn}, rw, nil
}

// Unwrap lets the rest of the response be written as ever.
func (l lingering) Unwrap() http.ResponseWriter { return l.ResponseWriter }

type lingerer struct {
	net.Conn
	once sync.Once
	err  error
}

// Close says that nothing more comes, and waits until the client has gone or falls silent.
func (l *lingerer) Close() error {
	l.once.Do(func() {
		if half, ok := l.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_, _ = io.Copy(io.Discard, patient{l.Conn}) // whatever ends it, the client is gone
		}
		l.err = l.Conn.Close()
	})
	return l.err
}

// patient reads with a new deadline each time.
type patient struct{ net.Conn }

func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}
