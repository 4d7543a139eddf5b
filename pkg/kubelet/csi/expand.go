package csi

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
)

// Expand has the driver grow the file system of a volume which is published in a pod's folder to a size in bytes. A driver
// which has nothing to do on a node has done it.
func (d *Drivers) Expand(ctx context.Context, v Volume, podDir string, size int64, secret *v1.SecretReference) error {
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	x, err := d.named(v.Driver)
	if err != nil || !x.expands {
		return err
	}
	defer d.alone(v.Driver, v.Handle)()
	secrets, err := d.secrets(ctx, secret)
	if err != nil {
		return err
	}
	staged := ""
	if x.stages {
		staged = d.staged(v)
	}
	_, err = x.node.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: v.Handle, VolumePath: filepath.Join(v.dir(podDir), "mount"), StagingTargetPath: staged,
		CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapability: v.capability(x), Secrets: secrets})
	if err != nil {
		return fmt.Errorf("driver %s: %w", v.Driver, err)
	}
	return nil
}

// Infeasible tells of an error of Expand that asking again will not mend: the size is not for this volume.
func Infeasible(err error) bool {
	switch status.Code(unwrapped(err)) {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound:
		return true
	}
	return false
}

// unwrapped is the driver's own answer.
func unwrapped(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = u.Unwrap()
	}
}
