package wire

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	h2 "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// unlike are h2spec's cases that we fail on purpose.
var unlike = map[string]string{
	"http2/4.2/3":     "it supposes frames of 16 KB at most, and we announce more; TestRules has a HEADERS frame that is too large",
	"http2/5.3.1/2":   "RFC 9113 took priorities away; what is said of them is not looked at",
	"http2/8.1.2.2/1": "a malformed request may be answered first: it is told 400, as by net/http",
	"http2/8.1.2.2/2": "likewise",
}

// TestH2spec has the published cases of HTTP/2, strict ones too, against the server.
func TestH2spec(t *testing.T) {
	t.Parallel()
	_, addr, _ := start(t, &Server{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1"}`)
	})
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Config{Host: host, Port: n, Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000, Strict: true, TLS: true, Insecure: true}
	seen := 0
	var try func(g *spec.TestGroup)
	try = func(g *spec.TestGroup) {
		for i, x := range append(g.Tests, g.StrictTests...) {
			seen++
			name := g.ID() + "/" + strconv.Itoa(i+1)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				conn, err := spec.Dial(c)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close() //nolint:errcheck // the case may have closed it
				err = x.Run(c, conn)
				if err != nil && strings.Contains(err.Error(), spec.ErrSkipped.Error()) {
					return
				}
				if why := unlike[name]; why != "" {
					if err == nil {
						t.Errorf("%s: it is kept now; take it off the list", x.Desc)
					}
					return
				}
				if err != nil {
					t.Errorf("%s: %s\n%v", x.Desc, x.Requirement, err)
				}
			})
		}
		for _, under := range g.Groups {
			try(under)
		}
	}
	for _, g := range []*spec.TestGroup{generic.Spec(), h2.Spec(), hpack.Spec()} {
		try(g)
	}
	if seen < 140 {
		t.Errorf("only %d cases were found", seen)
	}
}
