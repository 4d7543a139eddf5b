// Command scheduler gives pods their nodes.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/sextant-k8s/sextant/pkg/scheduler"
)

// version is stamped by the linker.
var version = "v0.1.0-dev"

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "scheduler: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run() error {
	c := &scheduler.Config{Version: version}
	flags := pflag.NewFlagSet("scheduler", pflag.ContinueOnError)
	flags.SortFlags = false
	c.AddFlags(flags)
	showVersion := flags.Bool("version", false, "Print the version and quit.")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%w; see --help", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see --help", flags.Arg(0))
	}
	if *showVersion {
		fmt.Printf("Kubernetes %s (sextant scheduler %s)\n", scheduler.Release, version)
		return nil
	}
	slog.SetDefault(slog.New(c.LogHandler(os.Stderr)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := scheduler.New(c)
	if errors.Is(err, scheduler.ErrWritten) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
