package dra

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	drahealth "k8s.io/kubelet/pkg/apis/dra-health/v1"
)

// stale is how long a word about a device holds when its driver does not say.
const stale = 30 * time.Second

// listen takes what a driver tells of its devices, again and again until ctx ends.
func (c *Claims) listen(ctx context.Context, name string, conn *grpc.ClientConn, method string) {
	for ctx.Err() == nil {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
		if err == nil {
			if err = stream.SendMsg(&drahealth.NodeWatchResourcesRequest{}); err == nil {
				err = stream.CloseSend()
			}
		}
		for err == nil {
			r := &drahealth.NodeWatchResourcesResponse{}
			if err = stream.RecvMsg(r); err == nil {
				c.hear(name, r.Devices, time.Now())
			}
		}
		if ctx.Err() == nil {
			c.cfg.Log.Debug("listening to the health of devices", "driver", name, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
}

func key(driver, pool, device string) string {
	return strings.Join([]string{driver, pool, device}, "/")
}

// hear notes the health of devices and wakes the pods which have them.
func (c *Claims) hear(name string, list []*drahealth.DeviceHealth, now time.Time) {
	touched := map[string]bool{}
	c.mu.Lock()
	for _, d := range list {
		h := health{is: v1.ResourceHealthStatusUnknown, message: d.Message, until: now.Add(stale)}
		switch d.Health {
		case drahealth.HealthStatus_HEALTHY:
			h.is = v1.ResourceHealthStatusHealthy
		case drahealth.HealthStatus_UNHEALTHY:
			h.is = v1.ResourceHealthStatusUnhealthy
		}
		if s := d.HealthCheckTimeoutSeconds; s > 0 {
			h.until = now.Add(time.Duration(s) * time.Second)
		}
		if len(h.message) > 1024 {
			h.message = h.message[:1021] + "..."
		}
		id := key(name, d.GetDevice().GetPoolName(), d.GetDevice().GetDeviceName())
		if old := c.health[id]; old.is != h.is || old.message != h.message {
			for _, k := range c.known {
				for _, dev := range k.DriverState[name].Devices {
					if key(name, dev.PoolName, dev.DeviceName) != id {
						continue
					}
					for uid := range k.PodUIDs {
						touched[uid] = true
					}
				}
			}
		}
		c.health[id] = h
	}
	c.mu.Unlock()
	for uid := range touched {
		c.cfg.Touched(uid)
	}
}

// Health is how the claimed devices of a container are, of drivers which tell.
func (c *Claims) Health(pod *v1.Pod, k *v1.Container) []v1.ResourceStatus {
	shares, err := c.Of(pod, k)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []v1.ResourceStatus
	at := map[string]int{}
	for _, s := range shares {
		for _, d := range s.Devices {
			h, ok := c.health[key(d.Driver, d.PoolName, d.DeviceName)]
			if !ok || d.Name == "" {
				continue
			}
			if time.Now().After(h.until) {
				h.is = v1.ResourceHealthStatusUnknown
			}
			name := "claim:" + d.Name
			if d.Request != "" {
				name += "/" + d.Request
			}
			if _, ok := at[name]; !ok {
				at[name] = len(out)
				out = append(out, v1.ResourceStatus{Name: v1.ResourceName(name)})
			}
			id := key(d.Driver, d.PoolName, d.DeviceName)
			if len(d.CDIDeviceIDs) > 0 {
				id = d.CDIDeviceIDs[0]
			}
			one := v1.ResourceHealth{ResourceID: v1.ResourceID(id), Health: h.is}
			if h.message != "" {
				one.Message = &h.message
			}
			st := &out[at[name]]
			st.Resources = append(st.Resources, one)
		}
	}
	return out
}
