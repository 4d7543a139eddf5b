// Command kubelet runs the pods of a node.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/sextant-k8s/sextant/pkg/kubelet"
)

// version is stamped by the linker.
var version = "v0.1.0-dev"

func main() {
	if err := run(); err != nil && !errors.Is(err, kubelet.ErrHelp) {
		fmt.Fprintf(os.Stderr, "kubelet: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run() error {
	flags, level, show, err := kubelet.ParseFlags(os.Args[1:])
	if err != nil {
		return err
	}
	if show {
		fmt.Printf("Kubernetes %s (sextant kubelet %s)\n", kubelet.Release, version)
		return nil
	}
	// A burst of pods leaves more garbage than a kubelet keeps in memory; little is worth collecting often on a node whose memory is pods'.
	debug.SetGCPercent(50)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	// The first signal stops; containers run on for the next kubelet to adopt.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	cfg, err := kubelet.Load(ctx, flags, kubelet.Release, log)
	if err != nil {
		return err
	}
	k, err := kubelet.New(cfg)
	if err != nil {
		return err
	}
	return k.Run(ctx)
}
