// Command controller-manager runs the controllers of a Kubernetes cluster.
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

	"github.com/sextant-k8s/sextant/pkg/controllermanager"
)

// version is stamped by the linker.
var version = "v0.1.0-dev"

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "controller-manager: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run() error {
	c := &controllermanager.Config{Version: version}
	flags := pflag.NewFlagSet("controller-manager", pflag.ContinueOnError)
	flags.SortFlags = false
	c.AddFlags(flags)
	showVersion := flags.Bool("version", false, "Print the version and quit.")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%w; see --help", err)
	}
	switch {
	case *showVersion:
		fmt.Printf("Kubernetes v1.37.2 (sextant controller-manager %s)\n", version)
		return nil
	case flags.Arg(0) == "graph":
		return controllermanager.Graph(os.Stdout, c)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q; see --help", flags.Arg(0))
	}
	level := max(slog.LevelInfo-slog.Level(c.Verbosity), slog.LevelDebug) // -v 4 and more is everything
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m, err := controllermanager.New(c)
	if err != nil {
		return err
	}
	return m.Run(ctx)
}
