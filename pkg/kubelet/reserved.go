package kubelet

import (
	"fmt"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/cpuset"
)

// reserved are the CPUs which reservedSystemCPUs names, and what the node keeps from pods in all: for the system, for the
// kubelet, and as memory which is to stay free.
func (c Config) reserved() (cpuset.CPUSet, v1.ResourceList, error) {
	k := c.Kubelet
	named, err := cpuset.Parse(k.ReservedSystemCPUs)
	if err != nil {
		return named, nil, fmt.Errorf("reservedSystemCPUs %q: %w", k.ReservedSystemCPUs, err)
	}
	kept := v1.ResourceList{}
	add := func(name, amount string) error {
		q, err := resource.ParseQuantity(amount)
		if err != nil {
			return fmt.Errorf("%s %q is not a quantity: %w", name, amount, err)
		}
		sum := kept[v1.ResourceName(name)]
		sum.Add(q)
		kept[v1.ResourceName(name)] = sum
		return nil
	}
	for _, m := range []map[string]string{k.SystemReserved, k.KubeReserved} {
		for name, amount := range m {
			if name == string(v1.ResourceCPU) && !named.IsEmpty() {
				continue // those named count instead
			}
			if err := add(name, amount); err != nil {
				return named, nil, fmt.Errorf("systemReserved and kubeReserved: %w", err)
			}
		}
	}
	if !named.IsEmpty() {
		kept[v1.ResourceCPU] = *resource.NewQuantity(int64(named.Size()), resource.DecimalSI)
	}
	if amount, ok := k.EvictionHard["memory.available"]; ok {
		if pct, ok := strings.CutSuffix(amount, "%"); ok {
			p, err := strconv.ParseFloat(pct, 64)
			if err != nil {
				return named, nil, fmt.Errorf("evictionHard memory.available %q: %w", amount, err)
			}
			amount = strconv.FormatInt(int64(float64(meminfo("MemTotal"))*p/100), 10)
		}
		if err := add(string(v1.ResourceMemory), amount); err != nil {
			return named, nil, err
		}
	}
	return named, kept, nil
}
