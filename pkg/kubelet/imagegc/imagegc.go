// Package imagegc removes images nobody uses before the disk they lie on is full.
//
// Flow: Collector looks every few minutes -> which images are there, which does a container use, how full is the disk ->
// decide names those to go, the longest unused first -> removed one by one. Free does the same at once for all that is
// unused, for a node under disk pressure. Run owns the one goroutine; Free may be called from any.
package imagegc

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// Config is what a Collector works with.
type Config struct {
	CRI *cri.Client
	// High and Low are how full the disk may be, and to how much it is then brought, in percent. High 100 is never.
	High, Low int
	// MinAge is how long an image is kept after it came or was last used; MaxAge after how long unused it goes in any
	// case, 0 is never.
	MinAge, MaxAge time.Duration
	// Listed is told the images that are there, as they were at a moment.
	Listed func(ids []string, at time.Time)
	// Event tells of the node.
	Event func(kind, reason, message string)
	Log   *slog.Logger
}

// every is how often the disk is looked at.
const every = 5 * time.Minute

// Collector removes unused images of one node.
type Collector struct {
	cfg Config

	mu    sync.Mutex
	known map[string]record
}

// New makes a Collector.
func New(cfg Config) *Collector { return &Collector{cfg: cfg, known: map[string]record{}} }

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if err := c.collect(ctx, false); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("collecting images", "err", err)
			c.cfg.Event(v1.EventTypeWarning, "ImageGCFailed", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Free removes every unused image now.
func (c *Collector) Free(ctx context.Context) error { return c.collect(ctx, true) }

func (c *Collector) collect(ctx context.Context, all bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.snapshot(ctx)
	if err != nil {
		return err
	}
	s.All = all
	ids := make([]string, 0, len(s.Images))
	for _, i := range s.Images {
		ids = append(ids, i.id)
	}
	c.cfg.Listed(ids, s.Now)
	plan := decide(s)
	freed := int64(0)
	for _, id := range plan.Remove {
		if _, err := c.cfg.CRI.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: id}}); err != nil {
			c.cfg.Log.Warn("removing an image", "image", id, "err", err)
			continue
		}
		freed += c.known[id].size
		delete(c.known, id)
		c.cfg.Log.Info("removed an unused image", "image", id)
	}
	if plan.Need > 0 && freed < plan.Need {
		return fmt.Errorf("failed to garbage collect required amount of images. Attempted to free %d bytes, but only found %d bytes eligible to free", plan.Need, freed)
	}
	return nil
}

// snapshot looks at the images, their users and the disk, and remembers since when each is there and unused.
func (c *Collector) snapshot(ctx context.Context) (Snapshot, error) {
	s := Snapshot{Now: time.Now(), High: c.cfg.High, Low: c.cfg.Low, MinAge: c.cfg.MinAge, MaxAge: c.cfg.MaxAge}
	images, err := c.cfg.CRI.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return s, err
	}
	containers, err := c.cfg.CRI.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return s, err
	}
	used := map[string]bool{}
	for _, k := range containers.Containers {
		for _, name := range []string{k.ImageId, k.ImageRef, k.GetImage().GetImage()} {
			used[name] = true
		}
	}
	now := map[string]record{}
	for _, i := range images.Images {
		r, ok := c.known[i.Id]
		if !ok {
			r = record{id: i.Id, came: s.Now}
		}
		r.size, r.pinned, r.used = int64(i.Size), i.Pinned, used[i.Id]
		for _, n := range append(append([]string(nil), i.RepoTags...), i.RepoDigests...) {
			r.used = r.used || used[n]
		}
		if r.used {
			r.last = s.Now
		}
		now[i.Id] = r
		s.Images = append(s.Images, r)
	}
	c.known = now
	if info, err := c.cfg.CRI.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{}); err == nil && len(info.ImageFilesystems) > 0 {
		var fs unix.Statfs_t
		if unix.Statfs(info.ImageFilesystems[0].GetFsId().GetMountpoint(), &fs) == nil {
			s.Capacity, s.Available = int64(fs.Blocks)*fs.Bsize, int64(fs.Bavail)*fs.Bsize
		}
	}
	return s, nil
}
