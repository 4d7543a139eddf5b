package proxy

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// Tracking tunes how the kernel remembers connections. Zero values leave it as it is.
type Tracking struct {
	MaxPerCore, Min                                      int32
	Established, CloseWait, UDPTimeout, UDPStreamTimeout time.Duration
	Liberal                                              bool
}

func (t *Tracking) addFlags(f *pflag.FlagSet) {
	f.Int32Var(&t.MaxPerCore, "conntrack-max-per-core", 32768, "The most connections to track per CPU core; 0 leaves the kernel's limit.")
	f.Int32Var(&t.Min, "conntrack-min", 131072, "The least to which --conntrack-max-per-core may limit the node.")
	f.DurationVar(&t.Established, "conntrack-tcp-timeout-established", 24*time.Hour, "How long an idle TCP connection is remembered; 0 leaves it as it is.")
	f.DurationVar(&t.CloseWait, "conntrack-tcp-timeout-close-wait", time.Hour, "How long a TCP connection in CLOSE_WAIT is remembered; 0 leaves it as it is.")
	f.BoolVar(&t.Liberal, "conntrack-tcp-be-liberal", false, "Let TCP packets outside of the window belong to their connection.")
	f.DurationVar(&t.UDPTimeout, "conntrack-udp-timeout", 0, "How long an unanswered UDP flow is remembered; 0 leaves it as it is.")
	f.DurationVar(&t.UDPStreamTimeout, "conntrack-udp-timeout-stream", 0, "How long an answered UDP flow is remembered; 0 leaves it as it is.")
}

func (t *Tracking) read(file *v1alpha1.KubeProxyConntrackConfiguration) {
	if file.MaxPerCore != nil {
		t.MaxPerCore = *file.MaxPerCore
	}
	if file.Min != nil {
		t.Min = *file.Min
	}
	if d := file.TCPEstablishedTimeout; d != nil {
		t.Established = d.Duration
	}
	if d := file.TCPCloseWaitTimeout; d != nil {
		t.CloseWait = d.Duration
	}
	if d := file.UDPTimeout.Duration; d > 0 {
		t.UDPTimeout = d
	}
	if d := file.UDPStreamTimeout.Duration; d > 0 {
		t.UDPStreamTimeout = d
	}
	t.Liberal = t.Liberal || file.TCPBeLiberal
}

// conntrack writes the tuning. A kernel that will not be tuned, as in a container, is told of and left.
func (c *Config) conntrack() error {
	t := &c.Tracking
	if t.MaxPerCore < 0 || t.Min < 0 {
		return fmt.Errorf("--conntrack-max-per-core is %d and --conntrack-min is %d; want 0 or more", t.MaxPerCore, t.Min)
	}
	most := int64(t.MaxPerCore) * int64(runtime.NumCPU())
	if most > 0 {
		most = max(most, int64(t.Min))
	}
	liberal := int64(0)
	if t.Liberal {
		liberal = 1
	}
	for _, s := range []struct {
		name  string
		value int64
		raise bool // only ever raised
	}{
		{"nf_conntrack_max", most, true}, {"nf_conntrack_tcp_timeout_established", int64(t.Established.Seconds()), false},
		{"nf_conntrack_tcp_timeout_close_wait", int64(t.CloseWait.Seconds()), false}, {"nf_conntrack_tcp_be_liberal", liberal, false},
		{"nf_conntrack_udp_timeout", int64(t.UDPTimeout.Seconds()), false}, {"nf_conntrack_udp_timeout_stream", int64(t.UDPStreamTimeout.Seconds()), false},
	} {
		path := "/proc/sys/net/netfilter/" + s.name
		held, err := os.ReadFile(path)
		if err != nil || s.value == 0 {
			continue
		}
		if now, err := strconv.ParseInt(strings.TrimSpace(string(held)), 10, 64); err == nil && (now == s.value || s.raise && now > s.value) {
			continue
		}
		if err := os.WriteFile(path, []byte(strconv.FormatInt(s.value, 10)), 0o644); err != nil {
			slog.Info("connection tracking is not tuned", "setting", s.name, "error", err)
		}
	}
	return nil
}
