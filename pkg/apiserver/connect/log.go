package connect

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// Log serves pods/log: the kubelet's answer as it comes, over a WebSocket if the client opens one.
func (s *Streams) Log(c *kind.ConnectRequest) {
	if err := s.log(c); err != nil {
		s.c.WriteError(c.Writer, c.HTTP, err)
	}
}

func (s *Streams) log(c *kind.ConnectRequest) error {
	q := c.HTTP.URL.Query()
	out, err := logOptions(q, c.Op.Name)
	if err != nil {
		return err
	}
	u, _, err := s.target(c, "containerLogs", true)
	if err != nil {
		return err
	}
	if u == nil {
		c.Writer.WriteHeader(http.StatusNoContent)
		return nil
	}
	u.RawQuery = out.Encode()
	req, err := http.NewRequestWithContext(c.HTTP.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	via := s.kubelet
	if request.Yes(q, "insecureSkipTLSVerifyBackend") {
		via = s.unverified
	}
	resp, err := via.RoundTrip(req)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("Get %q: %w", u.String(), err))
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return kubeletError(resp.StatusCode, string(text), c)
	}
	limit := int64(-1)
	if n, err := strconv.ParseInt(q.Get("limitBytes"), 10, 64); err == nil {
		limit = n
	}
	if wsstream.IsWebSocketRequest(c.HTTP) {
		var from io.Reader = resp.Body
		if limit >= 0 {
			from = io.LimitReader(from, limit)
		}
		// An empty frame comes first, so that a client of a silent container knows that it is being served. What fails
		// after the handshake is a connection that ended: there is nobody left to tell.
		_ = wsstream.NewReader(from, true, wsstream.NewDefaultReaderProtocols()).Copy(lingering{c.Writer}, c.HTTP)
		return nil
	}
	c.Writer.Header().Set("Content-Type", "text/plain")
	c.Writer.WriteHeader(http.StatusOK)
	copyFlushing(c.Writer, resp.Body, limit)
	return nil
}

// copyFlushing hands bytes on as they come, at most limit of them (-1 = all).
func copyFlushing(w http.ResponseWriter, r io.Reader, limit int64) {
	rc := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for limit != 0 {
		n, err := r.Read(buf)
		if limit > 0 {
			n = int(min(int64(n), limit))
			limit -= int64(n)
		}
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return
			}
			if rc.Flush() != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// kubeletError makes a status of what a kubelet said.
func kubeletError(code int, text string, c *kind.ConnectRequest) error {
	if code == http.StatusBadRequest || code == http.StatusNotFound {
		return apierrors.NewBadRequest(text)
	}
	return apierrors.NewGenericServerResponse(code, "get", podsGR, c.Op.Name, text, 0, true)
}

// logOptions checks a query and answers what the kubelet is asked.
func logOptions(q url.Values, pod string) (url.Values, error) {
	out := url.Values{}
	var errs field.ErrorList
	for _, name := range []string{"follow", "previous", "timestamps"} {
		if request.Yes(q, name) {
			out.Set(name, "true")
		}
	}
	for name, least := range map[string]int64{"tailLines": 0, "limitBytes": 1, "sinceSeconds": 1} {
		v := q.Get(name)
		if v == "" {
			continue
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("%s=%q is not a number", name, v))
		}
		if n < least {
			errs = append(errs, field.Invalid(field.NewPath(name), n, fmt.Sprintf("must be greater than or equal to %d", least)))
		}
		out.Set(name, v)
	}
	if v := q.Get("sinceTime"); v != "" {
		if _, err := time.Parse(time.RFC3339, v); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("sinceTime=%q is not a time as in RFC 3339", v))
		}
		if out.Get("sinceSeconds") != "" {
			errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
		}
		out.Set("sinceTime", v)
	}
	if v := q.Get("stream"); v != "" && v != corev1.LogStreamAll {
		out.Set("stream", v)
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "PodLogOptions"}, pod, errs)
	}
	return out, nil
}
