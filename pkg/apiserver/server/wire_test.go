package server

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// TestBodyThatNeverComes: over HTTP/2 as well, a request whose client does not go on ends with the request's time, and says so.
func TestBodyThatNeverComes(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.RequestTimeout = 2 * time.Second })
	body, feed := io.Pipe()
	defer feed.Close() //nolint:errcheck // it only ends the request
	req, err := http.NewRequest("POST", s.URL+"/api/v1/namespaces", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+rig.AdminToken)
	req.Header.Set("Content-Type", "application/json")
	begun := time.Now()
	resp, err := s.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.ProtoMajor != 2 || resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(said), `"reason":"Timeout"`) {
		t.Errorf("HTTP/%d: %d %s, %v", resp.ProtoMajor, resp.StatusCode, said, err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}
