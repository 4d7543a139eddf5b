package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	protobuf = "application/vnd.kubernetes.protobuf"
	jsonType = "application/json"
)

// client speaks to one server on one connection, as one user.
type client struct {
	url, token string
	http       *http.Client
}

func newClient(url, token string) *client {
	return &client{url: url, token: token, http: &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // our own server on loopback
		ForceAttemptHTTP2: true, DisableCompression: true, MaxIdleConnsPerHost: 64,
	}}}
}

// again is the same user on a connection of its own.
func (c *client) again() *client { return newClient(c.url, c.token) }

// do makes one request and answers the body; an answer of 300 or more is an error.
func (c *client) do(method, path, accept string, body []byte) ([]byte, error) {
	resp, err := c.open(context.Background(), method, path, accept, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, b)
	}
	return b, err
}

func (c *client) open(ctx context.Context, method, path, accept string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", jsonType)
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	return c.http.Do(req)
}

// create posts one object.
func (c *client) create(path string, object any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	_, err = c.do(http.MethodPost, path, protobuf, body)
	return err
}

// patch merges into one object.
func (c *client) patch(path, change string) error {
	_, err := c.do(http.MethodPatch, path, protobuf, []byte(change))
	return err
}

// follow opens a watch from now on; path ends in its selectors, each followed by &.
func (c *client) follow(ctx context.Context, path string) (io.ReadCloser, error) {
	base, selectors, _ := strings.Cut(path, "?")
	list, err := c.do(http.MethodGet, base+"?limit=1", jsonType, nil)
	if err != nil {
		return nil, err
	}
	var l struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.Unmarshal(list, &l); err != nil {
		return nil, err
	}
	resp, err := c.open(ctx, http.MethodGet, base+"?"+selectors+"watch=1&resourceVersion="+l.Metadata.ResourceVersion, jsonType, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // only read
		return nil, fmt.Errorf("watch %s: %d %s", path, resp.StatusCode, text)
	}
	return resp.Body, nil
}

// counter counts the events of watches without reading what they say, so that the driver costs little.
type counter struct {
	seen  atomic.Int64
	first atomic.Int64 // when the first came, in nanoseconds
}

// read counts the lines of a stream, an event each, until it ends.
func (c *counter) read(r io.Reader) { c.readBy(r, 256<<10) }

// readBy is read with a buffer of so many bytes.
func (c *counter) readBy(r io.Reader, size int) {
	buf := make([]byte, size)
	for {
		n, err := r.Read(buf)
		if lines := bytes.Count(buf[:n], []byte{'\n'}); lines > 0 {
			c.first.CompareAndSwap(0, time.Now().UnixNano())
			c.seen.Add(int64(lines))
		}
		if err != nil {
			return
		}
	}
}

// until waits for so many events in all.
func (c *counter) until(n int, limit time.Duration) error {
	return await(fmt.Sprintf("%d events", n), limit, func() error {
		if seen := c.seen.Load(); seen < int64(n) {
			return fmt.Errorf("%d events came", seen)
		}
		return nil
	})
}

// event is what the bench wants to know of a pod's event.
type event struct {
	Type   string
	Object struct {
		Metadata struct{ Name string }
		Status   struct{ Phase string }
	}
}

// events reads a stream of events into a channel, which is closed when the stream ends.
func events(r io.Reader) <-chan event {
	out := make(chan event, 1024)
	go func() {
		defer close(out)
		lines := bufio.NewReaderSize(r, 64<<10)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var e event
			if json.Unmarshal(line, &e) == nil {
				out <- e
			}
		}
	}()
	return out
}

// wait reads events until so many names have met the condition.
func wait(in <-chan event, n int, limit time.Duration, met func(event) bool) error {
	names := map[string]bool{}
	timeout := time.After(limit)
	for {
		select {
		case e, ok := <-in:
			if !ok {
				return fmt.Errorf("the watch ended with %d of %d", len(names), n)
			}
			if met(e) {
				names[e.Object.Metadata.Name] = true
			}
			if len(names) == n {
				return nil
			}
		case <-timeout:
			return fmt.Errorf("%d of %d after %s", len(names), n, limit)
		}
	}
}
