package iptables

import (
	"fmt"
	"testing"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// What the text of ten thousand services takes, before iptables-restore reads it.
func BenchmarkFull(b *testing.B) {
	table := &desired.Table{Policy: desired.Policy{MasqueradeBit: 14, NodePortsAll: true}}
	for i := range 10_000 {
		name := fmt.Sprintf("x/s%05d", i)
		at := fmt.Sprintf("%d.%d", i/250, 1+i%250)
		table.Set(name, port(name, "10.96."+at, ends("10.128."+at, "10.129."+at, "10.130."+at)))
	}
	r := rules{Policy: table.Policy}
	for b.Loop() {
		r.full(table.All(false), nil)
	}
}
