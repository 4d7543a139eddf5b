package kubelet

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

// usersLeast is the smallest range of users a pod has of its own, and all others are multiples of it.
const usersLeast = 65536

// check refuses values which cannot be meant.
func (c *Config) check() error {
	k := &c.Kubelet
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if _, err := c.reserve(); err != nil {
		errs = append(errs, err)
	}
	if len(k.QOSReserved) > 0 && !*k.CgroupsPerQOS {
		bad("qosReserved: there are no classes to bound with cgroupsPerQOS false")
	}
	if most := k.CrashLoopBackOff.MaxContainerRestartPeriod; most != nil && (most.Duration < time.Second || most.Duration > 5*time.Minute) {
		bad("crashLoopBackOff.maxContainerRestartPeriod %s: want 1s to 5m", most.Duration)
	}
	if u := k.UserNamespaces; u != nil && u.IDsPerPod != nil && (*u.IDsPerPod < usersLeast || *u.IDsPerPod%usersLeast != 0 || *u.IDsPerPod > 1<<31) {
		bad("userNamespaces.idsPerPod %d: want a multiple of %d", *u.IDsPerPod, usersLeast)
	}
	if *k.OOMScoreAdj < -1000 || *k.OOMScoreAdj > 1000 {
		bad("oomScoreAdj %d: want -1000 to 1000", *k.OOMScoreAdj)
	}
	if *k.NodeStatusMaxImages < -1 {
		bad("nodeStatusMaxImages %d: want -1 for all, or how many", *k.NodeStatusMaxImages)
	}
	if k.RegistryPullQPS != nil && *k.RegistryPullQPS < 0 || k.RegistryBurst < 0 {
		bad("registryPullQPS and registryBurst: want 0 or more")
	}
	if k.PodsPerCore < 0 {
		bad("podsPerCore %d: want 0 or more", k.PodsPerCore)
	}
	switch s := k.ConfigMapAndSecretChangeDetectionStrategy; s {
	case "", "Get", "Cache", "Watch":
	default:
		bad("configMapAndSecretChangeDetectionStrategy %q: want Get, Cache or Watch", s)
	}
	return errors.Join(errs...)
}

// provided are the node's addresses which a provider's controller must keep to; none without a controller.
func (c Config) provided() string {
	if c.Flags.CloudProvider != "external" {
		return ""
	}
	return c.Flags.NodeIP
}

// maxBackoff is the longest pause between crashes.
func (c Config) maxBackoff() time.Duration {
	if most := c.Kubelet.CrashLoopBackOff.MaxContainerRestartPeriod; most != nil {
		return most.Duration
	}
	return 5 * time.Minute
}

// userRange is how many users a pod has of its own.
func (c Config) userRange() uint32 {
	if u := c.Kubelet.UserNamespaces; u != nil && u.IDsPerPod != nil {
		return uint32(*u.IDsPerPod)
	}
	return usersLeast
}

// pullPace bounds pulls where the configuration does; by itself a node pulls as fast as its registry serves.
func (c Config) pullPace() *rate.Limiter {
	k := c.Kubelet
	if k.RegistryPullQPS == nil || *k.RegistryPullQPS == 0 {
		return nil
	}
	burst := int(k.RegistryBurst)
	if burst == 0 {
		burst = 10
	}
	return rate.NewLimiter(rate.Limit(*k.RegistryPullQPS), burst)
}
