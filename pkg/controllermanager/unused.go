package controllermanager

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"
)

// passedOver are upstream's flags with nothing to steer here: what they tune does not exist, or happens when something
// changes and not by the clock. "!" is one that may stand without a value.
var passedOver = strings.Fields(`
	allow-metric-labels allow-metric-labels-manifest allow-untagged-cloud! authentication-token-webhook-cache-ttl
	authentication-tolerate-lookup-failure! authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl cert-dir
	concurrent-service-syncs configure-cloud-routes! controller-start-interval
	disabled-metrics emulated-version emulation-forward-compatible! endpoint-updates-batch-period endpointslice-updates-batch-period
	flex-volume-plugin-dir http2-max-streams-per-connection kube-api-content-type log-flush-frequency log-json-info-buffer-size
	log-json-split-stream! log-text-info-buffer-size log-text-split-stream! logging-format min-compatibility-version min-resync-period
	mirroring-endpointslice-updates-batch-period namespace-sync-period node-sync-period permit-address-sharing! permit-port-sharing!
	pv-recycler-increment-timeout-nfs pv-recycler-minimum-timeout-hostpath pv-recycler-minimum-timeout-nfs
	pv-recycler-pod-template-filepath-hostpath pv-recycler-pod-template-filepath-nfs pv-recycler-timeout-increment-hostpath
	pvclaimbinder-sync-period requestheader-uid-headers resource-quota-sync-period route-reconciliation-period
	show-hidden-metrics-for-version vmodule volume-host-allow-local-loopback! volume-host-cidr-denylist`)

// onlyValue are upstream's flags of which one value is what happens here. Another would be a promise that is not kept.
var onlyValue = map[string]string{
	"cloud-config": "", "enable-dynamic-provisioning!": "true", "enable-hostpath-provisioner!": "false", "enable-leader-migration!": "false",
	"external-cloud-volume-plugin": "", "leader-migration-config": "", "max-endpoints-per-slice": "100", "mirroring-max-endpoints-per-subset": "1000",
	"tls-sni-cert-key": "",
}

// addUnused takes those flags, so that a command line written for upstream starts this daemon.
func addUnused(f *pflag.FlagSet) {
	add := func(name string, set func(name, value string) error) {
		name, toggle := strings.CutSuffix(name, "!")
		if f.Lookup(name) != nil {
			return
		}
		flag := f.VarPF(&taken{name: name, set: set}, name, "", "Accepted for upstream's sake.")
		flag.Hidden = true
		if toggle {
			flag.NoOptDefVal = "true"
		}
	}
	for _, name := range passedOver {
		add(name, func(name, value string) error {
			slog.Warn("this flag has no effect here", "flag", "--"+name, "value", value)
			return nil
		})
	}
	for name, only := range onlyValue {
		add(name, func(name, value string) error {
			switch {
			case value == only:
				return nil
			case only == "":
				return fmt.Errorf("this controller-manager has no use for it: leave --%s out", name)
			}
			return fmt.Errorf("%s is what there is: give --%s=%s or leave it out", only, name, only)
		})
	}
}

// taken is a flag that is looked at and not kept.
type taken struct {
	name, value string
	set         func(name, value string) error
}

// Set looks at a value.
func (t *taken) Set(value string) error {
	t.value = value
	return t.set(t.name, value)
}

func (t *taken) String() string { return t.value }

// Type is how help names the value.
func (t *taken) Type() string { return "string" }
