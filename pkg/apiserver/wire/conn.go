package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	firstWait  = 10 * time.Second // for the client's preface and settings
	lastWait   = time.Second      // between the last GOAWAY and the end, for the client to notice
	cutMost    = 1000
	queuedMost = 4    // times MaxStreams: streams that wait for handlers of streams that are gone
	headerSize = 9    // of a frame
	plainTable = 4096 // of the header encoder, in bytes
)

// conn is one client's connection.
type conn struct {
	s       *Server
	tls     *tls.Conn
	cork    *cork // nil = the listener does not cork
	handler http.Handler
	state   tls.ConnectionState
	remote  string
	ctx     context.Context // of all requests
	cancel  context.CancelFunc

	// Of the reading goroutine.
	fr    *http2.Framer
	names map[string]string // header names as net/http writes them
	maxID uint32            // the last stream the client opened

	mu       sync.Mutex
	room     sync.Cond // the out buffer was written, a window grew, or a stream ended
	out      []byte    // frames that wait to be written
	writing  bool
	err      error // why nothing is written any more
	streams  map[uint32]*stream
	running  int       // handlers
	queue    []*stream // that wait for a handler's place
	window   int64     // bytes that may be sent
	perSt    int64     // the same of a new stream
	maxFrame int
	enc      *hpack.Encoder
	encoded  bytes.Buffer
	unread   int64 // bytes of bodies that wait to be read
	credit   int64 // bytes of bodies that the client may send
	leaving  bool  // GOAWAY was sent
	over     bool  // the last GOAWAY was
	idleAt   time.Time
	idle     *time.Timer
	lastID   uint32   // maxID, for those who do not read
	cut      []uint32 // streams that ended here before the client had said everything, the last cutMost of them
}

func newConn(ctx context.Context, s *Server, t *tls.Conn, h http.Handler) *conn {
	c := &conn{
		s: s, tls: t, handler: h, state: t.ConnectionState(), remote: t.RemoteAddr().String(), names: map[string]string{},
		streams: map[uint32]*stream{}, window: startWindow, credit: connWindow, perSt: startWindow, maxFrame: 16 << 10, idleAt: time.Now(),
	}
	c.cork, _ = t.NetConn().(*cork)
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.room.L = &c.mu
	c.enc = hpack.NewEncoder(&c.encoded)
	c.fr = http2.NewFramer(io.Discard, bufio.NewReader(t))
	c.fr.SetReuseFrames()
	c.fr.SetMaxReadFrameSize(readFrame)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(plainTable, nil)
	c.fr.MaxHeaderListSize = s.MaxHeaderBytes
	return c
}

// serve reads until the client goes or one of the two has enough.
func (c *conn) serve() {
	defer c.end()
	if err := c.greet(); err != nil {
		slog.Debug("a client did not begin to speak HTTP/2", "remote", c.remote, "err", err)
		return
	}
	if t := c.s.IdleTimeout; t > 0 {
		c.mu.Lock()
		c.idle = time.AfterFunc(t, c.looksIdle)
		c.mu.Unlock()
	}
	for first := true; ; first = false {
		f, err := c.fr.ReadFrame()
		if err == nil {
			if _, ok := f.(*http2.SettingsFrame); first && !ok {
				err = http2.ConnectionError(http2.ErrCodeProtocol)
			} else {
				err = c.take(f)
			}
		}
		if err == nil {
			if first {
				_ = c.tls.SetReadDeadline(time.Time{}) // a dead connection shows at the next read
			}
			continue
		}
		var ofStream http2.StreamError
		var ofConn http2.ConnectionError
		switch {
		case errors.As(err, &ofStream):
			if ofStream.StreamID > c.maxID { // a request whose headers were refused
				c.opened(ofStream.StreamID)
			}
			c.reset(ofStream.StreamID, ofStream.Code)
		case errors.As(err, &ofConn):
			slog.Debug("a client broke the rules of HTTP/2", "remote", c.remote, "err", err)
			c.refuse(http2.ErrCode(ofConn))
			return
		case errors.Is(err, http2.ErrFrameTooLarge):
			c.refuse(http2.ErrCodeFrameSize)
			return
		default:
			return
		}
	}
}

// greet reads the preface and sends settings.
func (c *conn) greet() error {
	c.mu.Lock()
	c.startLocked(24, http2.FrameSettings, 0, 0)
	c.settingLocked(http2.SettingMaxFrameSize, readFrame)
	c.settingLocked(http2.SettingMaxConcurrentStreams, uint32(c.s.MaxStreams))
	c.settingLocked(http2.SettingMaxHeaderListSize, c.s.MaxHeaderBytes)
	c.settingLocked(http2.SettingInitialWindowSize, bodyWindow)
	c.windowUpdateLocked(0, connWindow-startWindow)
	c.flushLocked()
	c.mu.Unlock()
	if err := c.tls.SetReadDeadline(time.Now().Add(firstWait)); err != nil {
		return err
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.tls, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return fmt.Errorf("its first words were %q", preface)
	}
	return nil
}

// end lets go of everything; handlers notice by their contexts.
func (c *conn) end() {
	c.mu.Lock()
	if c.idle != nil {
		c.idle.Stop()
	}
	if c.err == nil {
		c.err = errGone
	}
	var all []*stream
	for _, st := range c.streams {
		all = append(all, st)
	}
	clear(c.streams)
	c.queue = nil
	c.room.Broadcast()
	c.mu.Unlock()
	for _, st := range all {
		st.body.fail(errGone)
	}
	c.cancel()
	_ = c.tls.Close() // nobody is left to be told
}

// errGone is what a handler sees whose client is gone.
var errGone = errors.New("the client closed the connection")

// take does what a frame says.
func (c *conn) take(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return c.takeHeaders(f)
	case *http2.DataFrame:
		return c.takeData(f)
	case *http2.WindowUpdateFrame:
		return c.takeWindow(f)
	case *http2.SettingsFrame:
		return c.takeSettings(f)
	case *http2.RSTStreamFrame:
		if c.unopened(f.StreamID) {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.drop(f.StreamID)
	case *http2.PingFrame:
		if !f.IsAck() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.startLocked(len(f.Data), http2.FramePing, http2.FlagPingAck, 0)
			c.out = append(c.out, f.Data[:]...)
			return c.answerLocked()
		}
	case *http2.GoAwayFrame:
		c.leave()
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil // priorities are the client's business, and unknown frames nobody's
}

func (c *conn) takeSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if f.NumSettings() > 100 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			by := int64(s.Val) - c.perSt
			c.perSt = int64(s.Val)
			for _, st := range c.streams {
				if st.window += by; st.window > maxWindow {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
			c.room.Broadcast()
		case http2.SettingMaxFrameSize:
			c.maxFrame = min(int(s.Val), sendFrame)
		case http2.SettingHeaderTableSize:
			c.enc.SetMaxDynamicTableSize(min(s.Val, plainTable))
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.startLocked(0, http2.FrameSettings, http2.FlagSettingsAck, 0)
	return c.answerLocked()
}

// looksIdle ends a connection on which nothing was asked for long.
func (c *conn) looksIdle() {
	c.mu.Lock()
	left := c.s.IdleTimeout - time.Since(c.idleAt)
	busy := len(c.streams) > 0 || c.running > 0
	if busy {
		left = c.s.IdleTimeout
	}
	if left > 0 {
		c.idle.Reset(left)
	}
	c.mu.Unlock()
	if left <= 0 {
		c.leave()
	}
}

// leave tells the client to go elsewhere with its next requests; those that came are served.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.leaving {
		c.leaving = true
		c.goAwayLocked(1<<31-1, http2.ErrCodeNo)
		c.flushLocked()
	}
	c.leaveIdleLocked()
}

// leaveIdleLocked closes a connection that is left, once nothing is asked on it any more. The client is told first which
// requests were seen, and has a moment to hear it.
func (c *conn) leaveIdleLocked() {
	if !c.leaving || c.over || len(c.streams) > 0 || c.running > 0 {
		return
	}
	c.over = true
	c.goAwayLocked(c.lastID, http2.ErrCodeNo)
	c.flushLocked()
	time.AfterFunc(lastWait, func() { _ = c.tls.Close() }) // reading ends then, and with it the connection
}

// refuse tells the client why this connection ends, and takes what is on its way from it for a moment: closed with something
// unread, the kernel would take the words back.
func (c *conn) refuse(code http2.ErrCode) {
	stop := time.AfterFunc(lastWait, func() { _ = c.tls.Close() }) // it ends a write that takes too long
	defer stop.Stop()
	c.mu.Lock()
	c.leaving, c.over = true, true
	c.goAwayLocked(c.lastID, code)
	c.flushLocked()
	for c.writing && c.err == nil {
		c.room.Wait()
	}
	c.mu.Unlock()
	if c.tls.CloseWrite() == nil && c.tls.SetReadDeadline(time.Now().Add(lastWait)) == nil {
		_, _ = io.CopyN(io.Discard, c.tls.NetConn(), idleAnswers) // until the client closes, the deadline, or enough
	}
}
