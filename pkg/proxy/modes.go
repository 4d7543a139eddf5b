package proxy

import (
	"log/slog"

	"github.com/sextant-k8s/sextant/pkg/proxy/iptables"
	"github.com/sextant-k8s/sextant/pkg/proxy/ipvs"
	"github.com/sextant-k8s/sextant/pkg/proxy/nftables"
)

// modes are the values of --proxy-mode, each with a back end.
var modes = []string{"iptables", "nftables", "ipvs"}

// open answers a mode's back end, or why it does not work here.
func (c *Config) open(mode string) (b backend, err error) {
	switch mode {
	case "nftables":
		b, err = nftables.New()
	case "ipvs":
		b, err = ipvs.New(c.IPVS)
	default:
		b, err = iptables.New()
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// backends answers the back end of a mode, and those of the others, and of what our own iptables are not, as far as they work here.
func (c *Config) backends() (backend, []backend, error) {
	mine, err := c.open(c.Mode)
	if err != nil {
		return nil, nil, err
	}
	var others []backend
	if b, err := iptables.NewOther(); err != nil {
		slog.Debug("no other variant of iptables", "reason", err)
	} else {
		others = append(others, b)
	}
	for _, other := range modes {
		if other == c.Mode {
			continue
		}
		b, err := c.open(other)
		if err != nil {
			slog.Debug("nothing of another mode to remove", "mode", other, "reason", err)
			continue
		}
		others = append(others, b)
	}
	return mine, others, nil
}
