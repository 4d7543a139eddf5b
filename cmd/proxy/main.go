// Command proxy holds a node's kernel to the Services of the cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/sextant-k8s/sextant/pkg/proxy"
)

// version is stamped by the linker.
var version = "v0.1.0-dev"

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "proxy: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run() error {
	c := &proxy.Config{Version: version}
	flags := pflag.NewFlagSet("proxy", pflag.ContinueOnError)
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
		fmt.Printf("Kubernetes %s (sextant proxy %s)\n", proxy.Release, version)
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := proxy.New(c)
	if err != nil {
		return err
	}
	return p.Run(ctx)
}
