package audit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// LogConfig says how events are written to a file.
type LogConfig struct {
	Path     string // "-" = standard output, "" = no file
	Format   string // json or legacy
	MaxAge   int    // days that a rotated file is kept, 0 = for ever
	MaxFiles int    // rotated files that are kept, 0 = all
	MaxSize  int    // megabytes from which a file is rotated; 0 = 100
	Compress bool   // rotated files
	Delivery Delivery
}

func newLog(c LogConfig) (*sink, error) {
	s, err := newSink("log", c.Delivery)
	if err != nil {
		return nil, err
	}
	var out io.Writer = os.Stdout
	if c.Path != "-" {
		if err := os.MkdirAll(filepath.Dir(c.Path), 0o700); err != nil {
			return nil, fmt.Errorf("--audit-log-path: %w", err)
		}
		f, err := os.OpenFile(c.Path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("--audit-log-path: %w", err)
		}
		_ = f.Close() // it was opened to see that it can be
		file := &lumberjack.Logger{Filename: c.Path, MaxAge: c.MaxAge, MaxBackups: c.MaxFiles, MaxSize: c.MaxSize, Compress: c.Compress}
		out, s.end = file, func() { _ = file.Close() } // everything was written
	}
	switch c.Format {
	case "json", "":
	case "legacy":
		s.format = legacy
	default:
		return nil, fmt.Errorf("--audit-log-format %q: give json or legacy", c.Format)
	}
	var mu sync.Mutex
	s.deliver = func(_ context.Context, lines [][]byte) error {
		text := bytes.Join(append(lines, nil), []byte("\n"))
		mu.Lock()
		defer mu.Unlock()
		_, err := out.Write(text)
		return err
	}
	return s, nil
}

// legacy is an event as one line of words.
func legacy(ev *auditv1.Event) ([]byte, error) {
	ref := ev.ObjectRef
	if ref == nil {
		ref = &auditv1.ObjectReference{}
	}
	as, groups := "<self>", "<lookup>"
	if i := ev.ImpersonatedUser; i != nil {
		as = strconv.Quote(i.Username)
		if i.Groups != nil {
			groups = quoted(i.Groups)
		}
	}
	code, ip := "<deferred>", "<unknown>"
	if ev.ResponseStatus != nil {
		code = strconv.Itoa(int(ev.ResponseStatus.Code))
	}
	if len(ev.SourceIPs) > 0 {
		ip = ev.SourceIPs[0]
	}
	ns := ref.Namespace
	if ns == "" {
		ns = "<none>"
	}
	user, in := "<none>", "<none>"
	if ev.User.Username != "" {
		user = strconv.Quote(ev.User.Username)
	}
	if len(ev.User.Groups) > 0 {
		in = quoted(ev.User.Groups)
	}
	return fmt.Appendf(nil, `%s AUDIT: id=%q stage=%q ip=%q method=%q user=%s groups=%s as=%s asgroups=%s user-agent=%q namespace=%q uri=%q response="%s"`,
		ev.RequestReceivedTimestamp.Format(time.RFC3339Nano), ev.AuditID, ev.Stage, ip, ev.Verb, user, in, as, groups, ev.UserAgent, ns, ev.RequestURI, code), nil
}

func quoted(list []string) string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = strconv.Quote(s)
	}
	return `"` + strings.ReplaceAll(strings.Join(q, ","), `"`, `\"`) + `"`
}
