package wire

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

const (
	startWindow = 65535     // of HTTP/2 before anything was said
	maxWindow   = 1<<31 - 1 // of HTTP/2
	sendFrame   = 64 << 10  // bytes of a frame we send, if the client takes as much
	outMost     = 32 << 10  // bytes that wait to be written; then handlers wait
	outCrowd    = 4 << 10   // the same while many connections are written to
	crowdFrom   = 64        // connections that are written to at once, from which each holds less
	idleAnswers = 1 << 20   // bytes of answers to pings, settings and resets that wait; then the client is cut off
	outKeep     = 128 << 10 // bytes of a buffer that is kept for others at most
	flushMost   = 16        // writes that a handler does for itself and others
	writeWait   = 30 * time.Second
)

var buffers = sync.Pool{New: func() any { return &[]byte{} }}

// startLocked appends the head of a frame of n bytes.
func (c *conn) startLocked(n int, t http2.FrameType, flags http2.Flags, id uint32) {
	if c.out == nil {
		c.out = (*buffers.Get().(*[]byte))[:0]
	}
	c.out = append(c.out, byte(n>>16), byte(n>>8), byte(n), byte(t), byte(flags))
	c.out = binary.BigEndian.AppendUint32(c.out, id)
}

func (c *conn) settingLocked(id http2.SettingID, v uint32) {
	c.out = binary.BigEndian.AppendUint16(c.out, uint16(id))
	c.out = binary.BigEndian.AppendUint32(c.out, v)
}

func (c *conn) windowUpdateLocked(id uint32, n int64) {
	c.startLocked(4, http2.FrameWindowUpdate, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(n))
}

func (c *conn) resetLocked(id uint32, code http2.ErrCode) {
	c.startLocked(4, http2.FrameRSTStream, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
}

func (c *conn) goAwayLocked(last uint32, code http2.ErrCode) {
	c.startLocked(8, http2.FrameGoAway, 0, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, last)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
}

// answerLocked sends what the reading goroutine has to say. That one never writes itself, since it would not read
// meanwhile, nor waits for room: a client that asks and does not listen is cut off.
func (c *conn) answerLocked() error {
	if len(c.out) > idleAnswers {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	c.flushElsewhereLocked()
	return nil
}

// flushElsewhereLocked is flushLocked in a goroutine of its own, one at most, however much is asked of it.
func (c *conn) flushElsewhereLocked() {
	if c.writing {
		return
	}
	c.writing = true
	go c.flushPromised()
}

// flushPromised writes for somebody who has set writing already.
func (c *conn) flushPromised() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = false
	c.flushLocked()
}

// flushLocked writes what waits, and what comes meanwhile, unless somebody does so already.
func (c *conn) flushLocked() {
	if c.writing || len(c.out) == 0 {
		return
	}
	c.writing = true
	for n := 0; len(c.out) > 0 && c.err == nil; n++ {
		if n == flushMost {
			go c.flushPromised() // a handler must not write for others for ever
			return
		}
		b := c.out
		c.out = nil
		c.mu.Unlock()
		err := c.send(b)
		if cap(b) <= outKeep {
			b = b[:0]
			buffers.Put(&b)
		}
		c.mu.Lock()
		if err != nil && c.err == nil {
			c.err = err
			slog.Debug("a connection broke", "remote", c.remote, "err", err)
			time.AfterFunc(0, func() { _ = c.tls.Close() }) // reading ends then; not here, since closing may wait
		}
		c.room.Broadcast()
	}
	if c.err != nil {
		c.out = nil
	}
	c.writing = false
	c.room.Broadcast()
}

// flushSoonLocked is flushLocked for an event that others on this connection are likely to send as well: they get the
// time to join it.
func (c *conn) flushSoonLocked() {
	if c.writing || len(c.out) == 0 {
		return
	}
	c.writing = true
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
	c.writing = false
	c.flushLocked()
}

// send writes to the socket. Only who has set writing calls it.
func (c *conn) send(b []byte) error {
	if err := c.tls.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	// All informers of a cluster may start at once: most of them wait for their turn of the network then.
	crowd := c.s.sending.Add(1) > crowdFrom
	defer c.s.sending.Add(-1)
	if c.cork == nil || len(b) <= corkFrom || crowd {
		_, err := c.tls.Write(b)
		return err
	}
	c.cork.put()
	_, err := c.tls.Write(b)
	return errors.Join(err, c.cork.pull())
}

// most is how much may wait to be written.
func (c *conn) most() int {
	if c.s.sending.Load() > crowdFrom {
		return outCrowd
	}
	return outMost
}

// dataLocked appends a piece of an answer, waiting for windows and room; what waits is written meanwhile.
func (c *conn) dataLocked(st *stream, b []byte, end bool) error {
	for len(b) > 0 {
		for c.err == nil && !st.gone && (c.window <= 0 || st.window <= 0 || len(c.out) > c.most()) {
			c.flushLocked()
			if c.err == nil && !st.gone && (c.window <= 0 || st.window <= 0 || len(c.out) > c.most()) {
				st.waits = true
				st.alarmLocked(writing)
				c.room.Wait()
				st.waits = false
			}
		}
		if err := c.brokenLocked(st); err != nil {
			return err
		}
		n := min(len(b), c.maxFrame, int(min(c.window, st.window)))
		c.window -= int64(n)
		st.window -= int64(n)
		var flags http2.Flags
		if end && n == len(b) {
			flags = http2.FlagDataEndStream
		}
		c.startLocked(n, http2.FrameData, flags, st.id)
		c.out = append(c.out, b[:n]...)
		b = b[n:]
		if flags != 0 {
			return nil
		}
	}
	if err := c.brokenLocked(st); err != nil {
		return err
	}
	if end {
		c.startLocked(0, http2.FrameData, http2.FlagDataEndStream, st.id)
	}
	return nil
}

func (c *conn) brokenLocked(st *stream) error {
	if c.err != nil {
		return c.err
	}
	if st.gone {
		return errReset
	}
	return nil
}

// takeWindow lets more be sent.
func (c *conn) takeWindow(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
	} else {
		if c.unopened(f.StreamID) {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		st := c.streams[f.StreamID]
		if st == nil {
			return nil
		}
		if st.window += int64(f.Increment); st.window > maxWindow {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
		}
	}
	c.room.Broadcast()
	return nil
}
