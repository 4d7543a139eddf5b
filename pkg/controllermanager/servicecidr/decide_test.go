package servicecidr

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		all := golden.Objects[networkingv1.ServiceCIDR](t, files["ranges.yaml"])
		var addresses []netip.Addr
		for text := range strings.FieldsSeq(files["addresses"]) {
			addresses = append(addresses, netip.MustParseAddr(text))
		}
		var b strings.Builder
		for _, r := range all {
			b.WriteString(r.Name + "\n" + decide(Snapshot{r, all, addresses, time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}).String())
		}
		return b.String()
	})
}
