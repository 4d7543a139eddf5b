package server

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	gwebsocket "github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	portprotocol "k8s.io/apimachinery/pkg/util/portforward"
	protocol "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// wanted are the streams of an exec or attach.
type wanted struct{ stdin, stdout, stderr, tty bool }

// streams reads them from a request; a terminal has no error stream of its own.
func streams(q url.Values) wanted {
	tty := flag(q, "tty")
	return wanted{stdin: flag(q, "input", "stdin"), stdout: flag(q, "output", "stdout"), stderr: flag(q, "error", "stderr") && !tty, tty: tty}
}

// translate serves an exec or attach in v5.channel.k8s.io, whose streams can be closed one by one, with the runtime's
// SPDY behind it. The outcome goes last, as a Status on the error channel.
func translate(w http.ResponseWriter, r *http.Request, to *url.URL, want wanted) {
	channel := func(on bool, kind wsstream.ChannelType) wsstream.ChannelType {
		if on {
			return kind
		}
		return wsstream.IgnoreChannel
	}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{protocol.StreamProtocolV5Name: {Binary: true, Channels: []wsstream.ChannelType{
		channel(want.stdin, wsstream.ReadChannel), channel(want.stdout, wsstream.WriteChannel), channel(want.stderr, wsstream.WriteChannel),
		wsstream.WriteChannel, wsstream.ReadChannel}}})
	_, ends, err := conn.Open(w, r)
	if err != nil {
		return // the handshake has been answered
	}
	defer func() { _ = conn.Close() }() // everything was written before
	// An empty frame tells the client that the connection stands.
	_, _ = ends[protocol.StreamStdOut].Write(nil)
	e, err := executor(to)
	if err == nil {
		o := remotecommand.StreamOptions{Tty: want.tty}
		if want.stdin {
			o.Stdin = ends[protocol.StreamStdIn]
		}
		if want.stdout {
			o.Stdout = ends[protocol.StreamStdOut]
		}
		if want.stderr {
			o.Stderr = ends[protocol.StreamStdErr]
		}
		if want.tty {
			o.TerminalSizeQueue = sizes{json.NewDecoder(ends[protocol.StreamResize])}
		}
		err = e.StreamWithContext(r.Context(), o)
	}
	if raw, jerr := json.Marshal(outcome(err)); jerr == nil {
		_, _ = ends[protocol.StreamErr].Write(raw)
	}
}

// executor streams from the runtime. It sends no pings: the runtime is on this machine, and a ping that comes after the
// runtime has closed is answered with a reset, which loses what was written last.
func executor(to *url.URL) (remotecommand.Executor, error) {
	transport, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{})
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutorForTransports(transport, transport, http.MethodPost, to)
}

// sizes reads what the client's terminal grows to.
type sizes struct{ d *json.Decoder }

// Next answers nil when the client has gone.
func (s sizes) Next() *remotecommand.TerminalSize {
	size := remotecommand.TerminalSize{}
	if s.d.Decode(&size) != nil {
		return nil
	}
	return &size
}

// outcome is how a command ended, as clients read it.
func outcome(err error) metav1.Status {
	var code exec.CodeExitError
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &code):
		return metav1.Status{Status: metav1.StatusFailure, Reason: protocol.NonZeroExitCodeReason, Message: fmt.Sprintf("command terminated with non-zero exit code: %v", code),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: protocol.ExitCodeCauseType, Message: strconv.Itoa(code.Code)}}}}
	case errors.As(err, &status):
		return status.Status()
	}
	return apierrors.NewInternalError(err).Status()
}

// tunnel serves a port-forward whose client speaks SPDY inside WebSocket frames: the frames are unwrapped, and their
// bytes joined to a SPDY connection of the runtime.
func tunnel(w http.ResponseWriter, r *http.Request, to *url.URL) {
	back, err := dialSPDY(r, to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer back.Close()
	up := gwebsocket.Upgrader{Subprotocols: []string{portprotocol.WebsocketsSPDYTunnelingPortForwardV1}, CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // the handshake has been answered
	}
	front := portforward.NewTunnelingConnection("kubelet", ws)
	var wg sync.WaitGroup
	for _, c := range []struct {
		to   io.WriteCloser
		from io.Reader
	}{{back, front}, {front, back}} {
		wg.Go(func() {
			_, _ = io.Copy(c.to, c.from)
			// Either end's going is the end of both.
			_ = front.Close()
			_ = back.Close()
		})
	}
	wg.Wait()
}

// buffered is a connection whose first bytes were read already.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// dialSPDY opens a port-forward connection to the runtime's streaming server.
func dialSPDY(r *http.Request, to *url.URL) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", to.Host)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, to.String(), nil)
	if err == nil {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "SPDY/3.1")
		req.Header.Set("X-Stream-Protocol-Version", portprotocol.PortForwardV1Name)
		err = req.Write(conn)
	}
	br := bufio.NewReader(conn)
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(br, req); err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
			err = fmt.Errorf("the runtime refuses to forward: %s %s", resp.Status, strings.TrimSpace(string(text)))
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return buffered{conn, br}, nil
}
