package csi

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// Stats are what a driver says of a volume; a number it does not tell is 0.
type Stats struct {
	Capacity, Available, Used     uint64
	Inodes, InodesFree, InodesUse uint64
}

// Stats are the newest of the volume which is published at a path.
func (d *Drivers) Stats(path string) (Stats, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.stats[path]
	return s, ok
}

// measure asks the drivers which can tell how full their volumes are.
func (d *Drivers) measure(ctx context.Context) {
	files, _ := filepath.Glob(filepath.Join(d.cfg.Root, "pods", "*", "volumes", "kubernetes.io~csi", "*", recordFile))
	now := map[string]Stats{}
	for _, f := range files {
		var r record
		raw, err := os.ReadFile(f)
		if err != nil || json.Unmarshal(raw, &r) != nil {
			continue
		}
		x, err := d.named(r.Driver)
		target := filepath.Join(filepath.Dir(f), "mount")
		if err != nil || !x.tells || !mounted(target) {
			continue
		}
		cctx, cancel := context.WithTimeout(ctx, statsWait)
		answer, err := x.node.NodeGetVolumeStats(cctx, &csi.NodeGetVolumeStatsRequest{VolumeId: r.Handle, VolumePath: target})
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				d.cfg.Log.Debug("asking a driver for a volume's stats", "driver", r.Driver, "volume", r.Handle, "err", err)
			}
			continue
		}
		now[target] = statsOf(answer)
	}
	d.mu.Lock()
	d.stats = now
	d.mu.Unlock()
}

// statsWait bounds one question for stats: a driver that hangs must not stop the others from being asked for long.
const statsWait = 20 * time.Second

func statsOf(a *csi.NodeGetVolumeStatsResponse) Stats {
	var s Stats
	whole := func(n int64) uint64 { return uint64(max(n, 0)) }
	for _, u := range a.GetUsage() {
		switch u.GetUnit() {
		case csi.VolumeUsage_BYTES:
			s.Capacity, s.Available, s.Used = whole(u.Total), whole(u.Available), whole(u.Used)
		case csi.VolumeUsage_INODES:
			s.Inodes, s.InodesFree, s.InodesUse = whole(u.Total), whole(u.Available), whole(u.Used)
		}
	}
	return s
}
