package proxy

import (
	"github.com/sextant-k8s/sextant/pkg/proxy/iptables"
)

// modes are the values of --proxy-mode, each with a back end.
var modes = []string{"iptables"}

// backends answers the back end of a mode, and those of the others as far as they work here.
func backends(mode string) (backend, []backend, error) {
	b, err := iptables.New()
	if err != nil {
		return nil, nil, err
	}
	return b, nil, nil
}
