package proxy

import (
	"log/slog"

	"github.com/sextant-k8s/sextant/pkg/proxy/iptables"
	"github.com/sextant-k8s/sextant/pkg/proxy/nftables"
)

// modes are the values of --proxy-mode, each with a back end.
var modes = []string{"iptables", "nftables"}

// open answers a mode's back end, or why it does not work here.
func open(mode string) (backend, error) {
	if mode == "nftables" {
		b, err := nftables.New()
		if err != nil {
			return nil, err
		}
		return b, nil
	}
	b, err := iptables.New()
	if err != nil {
		return nil, err
	}
	return b, nil
}

// backends answers the back end of a mode, and those of the others as far as they work here.
func backends(mode string) (backend, []backend, error) {
	mine, err := open(mode)
	if err != nil {
		return nil, nil, err
	}
	var others []backend
	for _, other := range modes {
		if other == mode {
			continue
		}
		b, err := open(other)
		if err != nil {
			slog.Debug("nothing of another mode to remove", "mode", other, "reason", err)
			continue
		}
		others = append(others, b)
	}
	return mine, others, nil
}
