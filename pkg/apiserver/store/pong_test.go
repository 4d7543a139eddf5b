package store

import (
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestPongs writes frames: answers to pings go along with what comes after them, or alone when nothing does.
func TestPongs(t *testing.T) {
	pong := append(slices.Clone(pongHead), "12345678"...)
	ping := slices.Clone(pong)
	ping[4] = 0
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close() //nolint:errcheck // a pipe
		p := &pongs{Conn: near}
		type piece struct {
			what  string
			after time.Duration
		}
		var got []piece
		begun := time.Now()
		go func() {
			b := make([]byte, 4<<10)
			for {
				n, err := far.Read(b)
				if err != nil {
					return
				}
				got = append(got, piece{string(b[:n]), time.Since(begun)})
			}
		}()
		write := func(b []byte) {
			if n, err := p.Write(b); n != len(b) || err != nil {
				t.Errorf("writing %q: %d %v", b, n, err)
			}
		}
		write([]byte("question"))
		write(ping)
		write(pong)
		time.Sleep(time.Millisecond)
		write([]byte("next"))
		time.Sleep(time.Millisecond)
		write(pong)
		time.Sleep(time.Second)
		write(pong)
		time.Sleep(time.Second)
		synctest.Wait()
		want := []piece{
			{"question", 0}, {string(ping), 0},
			{string(pong), time.Millisecond}, {"next", time.Millisecond}, // a pipe takes them one by one
			{string(pong), pongLate}, // of the timer that ran already
			{string(pong), 1002*time.Millisecond + pongLate},
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		for range 1000 { // who pings for ever fills no memory
			if n, err := p.Write(pong); n != len(pong) || err != nil {
				t.Fatal(n, err)
			}
		}
		if len(p.held) > pongsMost+len(pong) {
			t.Errorf("%d bytes wait", len(p.held))
		}
		_ = near.Close() // a pipe
		if _, err := p.Write([]byte("late")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after the end: %v", err)
		}
	})
}
