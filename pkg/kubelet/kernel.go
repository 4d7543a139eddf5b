package kubelet

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// kernelWants are the kernel's parameters with which a node fares best: memory is promised beyond what there is, nothing
// panics because of one pod, and keys are many.
var kernelWants = map[string]string{"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000"}

// protectKernel refuses a node whose kernel is not as it should be, where protectKernelDefaults asks for that. This
// kubelet never changes the kernel itself.
func protectKernel(root string) error {
	var errs []error
	for name, want := range kernelWants {
		raw, err := os.ReadFile(root + "/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if have := strings.TrimSpace(string(raw)); err != nil || have != want {
			errs = append(errs, fmt.Errorf("protectKernelDefaults: invalid kernel flag: %s, expected value: %s, actual value: %s; set it with sysctl, or protectKernelDefaults: false", name, want, have))
		}
	}
	return errors.Join(errs...)
}

// outlive has the kernel kill others before the kubelet when memory runs out. It may be forbidden, which costs nothing else.
func (k *Kubelet) outlive() {
	if adj := k.cfg.Kubelet.OOMScoreAdj; adj != nil {
		if err := os.WriteFile("/proc/self/oom_score_adj", strconv.AppendInt(nil, int64(*adj), 10), 0o644); err != nil {
			k.log.Debug("the kubelet's oom score", "err", err)
		}
	}
}
