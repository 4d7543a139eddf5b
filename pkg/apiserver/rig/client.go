package rig

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// AdminToken is the static token of a cluster administrator in tests.
const AdminToken = "admin-token"

// Client makes requests as the administrator of one server.
type Client struct {
	URL  string
	HTTP *http.Client
}

// NewClient is one of the server on a port of loopback.
func NewClient(t testing.TB, port int) *Client {
	c := &Client{URL: fmt.Sprintf("https://127.0.0.1:%d", port), HTTP: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
	}}}
	t.Cleanup(c.HTTP.CloseIdleConnections)
	return c
}

// Ready waits until the server says that it is.
func (c *Client) Ready(t testing.TB, most time.Duration) {
	t.Helper()
	deadline := time.Now().Add(most)
	for {
		code, _, b, err := c.Do(context.Background(), "GET", "/readyz", "", nil)
		if err == nil && code == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server was not ready after %v: %v, %d %s", most, err, code, b)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Do makes one request; an error is that of the connection.
func (c *Client) Do(ctx context.Context, method, path, body string, headers map[string]string) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+AdminToken)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "")
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, b, err
}

// Try is Do for a server that is there.
func (c *Client) Try(t testing.TB, method, path, body string, headers map[string]string) (int, http.Header, []byte) {
	t.Helper()
	code, h, b, err := c.Do(t.Context(), method, path, body, headers)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return code, h, b
}

// Must is Try for requests that have to succeed.
func (c *Client) Must(t testing.TB, method, path, body string) []byte {
	t.Helper()
	code, _, b := c.Try(t, method, path, body, nil)
	if code >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, code, b)
	}
	return b
}
