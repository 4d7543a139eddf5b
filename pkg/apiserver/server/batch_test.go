package server

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// TestBatch writes in all rhythms and sizes; what arrives is what was written, to the last byte before the end.
func TestBatch(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was written
	for round := range 20 {
		got := make(chan []byte, 1)
		go func() {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				got <- nil
				return
			}
			defer c.Close() //nolint:errcheck // only read
			b, _ := io.ReadAll(c)
			got <- b
		}()
		c, err := batchListener{l}.Accept()
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		r := rand.New(rand.NewPCG(uint64(round), 1))
		for range 200 {
			piece := make([]byte, r.IntN(1<<r.IntN(16))+1)
			for i := range piece {
				piece[i] = byte(r.Uint32())
			}
			want.Write(piece)
			if n, err := c.Write(piece); err != nil || n != len(piece) {
				t.Fatalf("writing %d bytes: %d, %v", len(piece), n, err)
			}
			if r.IntN(10) == 0 {
				time.Sleep(2 * inARow)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if b := <-got; !bytes.Equal(b, want.Bytes()) {
			t.Fatalf("%d bytes arrived of %d, or others", len(b), want.Len())
		}
	}
}

// TestBatchOfTheDeaf closes a connection whose other end reads nothing, in time.
func TestBatchOfTheDeaf(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer there.Close() //nolint:errcheck // nothing was written
	c := &batchConn{Conn: here}
	c.room.L = &c.mu
	c.last = time.Now() // the next is in a row, and is left to another
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	_ = c.Close() // what waits is lost
	if took := time.Since(begun); took > closing/2 {
		t.Errorf("closing took %v", took)
	}
	_ = there.SetReadDeadline(time.Now().Add(5 * closing)) // a pipe has deadlines
	time.Sleep(2 * closing)
	if _, err := there.Read(make([]byte, 10)); !errors.Is(err, io.EOF) {
		t.Errorf("the other end reads %v", err)
	}
	if _, err := c.Write([]byte("again")); err == nil {
		t.Error("what was written after is not an error")
	}
}
